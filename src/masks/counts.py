"""How often each token is context and target: a function of the sampler, counted.

Legend: B batch, L tokens of the grid, R rows of examples.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler
from src.randomness import Streams

STYLES: tuple[str, ...] = get_args(MaskConfig.model_fields["style"].annotation)
NEITHER, CONTEXT, TARGET = range(3)


class Coverage(NamedTuple):
    """Frequencies over all samples of all steps."""

    context_L: NDArray[np.float64]
    target_L: NDArray[np.float64]
    context_tokens: float
    """Mean number of context tokens."""


TUBES: dict[str, dict[str, Any]] = {
    "short": {"targets": 8, "target_scale": (0.15, 0.15)},
    "long": {"targets": 2, "target_scale": (0.7, 0.7)},
}
"""V-JEPA's two kinds of masks (arXiv 2404.08471), full-length tubes both: many small ones, and a few that hide most."""


def styles_of(grid: tuple[int, ...]) -> tuple[str, ...]:
    """The styles that a grid of so many axes can have: runs are for a signal."""
    return tuple(style for style in STYLES if len(grid) == 1 or style != "runs")


def sampler_of(style: str, grid: tuple[int, ...], seed: int, batch: int = 128, tubes: str | None = None) -> MaskSampler:
    """The default sizes, or those of one of TUBES, in a style; `batch` is for legacy_ijepa, which depends on it."""
    keys = {"style": style, **TUBES.get(tubes or "", {})}
    if style == "legacy_ijepa":
        keys |= {"legacy_batch": batch} | ({"context_scale": (1.0, 1.0)} if tubes else {})
    return MaskSampler(MaskConfig.model_validate(keys), grid, seed)


def batch_of_step(sampler: MaskSampler, step: int, batch: int) -> Masks:
    """The masks of one step, whose samples no other step holds."""
    samples_B = step * batch + np.arange(batch)
    return sampler(step, Streams.of_samples(sampler.seed, np.zeros_like(samples_B), samples_B))


def labels(masks: Masks, length: int) -> NDArray[np.int8]:
    """NEITHER, CONTEXT or TARGET for each token, [B, L]."""
    labels_BL = np.full((len(masks.context_BK), length), NEITHER, np.int8)
    np.put_along_axis(labels_BL, masks.targets_BMT.reshape(len(labels_BL), -1), TARGET, axis=1)
    np.put_along_axis(labels_BL, masks.context_BK, CONTEXT, axis=1)
    return labels_BL


def coverage(sampler: MaskSampler, steps: int, batch: int) -> Coverage:
    """How often a token is context and target in the first `steps` batches: a function of its arguments."""
    counts = np.zeros((3, sampler.length), np.int64)
    for step in range(steps):
        labels_BL = labels(batch_of_step(sampler, step, batch), sampler.length)
        counts += np.stack([np.count_nonzero(labels_BL == kind, axis=0) for kind in (NEITHER, CONTEXT, TARGET)])
    shares = counts / (steps * batch)
    return Coverage(shares[CONTEXT], shares[TARGET], float(shares[CONTEXT].sum()))


def examples(sampler: MaskSampler, rows: int) -> NDArray[np.int8]:
    """Labels of the first sample of each of the first steps, [R, L]."""
    return np.concatenate([labels(batch_of_step(sampler, step, 1), sampler.length) for step in range(rows)])
