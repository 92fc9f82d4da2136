"""Collectives whose gradients are those of one process that does the work of all ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    """Every rank's loss depends on every rank's summand, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Of the summed gradient each rank keeps its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def sum_with_gradient(values: Tensor) -> Tensor:
    """The elementwise sum over ranks."""
    summed: Tensor = _Sum.apply(values) if dist.is_initialized() else values
    return summed


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [N, ...] of all ranks [W N, ...], in rank order; every rank must have as many."""
    gathered: Tensor = _Gather.apply(rows) if dist.is_initialized() else rows
    return gathered
