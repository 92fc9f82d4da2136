"""The masks' definition once more, as slowly as it reads: sets, loops and Python's own random numbers."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Grid = tuple[int, ...]


def block(grid: Grid, shape: Grid, rng: random.Random, legacy: bool = False) -> set[int]:
    """The tokens of a block at a uniformly drawn place; legacy leaves out the last place of the last two axes."""
    first = []
    for axis, (side, length) in enumerate(zip(grid, shape, strict=True)):
        fault = 1 if legacy and len(grid) - axis <= 2 else 0
        first.append(rng.randint(0, side - length - fault))
    axes = [range(start, start + length) for start, length in zip(first, shape, strict=True)]
    tokens = set()
    for place in itertools.product(*axes):
        number = 0
        for side, index in zip(grid, place, strict=True):
            number = number * side + index
        tokens.add(number)
    return tokens


def remaining(grid: Grid, target: Grid, context: Grid, targets: int, rng: random.Random, legacy: bool = False):
    """(tokens that remain, tokens of all targets) for one draw of positions."""
    hidden = set().union(*(block(grid, target, rng, legacy) for _ in range(targets)))
    return block(grid, context, rng, legacy) - hidden, hidden


def draw(grid: Grid, sizes, targets: int, rng: random.Random, style: str = "multiblock") -> tuple[set[int], set[int]]:
    """(context, targets) of one sample, given the step's sizes."""
    if style == "runs":
        hidden = hide_runs(grid[0], grid[0] - sizes.context_tokens, 10, rng)
        return set(range(grid[0])) - hidden, hidden
    if style == "complement" and len(grid) == 3 and sizes.target_shape[0] == grid[0]:  # all frames alike
        count = sizes.context_tokens // grid[0]
        frame = SimpleNamespace(
            target_shape=sizes.target_shape[1:], context_shape=sizes.context_shape[1:], context_tokens=count
        )
        drawn = draw(grid[1:], frame, targets, rng, style)
        numbers = [
            [token + time * grid[1] * grid[2] for token in tokens for time in range(grid[0])] for tokens in drawn
        ]
        return set(numbers[0]), set(numbers[1])
    legacy = style == "legacy_ijepa"
    while True:
        free, hidden = remaining(grid, sizes.target_shape, sizes.context_shape, targets, rng, legacy)
        if len(free) >= sizes.context_tokens:
            break
    if legacy:
        return set(sorted(free)[: sizes.context_tokens]), hidden
    context = set(rng.sample(sorted(free), sizes.context_tokens))
    if style == "complement":
        return context, set(range(int(np.prod(grid)))) - context
    return context, hidden


def stretches(tokens: set[int]) -> list[list[int]]:
    """The runs of neighbours among some tokens, in order."""
    found: list[list[int]] = []
    for token in sorted(tokens):
        if found and found[-1][-1] == token - 1:
            found[-1].append(token)
        else:
            found.append([token])
    return found


def hide_runs(length: int, count: int, shortest: int, rng: random.Random, by_length: bool = True) -> set[int]:
    """`count` hidden tokens in runs: the definition of Weimann & Conrad, or one that draws gaps with equal weights."""
    hidden: set[int] = set()
    while len(hidden) < count:
        gaps = stretches(set(range(length)) - hidden)
        (gap,) = rng.choices(gaps, [len(gap) if by_length else 1 for gap in gaps])
        left = count - len(hidden)
        if left >= shortest:
            size = min(rng.randint(shortest, left), len(gap))
            first = rng.randint(0, len(gap) - size)
        else:
            size = min(left, len(gap))
            ends = [(0, gap[0] - 1), (len(gap) - size, gap[-1] + 1)]
            first = rng.choice([place for place, neighbour in ends if neighbour in hidden])
        hidden |= set(gap[first : first + size])
    return hidden


def indicators(token_sets: list[set[int]], length: int) -> NDArray[np.float64]:
    """[samples, tokens], 1 where the sample's set holds the token."""
    rows = np.zeros((len(token_sets), length))
    for row, tokens in zip(rows, token_sets, strict=True):
        row[list(tokens)] = 1.0
    return rows


def p_same_mean(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Hotelling's test that two samples of vectors have the same mean.

    The one chi-square for coverage: tokens of a sample come in blocks and are not independent, so the squared
    differences are measured in their own covariance instead of being added up.
    """
    n, m = len(first), len(second)
    pooled = (np.cov(first.T) * (n - 1) + np.cov(second.T) * (m - 1)) / (n + m - 2)
    return _p(first.mean(0) - second.mean(0), pooled * (1 / n + 1 / m), n + m - 2)


def p_zero_mean(rows: NDArray[np.float64]) -> float:
    """Hotelling's test that the mean vector is zero."""
    return _p(rows.mean(0), np.cov(rows.T) / len(rows), len(rows) - 1)


def _p(difference: NDArray[np.float64], covariance: NDArray[np.float64], freedom: int) -> float:
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    kept = values > values.max() * 1e-9  # the counts are fixed, so the tokens of a sample add up to a constant
    rank = int(kept.sum())
    distance = float(((vectors[:, kept].T @ difference) ** 2 / values[kept]).sum())
    return float(stats.f.sf(distance * (freedom - rank + 1) / (freedom * rank), rank, freedom - rank + 1))
