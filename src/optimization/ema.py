"""Exponential moving averages of one network by another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_ema(
    target: nn.Module,
    source: nn.Module,
    momentum: float,
    held: Callable[[Tensor], Tensor] = lambda parameter: parameter,
) -> None:
    """target = momentum * target + (1 - momentum) * source for parameters, in fp32 or fp64; buffers are copied.

    `held` gives what this rank holds of a parameter, so that shard goes on shard and nothing is gathered. Buffers too:
    a teacher with BatchNorm statistics of its first step is a different network.
    """
    averages, values = ([held(parameter) for parameter in network.parameters()] for network in (target, source))
    assert len(averages) == len(values) and all(average.dtype.itemsize >= 4 for average in averages)
    torch._foreach_lerp_(averages, values, 1.0 - momentum)
    for average, value in zip(target.buffers(), source.buffers(), strict=True):
        average.copy_(value)
