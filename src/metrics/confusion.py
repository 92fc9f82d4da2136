"""Scores at a threshold: what is called positive, and how often that is right.

Legend: D draws, N records, K labels, G distinct scores; ... is [D] or [D, K].
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import Array, over_draws, ratio
from src.metrics.truth import known

Criterion = Literal["f1", "balanced_accuracy"]


class Confusion(NamedTuple):
    """Weights of the four outcomes; a property is NaN where its divisor is 0."""

    true_positive: Array
    false_positive: Array
    false_negative: Array
    true_negative: Array

    @property
    def precision(self) -> Array:
        """Undefined where nothing is called positive."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Array:
        """Sensitivity; undefined without positives."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Array:
        """Recall of the negatives; undefined without them."""
        return ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def f1(self) -> Array:
        """2 TP / (2 TP + FP + FN): 0 where no positive is found, undefined without positives."""
        twice = 2 * self.true_positive
        found = ratio(twice, twice + self.false_positive + self.false_negative)
        return np.where(self.true_positive + self.false_negative > 0, found, np.nan)

    @property
    def accuracy(self) -> Array:
        """Undefined without records only."""
        right = self.true_positive + self.true_negative
        return ratio(right, right + self.false_positive + self.false_negative)

    @property
    def balanced_accuracy(self) -> Array:
        """Mean of recall and specificity; undefined with one class."""
        return (self.recall + self.specificity) / 2


def outcomes(called_NK: NDArray[np.bool_], truth_NK: Array) -> Array:
    """One-hot outcome of each record and label in the order of `Confusion`, [4, N, K]; 0 where truth is unknown."""
    positive_NK, negative_NK = truth_NK == 1, truth_NK == 0
    cells = (called_NK & positive_NK, called_NK & negative_NK, ~called_NK & positive_NK, ~called_NK & negative_NK)
    return np.stack(cells).astype(np.float64)


def confusion(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Confusion:
    """Outcomes over draws, [D] each, when probability >= threshold is called positive.

    Truth is 0, 1 or NaN for unknown. A threshold of NaN (none was found in validation) makes every count NaN.
    """
    known(probability_N, truth_N)
    called_N = np.asarray(probability_N, np.float64) >= threshold
    cells_4N = outcomes(called_N, np.asarray(truth_N, np.float64))
    if math.isnan(threshold):
        cells_4N[:] = np.nan
    return Confusion(*over_draws(lambda draws_DN: draws_DN @ cells_4N.T, weights_DN, len(called_N)).T)


def precision(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Array:
    """Share of the called that are positive, [D]; NaN where nothing is called."""
    return confusion(probability_N, truth_N, threshold, weights_DN).precision


def recall(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Array:
    """Share of the positives that are called, [D]; NaN without positives."""
    return confusion(probability_N, truth_N, threshold, weights_DN).recall


def specificity(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Array:
    """Share of the negatives that are not called, [D]; NaN without negatives."""
    return confusion(probability_N, truth_N, threshold, weights_DN).specificity


def f1(probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None) -> Array:
    """Harmonic mean of precision and recall, [D]; 0 where no positive is found, NaN without positives."""
    return confusion(probability_N, truth_N, threshold, weights_DN).f1


def accuracy(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Array:
    """Share of the records that are called right, [D]."""
    return confusion(probability_N, truth_N, threshold, weights_DN).accuracy


def balanced_accuracy(
    probability_N: ArrayLike, truth_N: ArrayLike, threshold: float, weights_DN: NDArray[Any] | None = None
) -> Array:
    """Mean of recall and specificity, [D]; NaN where a draw holds one class only."""
    return confusion(probability_N, truth_N, threshold, weights_DN).balanced_accuracy


def best_threshold(probability_N: ArrayLike, truth_N: ArrayLike, criterion: Criterion) -> float:
    """The threshold that is best on validation records; NaN where one class is known only.

    Candidates are the midpoints between neighbouring distinct scores and the lowest score, at which all are called; of
    equally good ones the lowest is taken, which finds the most positives. Compared as whole numbers or quotients of
    them, so that rounding breaks no tie.

    Raises:
        ValueError: an unknown criterion.
    """
    if criterion not in ("f1", "balanced_accuracy"):
        raise ValueError(f"criterion {criterion!r} is neither 'f1' nor 'balanced_accuracy'")
    probability_N, truth_N, _ = known(probability_N, truth_N)
    scores_G, group_N = np.unique(probability_N, return_inverse=True)
    positive, negative = int((truth_N == 1).sum()), int((truth_N == 0).sum())
    if not positive or not negative:
        return math.nan
    true_G = _at_or_above(group_N[truth_N == 1], len(scores_G))
    false_G = _at_or_above(group_N[truth_N == 0], len(scores_G))
    if criterion == "f1":
        quality_G = 2 * true_G / (true_G + false_G + positive)
    else:
        quality_G = true_G * negative + (negative - false_G) * positive
    best = int(quality_G.argmax())
    if best == 0:
        return float(scores_G[0])
    middle = float(scores_G[best - 1] / 2 + scores_G[best] / 2)
    return middle if middle > scores_G[best - 1] else float(scores_G[best])


def best_thresholds(probability_NK: Array, truth_NK: Array, criterion: Criterion) -> Array:
    """The threshold of each label, [K], from the records in which truth and probability are known (not NaN); NaN where
    these are of one class only."""
    known_NK = ~np.isnan(truth_NK) & ~np.isnan(probability_NK)
    columns = zip(probability_NK.T, truth_NK.T, known_NK.T, strict=True)
    return np.array([best_threshold(values_N[of_N], truth_N[of_N], criterion) for values_N, truth_N, of_N in columns])


def _at_or_above(group_M: NDArray[np.intp], groups: int) -> NDArray[np.intp]:
    """How many of M stand in each group or a higher one, [G]."""
    return np.cumsum(np.bincount(group_M, minlength=groups)[::-1])[::-1]
