"""Geometry of blocks on a grid of tokens: how large a block is, where it may lie, which tokens it holds.

Tokens are numbered in row-major order.
Legend: N draws (samples), M blocks, T tokens of a block, D axes, G tokens along one axis, L tokens of the grid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


def block_shape(grid: Shape, scale: float, aspect: float = 1.0, temporal: float = 1.0) -> Shape:
    """The whole-token shape closest to a share `scale` of the last two axes with height / width = `aspect`.

    A side that would leave the grid is cut to it, and the other one grows so that the area stays what `scale` says.
    In 3-D the block spans the share `temporal` of the first axis; in 1-D it is just a share of the length.
    """
    if len(grid) == 1:
        return (_whole(scale * grid[0], grid[0]),)
    height, width = grid[-2:]
    area = scale * height * width
    h = min(math.sqrt(area * aspect), height)
    w = min(area / h, width)
    plane = (_whole(area / w, height), _whole(w, width))
    return plane if len(grid) == 2 else (_whole(temporal * grid[0], grid[0]), *plane)


def _whole(side: float, limit: int) -> int:
    return min(max(round(side), 1), limit)


def corner(uniform_NMD: NDArray[np.float64], places: Shape) -> NDArray[np.int64]:
    """Numbers in [0, 1) as corners (lowest index along each axis), uniform over `places` positions along each axis."""
    return np.minimum((uniform_NMD * places).astype(np.int64), np.array(places) - 1)


def block_tokens(grid: Shape, shape: Shape, corners_NMD: NDArray[np.int64]) -> NDArray[np.int64]:
    """The tokens of each block in ascending order, [N, M, T]."""
    offsets_T = np.ravel_multi_index(tuple(np.indices(shape)), grid).reshape(-1)
    first_NM = np.ravel_multi_index(tuple(np.moveaxis(corners_NMD, -1, 0)), grid)
    return first_NM[..., None] + offsets_T


def on_all(tokens: NDArray[np.int64], frames: int, length: int) -> NDArray[np.int64]:
    """Token numbers [..., N] in one frame of `length` tokens as those [..., frames * N] of all frames, ascending."""
    in_frames = tokens[..., None, :] + length * np.arange(frames)[:, None]
    return in_frames.reshape(*tokens.shape[:-1], -1)


def inside(grid: Shape, shape: Shape, corners_ND: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where a token lies in the block, [N, L]."""
    box_NL = np.ones((len(corners_ND), 1), np.bool_)
    for length, side, corner_N in zip(grid, shape, corners_ND.astype(np.int32).T, strict=True):
        past_NG = (np.arange(length, dtype=np.int32) - corner_N[:, None]).view(np.uint32)  # before the corner: huge
        box_NL = (box_NL[:, :, None] & (past_NG < side)[:, None]).reshape(len(box_NL), -1)
    return box_NL
