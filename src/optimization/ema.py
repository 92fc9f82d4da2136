"""Exponential moving averages of one network by another."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_ema(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """target = momentum * target + (1 - momentum) * source for parameters, in fp32; buffers are copied.

    Buffers too: a teacher with BatchNorm statistics of its first step is a different network.
    """
    averages: list[Tensor] = list(target.parameters())
    values: list[Tensor] = list(source.parameters())
    assert len(averages) == len(values) and all(a.dtype == torch.float32 for a in averages)
    torch._foreach_lerp_(averages, values, 1.0 - momentum)
    for average, value in zip(target.buffers(), source.buffers(), strict=True):
        average.copy_(value)
