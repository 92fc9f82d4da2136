"""Whether probabilities mean what they say: Brier score and calibration error.

Legend: D draws, N records, K labels, M bins of all labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from src.metrics.bootstrap import Array, over_draws, ratio
from src.metrics.truth import known

BINS = 15  # Guo et al. 2017


@dataclass(frozen=True)
class Calibration:
    """What has to be summed over the records of a draw; a draw is then two products."""

    gap_MN: csr_array
    """Probability - truth, in the row of the label and bin that a record falls into."""
    square_NK: Array
    known_NK: Array

    @classmethod
    def of(cls, probability_NK: Array, truth_NK: Array) -> Calibration:
        """Truth is 0, 1 or NaN for unknown.

        Raises:
            ValueError: a probability outside 0 to 1.
        """
        known_NK = ~np.isnan(truth_NK)
        if not ((probability_NK >= 0) & (probability_NK <= 1))[known_NK].all():
            raise ValueError("probabilities lie between 0 and 1")
        labels = truth_NK.shape[1]
        edges = np.linspace(0, 1, BINS + 1)[1:-1]
        bin_NK = np.searchsorted(edges, probability_NK, "left") + BINS * np.arange(labels)
        gap_NK = np.where(known_NK, probability_NK - truth_NK, 0.0)
        entries = (gap_NK[known_NK], (bin_NK[known_NK], np.nonzero(known_NK)[0]))
        gap_MN = csr_array(entries, shape=(BINS * labels, len(truth_NK)))
        return cls(gap_MN, gap_NK**2, known_NK.astype(np.float64))

    def both(self, weights_DN: Array) -> Array:
        """Brier score and calibration error, [D, 2, K]."""
        known_DK = weights_DN @ self.known_NK
        gap_MD = np.abs(self.gap_MN @ np.ascontiguousarray(weights_DN.T))
        gap_DK = gap_MD.reshape(-1, BINS, len(weights_DN)).sum(1).T
        return np.stack([ratio(weights_DN @ self.square_NK, known_DK), ratio(gap_DK, known_DK)], axis=1)


def brier(probability_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Mean squared difference between the probability of the positive class and truth (Brier 1950), [D]."""
    return _both(probability_N, truth_N, weights_DN)[:, 0]


def calibration_error(probability_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """|mean probability - share of positives| over 15 bins of equal width, each by its share of the records: [D].

    Expected calibration error of Guo et al. 2017, here of the probability of the positive class; bins are (a, b], and
    the first holds 0 too. It is biased upwards, more so in few records, and draws are biased once more: a perfect model
    does not get 0, and the interval lies too high.
    """
    return _both(probability_N, truth_N, weights_DN)[:, 1]


def _both(probability_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None) -> Array:
    known(probability_N, truth_N)
    columns = (np.asarray(values, np.float64)[:, None] for values in (probability_N, truth_N))
    return over_draws(Calibration.of(*columns).both, weights_DN, len(np.asarray(truth_N)))[:, :, 0]
