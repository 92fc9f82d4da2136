"""Context and target tokens of each sample, as a function of (seed, step) for sizes and of the sample for positions.

Two faults of the published masks are the reason for this shape of the code. They drew corners that never reached the
last row and column, so that 31 of the 256 patches of an image were never seen, and they cut each context to the
smallest of its batch by dropping the end of the list, so that the lower part of an image (the last tenth of an ECG)
was hardly ever context, and the task changed with the batch per GPU: 110 context tokens at batch 1, 69 at 128. Here the
number of context tokens K comes from the step alone, and K tokens are drawn uniformly from all that remain.

Legend: B batch, N Monte Carlo draws, M target blocks, T tokens of a target, K context tokens, L tokens of the grid.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.masks.block import Shape, block_shape, block_tokens, corner, inside, on_all
from src.masks.config import MaskConfig, Range
from src.masks.runs import hidden_runs
from src.randomness import Streams

COUNT_DRAWS = 256  # the median of so many counts is off by about half a token on a grid of 256
SIZE_ATTEMPTS = 1000
TRIAL_STEPS, TRIAL_ATTEMPTS = 24, 50  # what passes has P(sizes fit) above some 5 %: 1000 attempts then never fail
POSITION_ATTEMPTS = 1000  # each succeeds with a probability of about a half
TRIES = 2  # positions drawn at a time: a third more draws in half the passes
CACHED_STEPS = 8
LEGACY_QUANTILE = 0.95  # of what is left: a minimum of few draws may be a count that next to no position reaches


@dataclass(frozen=True)
class Sizes:
    """What all samples of a step share."""

    target_shape: Shape
    """As `context_shape` empty for the style runs, which has no blocks of one shape."""
    context_shape: Shape
    context_tokens: int
    """K."""
    target_tokens: int
    """T: of one block; for complement and runs of the one target that holds all that is not context."""

    def along(self, frames: int) -> Sizes:
        """Those of as many frames, from those of a single one."""
        return Sizes(
            (frames, *self.target_shape),
            (frames, *self.context_shape),
            frames * self.context_tokens,
            frames * self.target_tokens,
        )


class Masks(NamedTuple):
    """Token numbers, row-major in the grid; no token is both context and target of a sample."""

    context_BK: NDArray[np.int64]
    """Ascending."""
    targets_BMT: NDArray[np.int64]
    """Each target ascending; blocks of one sample may overlap each other."""


class MaskSampler:
    """Block masks on a grid of 1 (ECG), 2 (image) or 3 axes (video, CT).

    Sizes, per step: one shape for all target blocks, one for the context block, scale and aspect drawn separately. K
    is the median number of tokens that such blocks leave, over Monte Carlo positions from (seed, step), never from the
    batch at hand. In 3-D a context block always spans the whole first axis.

    Positions, per sample: each corner uniform over all places where the block fits. A sample whose blocks leave fewer
    than K tokens draws all its positions again; then K tokens are drawn uniformly from those that remain.

    * multiblock: M targets; what remains is the context block less all targets.
    * complement: what remains is the whole grid less M blocks; the one target is every token that is not context.
      Tubes that span all of a video are drawn in one frame and are the same in all: V-JEPA never asks for a token whose
      neighbour in time is context.
    * legacy_ijepa: multiblock as published, to replay published results. One draw gives both scale and aspect; in the
      last two axes (in 1-D the only one) blocks are at most side - 1 long and never reach the last row and column; K is
      the minimum over `legacy_batch` Monte Carlo positions and the context is the first K of the ascending list. The
      published K was the minimum of the batch that a GPU happened to hold; a fixed `legacy_batch` has the same
      distribution (of a batch of a few at most its 95 % quantile, which positions still reach) and makes masks
      independent of ranks, micro-batches and resumes, as everywhere else here. Positions that leave fewer than
      min_context tokens are not counted, since the published code drew those again.

    Raises ValueError if the configured sizes do not fit the grid.
    """

    def __init__(self, config: MaskConfig, grid: tuple[int, ...], seed: int) -> None:
        if not 1 <= len(grid) <= 3 or min(grid) < 1:
            raise ValueError(f"the mask's grid {grid} must have 1, 2 or 3 axes of at least one token each")
        for key in config.unused(len(grid)):
            warnings.warn(f"mask.{key} has no effect: style {config.style}, grid {grid}", stacklevel=2)
        self.config, self.grid, self.seed = config, grid, seed
        self.length = math.prod(grid)
        self._legacy = config.style == "legacy_ijepa"
        self._frame = _of_a_frame(config, grid, seed)
        if self._frame is not None:
            return
        if config.style == "runs":
            self._refuse_runs()
        self._sizes: dict[int, Sizes] = {}
        for step in range(TRIAL_STEPS):
            self._draw_sizes(step, TRIAL_ATTEMPTS)

    def sizes(self, step: int) -> Sizes:
        """Block shapes and counts of a step: a function of (seed, step) only, the last few are kept."""
        if self._frame is not None:
            return self._frame.sizes(step).along(self.grid[0])
        if step not in self._sizes:
            while len(self._sizes) >= CACHED_STEPS:
                del self._sizes[next(iter(self._sizes))]
            self._sizes[step] = self._draw_sizes(step, SIZE_ATTEMPTS)
        return self._sizes[step]

    def __call__(self, step: int, streams: Streams) -> Masks:
        """The masks of one batch, one stream for each sample; a sample's masks do not depend on the others."""
        if self._frame is not None:
            of_frame = self._frame(step, streams)
            return Masks(*(on_all(tokens, self.grid[0], self._frame.length) for tokens in of_frame))
        sizes, streams = self.sizes(step), streams.fork("mask")
        if self.config.style == "runs":
            hidden_BL = hidden_runs(self.length, sizes.target_tokens, self.config.shortest, streams.fork("runs"))
            return _partition(~hidden_BL, sizes)
        free_BL, corners_BMD = self._positions(sizes, streams)
        order_BL = np.arange(self.length) if self._legacy else streams.uniform("choice", self.length)
        order_BL = np.where(free_BL, order_BL, np.inf)
        count = sizes.context_tokens
        context_BK = np.sort(np.argpartition(order_BL, count - 1, axis=1)[:, :count], axis=1)
        if self.config.style != "complement":
            return Masks(context_BK, block_tokens(self.grid, sizes.target_shape, corners_BMD))
        context_BL = np.zeros((len(streams), self.length), np.bool_)
        np.put_along_axis(context_BL, context_BK, True, axis=1)
        return _partition(context_BL, sizes)

    def _positions(self, sizes: Sizes, streams: Streams) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """The tokens that remain [B, L], at least K, and the corners of the targets [B, M, D] that leave them.

        Each sample keeps the first of its positions that leaves enough.
        """
        free_BL = np.empty((len(streams), self.length), np.bool_)
        corners_BMD = np.empty((len(streams), self.config.targets, len(self.grid)), np.int64)
        rows = np.arange(len(streams))
        for attempt in range(POSITION_ATTEMPTS):
            free_NL, corners_NMD = self._place(sizes, streams[rows].fork(attempt), TRIES)
            enough_RN = (np.count_nonzero(free_NL, axis=1) >= sizes.context_tokens).reshape(len(rows), TRIES)
            good = enough_RN.any(axis=1)
            first = (np.arange(len(rows)) * TRIES + enough_RN.argmax(axis=1))[good]
            free_BL[rows[good]], corners_BMD[rows[good]] = free_NL[first], corners_NMD[first]
            rows = rows[~good]
            if not len(rows):
                return free_BL, corners_BMD
        raise AssertionError("K is a count that about half of all positions reach")

    def _place(self, sizes: Sizes, streams: Streams, draws: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """`draws` positions of all blocks for each stream: what remains [N, L], corners of the targets [N, M, D]."""
        blocks, axes = self.config.targets, len(self.grid)
        u_NMD = streams.uniform("corners", draws, blocks + 1, axes).reshape(-1, blocks + 1, axes)
        corners_NMD = corner(u_NMD[:, :-1], self._places(sizes.target_shape))
        free_NL = inside(self.grid, sizes.context_shape, corner(u_NMD[:, -1], self._places(sizes.context_shape)))
        for block in range(blocks):
            free_NL &= ~inside(self.grid, sizes.target_shape, corners_NMD[:, block])
        return free_NL, corners_NMD

    def _places(self, shape: Shape) -> Shape:
        """How many positions a block has along each axis."""
        faults = [self._legacy and axis >= len(shape) - 2 for axis in range(len(shape))]
        return tuple(max(g - b + 1 - fault, 1) for g, b, fault in zip(self.grid, shape, faults, strict=True))

    def _refuse_runs(self) -> None:
        """Raises ValueError for a grid on which runs cannot be drawn."""
        if len(self.grid) != 1:
            raise ValueError(f"mask.style: runs is for a signal of one axis, not for a grid of {self.grid} tokens")
        hidden = self.length - math.ceil(self.config.keep[1] * self.length)
        if hidden < self.config.shortest:
            raise ValueError(
                f"mask.keep: up to {self.config.keep[1]} of {self.length} tokens leave {hidden} to hide, fewer than a "
                f"run of {self.config.shortest}; lower mask.keep or mask.shortest"
            )

    def _draw_sizes(self, step: int, attempts: int) -> Sizes:
        config = self.config
        if config.style == "runs":
            u = float(Streams.of_step(self.seed, step).fork("mask").uniform("keep")[0])
            count = math.ceil(_between(config.keep, u) * self.length)
            return Sizes((), (), count, self.length - count)
        for attempt in range(attempts):
            streams = Streams.of_step(self.seed, step).fork("mask").fork(attempt)
            target = self._shape(
                streams.fork("target"), config.target_scale, config.target_aspect, config.temporal_scale
            )
            context = self._shape(streams.fork("context"), config.context_scale, (1.0, 1.0), (1.0, 1.0))
            if config.style == "complement":
                context = self.grid
            draws = config.legacy_batch if self._legacy else COUNT_DRAWS
            sizes = Sizes(target, context, 0, math.prod(target))
            left_N = np.count_nonzero(self._place(sizes, streams.fork("count"), max(draws, COUNT_DRAWS))[0], axis=1)
            reached, left_N = int(np.quantile(left_N, LEGACY_QUANTILE, method="lower")), left_N[:draws]
            count = int(np.median(left_N))
            if count >= config.min_context:
                if self._legacy:
                    count = min(int(left_N[left_N >= config.min_context].min()), reached)
                rest = self.length - count if config.style == "complement" else math.prod(target)
                return replace(sizes, context_tokens=count, target_tokens=rest)
        raise ValueError(
            f"mask.min_context: blocks of these scales on a grid of {self.grid} tokens leave fewer than "
            f"{config.min_context} context tokens; lower mask.min_context, mask.targets or mask.target_scale"
        )

    def _shape(self, streams: Streams, scale: Range, aspect: Range, temporal: Range) -> Shape:
        u = {name: float(streams.uniform(name)[0]) for name in ("scale", "aspect", "temporal")}
        if self._legacy:
            u["aspect"] = u["scale"]
        shape = block_shape(
            self.grid, _between(scale, u["scale"]), _between(aspect, u["aspect"]), _between(temporal, u["temporal"])
        )
        if not self._legacy:
            return shape
        limits = (*self.grid[:-2], *(max(side - 1, 1) for side in self.grid[-2:]))
        return tuple(min(side, limit) for side, limit in zip(shape, limits, strict=True))


def _of_a_frame(config: MaskConfig, grid: tuple[int, ...], seed: int) -> MaskSampler | None:
    """The sampler of a single frame, where all frames have the same masks."""
    if config.style != "complement" or len(grid) != 3 or config.temporal_scale != (1.0, 1.0):
        return None
    of_frame = config.model_copy(update={"min_context": math.ceil(config.min_context / grid[0])})
    try:
        return MaskSampler(of_frame, grid[1:], seed)
    except ValueError as error:
        raise ValueError(f"{error} (in each of {grid[0]} frames)") from None


def _partition(context_BL: NDArray[np.bool_], sizes: Sizes) -> Masks:
    """Context where it is true, and one target of all else."""
    context_BK = np.nonzero(context_BL)[1].reshape(-1, sizes.context_tokens)
    return Masks(context_BK, np.nonzero(~context_BL)[1].reshape(-1, 1, sizes.target_tokens))


def _between(bounds: Range, u: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * u
