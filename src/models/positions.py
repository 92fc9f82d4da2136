"""Where a token is, on grids of any dimension: sine-cosine positions to add, rotations of queries and keys.

Legend: B batch, L tokens of the grid, K of them that are present, n axes, D width, d width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from src.models.config import PositionKind

BASE = 10000.0


def coordinates(grid: tuple[int, ...]) -> Tensor:
    """Place of each token [L, n] along each axis, in row-major order, float64."""
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in axes], dim=1)


def corner(part: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Row-major numbers [L] in a grid of the tokens of a part of it that has the same first token."""
    return torch.arange(math.prod(grid)).view(grid)[tuple(slice(side) for side in part)].flatten()


def in_line(index_BK: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Which tokens of a grid share a coordinate, [B, K, K]: on two axes those of one row or one column."""
    lines = [axis_BK.unsqueeze(2) == axis_BK.unsqueeze(1) for axis_BK in torch.unravel_index(index_BK, grid)]
    return torch.stack(lines).any(0)


def sincos_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Positions [L, width] of a grid's tokens in row-major order, float32.

    Each of the n axes takes an equal, even part of the width: sines, then cosines, of the coordinate at frequencies
    10000^(-2i/part) (Vaswani et al. 2017, arXiv 1706.03762); what the parts leave over is zero.
    """
    part = 2 * (width // (2 * len(grid)))
    if part < 2:
        raise ValueError(f"width {width} is too small for positions on {len(grid)} axes: at least {2 * len(grid)}")
    frequencies = BASE ** -(torch.arange(part // 2, dtype=torch.float64) * 2 / part)
    angles_Lnf = coordinates(grid).unsqueeze(-1) * frequencies
    encoded = torch.cat([angles_Lnf.sin(), angles_Lnf.cos()], dim=-1).flatten(1)
    positions = torch.zeros(encoded.shape[0], width)
    positions[:, : encoded.shape[1]] = encoded.float()
    return positions


def rotations(grid: tuple[int, ...], head_width: int, paired: bool = True) -> Tensor:
    """Cosines and sines [L, 2, d] by which the numbers of each head turn at each token (RoPE, arXiv 2104.09864).

    Each of the n axes turns an equal, even part of the head's width: numbers 2i and 2i + 1 as a pair, by the coordinate
    times 10000^(-2i/part); what the parts leave over does not turn. `paired` False is V-JEPA 2's published code, which
    lays the angles side by side twice instead of each twice in a row: no rotation, but what its weights are used to.
    """
    axes = len(grid)
    part = 2 * (head_width // axes // 2)
    frequencies = BASE ** -(torch.arange(part // 2, dtype=torch.float64) * 2 / part)
    angles_Lnf = coordinates(grid).unsqueeze(-1) * frequencies
    angles_Lnp = angles_Lnf.repeat_interleave(2, -1) if paired else angles_Lnf.repeat(1, 1, 2)
    angles_Ld = torch.zeros(len(angles_Lnp), head_width, dtype=torch.float64)
    angles_Ld[:, : axes * part] = angles_Lnp.flatten(1)
    return torch.stack([angles_Ld.cos(), angles_Ld.sin()], dim=1).float()


def rotate(heads_BHLd: Tensor, turns_BL2d: Tensor) -> Tensor:
    """Queries or keys, turned by the rotations of their tokens; the first dimension of these may be 1."""
    cos, sin = turns_BL2d.unsqueeze(1).unbind(3)
    even, odd = heads_BHLd.unflatten(-1, (-1, 2)).unbind(-1)
    quarter = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (heads_BHLd * cos + quarter * sin).to(heads_BHLd.dtype)


class Places(nn.Module):
    """Tells the tokens of a grid where they are, by one of the kinds."""

    waves: Tensor | None
    turns: Tensor | None

    def __init__(self, kind: PositionKind, grid: tuple[int, ...], width: int, heads: int) -> None:
        super().__init__()
        rotary = kind in ("rope", "rope_vjepa2")
        self.learned = nn.Parameter(torch.empty(1, math.prod(grid), width)) if kind == "learned" else None
        waves = sincos_positions(grid, width) if kind == "sincos" else None
        turns = rotations(grid, width // heads, paired=kind == "rope") if rotary else None
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("turns", turns, persistent=False)

    def initialize(self, std: float = 0.02) -> None:
        """Draw the learned ones."""
        if self.learned is not None:
            nn.init.trunc_normal_(self.learned, std=std)

    def forward(self, tokens_BKD: Tensor, index_BK: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens with what is added to them, and by what their heads turn [B or 1, K, 2, d], if they do.

        `index_BK` says which tokens of the grid they are; without it they are all of them, in their order.
        """
        added = self.waves if self.learned is None else self.learned[0]
        if added is not None:
            tokens_BKD = tokens_BKD + (added if index_BK is None else added[index_BK])
        if self.turns is None:
            return tokens_BKD, None
        return tokens_BKD, self.turns.unsqueeze(0) if index_BK is None else self.turns[index_BK]
