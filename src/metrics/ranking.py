"""How well scores rank positives above negatives: AUROC and average precision.

Legend: D draws, N records, A positives and B negatives of a label, each ascending by score; C their first sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import Array, over_draws, ratio
from src.metrics.truth import known

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Ranking:
    """The order of a label's records by score, sorted once for all draws."""

    positives_A: Index
    """Records (columns of the weights) of the positives, lowest score first."""
    negatives_B: Index
    below_A: Index
    """Negatives that score lower than each positive."""
    upto_A: Index
    """Negatives that score lower or the same."""
    own_A: Index
    """Positives that score lower."""

    @classmethod
    def of(cls, scores_N: Array, truth_N: Array, records_N: Index) -> Ranking:
        """Of known records, which are the columns `records_N` of the weights."""
        order_N = np.argsort(scores_N, kind="stable")
        scores_N, positive_N, records_N = scores_N[order_N], truth_N[order_N] == 1, records_N[order_N]
        up_A, down_B = scores_N[positive_N], scores_N[~positive_N]
        return cls(
            positives_A=records_N[positive_N],
            negatives_B=records_N[~positive_N],
            below_A=np.searchsorted(down_B, up_A, "left"),
            upto_A=np.searchsorted(down_B, up_A, "right"),
            own_A=np.searchsorted(up_A, up_A, "left"),
        )

    def auroc(self, weights_DN: Array) -> Array:
        """[D]; NaN in draws without a positive or without a negative."""
        return self._auroc(np.take(weights_DN, self.positives_A, axis=1), self._negatives(weights_DN))

    def both(self, weights_DN: Array) -> Array:
        """AUROC and average precision in one pass, [D, 2]."""
        weights_DA, negatives_DC = np.take(weights_DN, self.positives_A, axis=1), self._negatives(weights_DN)
        return np.stack([self._auroc(weights_DA, negatives_DC), self._precision(weights_DA, negatives_DC)], axis=1)

    def _negatives(self, weights_DN: Array) -> Array:
        return _sums(np.take(weights_DN, self.negatives_B, axis=1))

    def _auroc(self, weights_DA: Array, negatives_DC: Array) -> Array:
        twice_DA = np.take(negatives_DC, self.below_A, axis=1) + np.take(negatives_DC, self.upto_A, axis=1)
        wins_D = np.einsum("da,da->d", weights_DA, twice_DA) / 2
        return ratio(wins_D, weights_DA.sum(1) * negatives_DC[:, -1])

    def _precision(self, weights_DA: Array, negatives_DC: Array) -> Array:
        positives_DC = _sums(weights_DA)
        true_DA = positives_DC[:, -1:] - np.take(positives_DC, self.own_A, axis=1)
        called_DA = true_DA + (negatives_DC[:, -1:] - np.take(negatives_DC, self.below_A, axis=1))
        precision_DA = true_DA / np.where(called_DA > 0, called_DA, 1.0)
        average_D = ratio(np.einsum("da,da->d", weights_DA, precision_DA), positives_DC[:, -1])
        return np.where(negatives_DC[:, -1] > 0, average_D, np.nan)


def _sums(weights_DN: Array) -> Array:
    """Sums of the first 0, 1, ... N columns, [D, N + 1]."""
    sums_DC = np.zeros((len(weights_DN), weights_DN.shape[1] + 1))
    np.cumsum(weights_DN, axis=1, out=sums_DC[:, 1:])
    return sums_DC


def auroc(probability_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Chance that a positive scores above a negative, ties counting one half: [D].

    Exact, by counting pairs (Mann & Whitney 1947; Hanley & McNeil 1982). Truth is 0, 1 or NaN for unknown. NaN where a
    draw holds one class only.
    """
    ranking = Ranking.of(*known(probability_N, truth_N))
    return over_draws(ranking.auroc, weights_DN, len(np.asarray(truth_N)))


def average_precision(probability_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Sum over thresholds of (gain in recall) x precision, tied scores being one threshold: [D].

    The area under the steps; joining the points of the curve would overstate it (Davis & Goadrich 2006). NaN where a
    draw holds one class only.
    """
    ranking = Ranking.of(*known(probability_N, truth_N))
    return over_draws(ranking.both, weights_DN, len(np.asarray(truth_N)))[:, 1]
