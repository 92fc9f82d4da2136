"""Collectives whose gradients are those of one process that does the work of all ranks."""

from __future__ import annotations

from collections.abc import Sequence
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


class _GatherUneven(torch.autograd.Function):
    """Rows travel padded to the longest rank's, and their gradients come back as they went, summed on the way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts
        sent = padded(rows, max(counts))
        parts = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(parts, sent)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        longest = max(ctx.counts)
        sent = [padded(part, longest) for part in gradients[0].split(ctx.counts)]
        own = torch.empty_like(sent[0])
        dist.reduce_scatter(own, sent)
        return own[: ctx.counts[dist.get_rank()]], None


def sum_with_gradient(values: Tensor) -> Tensor:
    """The elementwise sum over ranks."""
    summed: Tensor = _Sum.apply(values) if dist.is_initialized() else values
    return summed


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [N, ...] of all ranks [W N, ...], in rank order; every rank must have as many."""
    gathered: Tensor = _Gather.apply(rows) if dist.is_initialized() else rows
    return gathered


def row_counts(rows: Tensor) -> tuple[list[int], int]:
    """How many rows each rank holds, and this rank's place among the ranks: its rows follow sum(counts[:place])."""
    if not dist.is_initialized():
        return [len(rows)], 0
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    return torch.cat(counts).tolist(), dist.get_rank()


def gather_uneven(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows [N_r, ...] of all ranks [sum of N_r, ...], in rank order; `counts` are those of `row_counts`.

    A rank may hold none. Integers are gathered as well, without gradient.
    """
    if not dist.is_initialized() or not max(counts):
        return rows
    gathered: Tensor = _GatherUneven.apply(rows, counts)
    return gathered


def padded(rows: Tensor, length: int) -> Tensor:
    """The rows, contiguous, with zeros behind them up to a length."""
    if len(rows) == length:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros(length - len(rows), *rows.shape[1:])])
