"""What a contrastive loss learns: an objective holds one of these as a child, so that engines train and save it.

Every parameter is a vector of one: FSDP2 and DeepSpeed take no scalars, and what is 1-D has no weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.distributed.collectives import sum_with_gradient


class _Bounded(torch.autograd.Function):
    """A clamp that can be left again: beyond a bound, a gradient that leads back passes.

    That of torch stops every gradient there, so that one step too far would fix the parameter for ever. Which way the
    gradient leads is a matter of its sum over all ranks: of a part of them it may be the other way.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        low, high = ctx.bounds
        whole = sum_with_gradient(gradients[0])
        outwards = ((value > high) & (whole < 0)) | ((value < low) & (whole > 0))
        return gradients[0].masked_fill(outwards, 0.0), None, None


class LogitScale(nn.Module):
    """CLIP's 1 / temperature, learned as its logarithm, which is bounded to [0, log 100] in forward.

    An edit of the parameter behind the optimizer's step would be lost under ZeRO. Call it once in a forward, on every
    rank: its backward looks at the gradients of all.
    """

    def __init__(self, temperature: float = 0.07, highest: float = 100.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), math.log(1.0 / temperature)))
        self.highest = highest

    def forward(self) -> Tensor:
        """The scale [1], between 1 and `highest`."""
        bounded: Tensor = _Bounded.apply(self.log_scale, 0.0, math.log(self.highest))
        return bounded.exp()

    def told(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The `temperature` for metrics.jsonl, from this module's weights as an engine gathers them."""
        return {"temperature": math.exp(-weights["log_scale"].clamp(0.0, math.log(self.highest)).item())}


class SigmoidScale(nn.Module):
    """SigLIP's scale exp(t') and bias (arXiv 2303.15343: t' = log 10, b = -10), for global batches of thousands.

    For small batches start the bias at `balanced_bias`.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Scale [1] and bias [1]."""
        return self.log_scale.exp(), self.bias


def balanced_bias(batch_size: int) -> float:
    """The bias at which yes is as likely as it is frequent: log(positives / negatives) of a global batch."""
    return -math.log(max(batch_size - 1, 1))
