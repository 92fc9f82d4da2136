"""Fixed sine-cosine positions for grids of any dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Positions [L, width] of a grid's tokens in row-major order, float32.

    Each of the n axes takes an equal, even part of the width: sines, then cosines, of the coordinate at frequencies
    10000^(-2i/part) (Vaswani et al. 2017, arXiv 1706.03762); what the parts leave over is zero.
    """
    part = 2 * (width // (2 * len(grid)))
    if part < 2:
        raise ValueError(f"width {width} is too small for positions on {len(grid)} axes: at least {2 * len(grid)}")
    frequencies = 10000.0 ** -(torch.arange(part // 2, dtype=torch.float64) * 2 / part)
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]
    encoded = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    positions = torch.zeros(encoded.shape[0], width)
    positions[:, : encoded.shape[1]] = encoded.float()
    return positions
