"""What this rank's rows are compared with: the rows of all ranks."""

# B rows of this rank, N of all ranks, D width

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.distributed.collectives import gather_uneven, row_counts


class Columns(NamedTuple):
    """Two sides of the samples, of length 1: of this rank, and of all ranks."""

    first_BD: Tensor
    second_BD: Tensor
    first_ND: Tensor
    second_ND: Tensor
    own_B: Tensor
    """Which columns are this rank's own samples."""
    counts: list[int]
    """Samples of each rank."""


def gather_columns(first_BD: Tensor, second_BD: Tensor) -> Columns:
    """Both sides travel in one collective, whose backward sums the gradients of all ranks."""
    assert first_BD.shape == second_BD.shape and first_BD.ndim == 2, (first_BD.shape, second_BD.shape)
    first_BD, second_BD = unit(first_BD), unit(second_BD)
    counts, place = row_counts(first_BD)
    first_ND, second_ND = gather_uneven(torch.cat([first_BD, second_BD], dim=1), counts).chunk(2, dim=1)
    return Columns(first_BD, second_BD, first_ND, second_ND, own_columns(counts, place, first_BD.device), counts)


def own_columns(counts: list[int], place: int, device: torch.device) -> Tensor:
    """Which of all ranks' rows are this rank's."""
    start = sum(counts[:place])
    return torch.arange(start, start + counts[place], device=device)


def unit(rows_BD: Tensor) -> Tensor:
    """Rows of length 1, in fp32; fp64 stays."""
    return F.normalize(precise(rows_BD), dim=1)


def precise(values: Tensor) -> Tensor:
    """In fp32, unless it is in fp64 already: a temperature of 0.01 makes 0.8 of what bf16 rounds off a cosine."""
    return values if values.dtype == torch.float64 else values.float()
