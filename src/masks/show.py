"""Masks as plain text: `python -m src.masks.show complement 8 14 14` prints two samples of a grid."""

from __future__ import annotations

import sys

import numpy as np

from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler
from src.randomness import Streams

CONTEXT, TARGET, NEITHER = "#", "o", "."


def show(masks: Masks, grid: tuple[int, ...]) -> str:
    """A line for each sample in 1-D, its rows in 2-D, its frames side by side in 3-D.

    `#` is context, `o` target, `.` neither.
    """
    pictures = []
    for context_K, targets_MT in zip(masks.context_BK, masks.targets_BMT, strict=True):
        tokens_L = np.full(int(np.prod(grid)), NEITHER)
        tokens_L[targets_MT.reshape(-1)] = TARGET
        tokens_L[context_K] = CONTEXT
        frames_THW = tokens_L.reshape((1,) * (3 - len(grid)) + grid)
        rows_HTW = frames_THW.swapaxes(0, 1)
        pictures.append("\n".join("  ".join("".join(line) for line in row) for row in rows_HTW))
    return ("\n" if len(grid) == 1 else "\n\n").join(pictures)


if __name__ == "__main__":
    style, *sides = sys.argv[1:] or ["multiblock", "50"]
    grid = tuple(int(side) for side in sides)
    sampler = MaskSampler(MaskConfig.model_validate({"style": style}), grid, seed=0)
    samples_B = np.arange(2 if len(grid) > 1 else 20)
    print(show(sampler(0, Streams.of_samples(0, samples_B * 0, samples_B)), grid))
