"""Scores of predicted numbers over draws of patients.

Every function takes weights_DN (None: every record once) and gives one value a draw, NaN where it is undefined. All are
quotients of weighted sums, so that the draws of all targets are one product of matrices.

Legend: D draws, N records, K targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import Array, over_draws, ratio

METRICS = ("mae", "rmse", "r2", "pearson")
UNITLESS = ("r2", "pearson")
CONSTANT = 1e-12  # of the mean square about the mean of all records: below it a draw's numbers are one number, rounded


def score_numbers(
    predicted_NK: ArrayLike, truth_NK: ArrayLike, weights_DN: NDArray[Any] | None = None
) -> dict[str, Array]:
    """Every metric of every target, {name: [D, K]}; truth of NaN is unknown and left out.

    R2 is 1 - squared error / squares about the draw's own mean, and negative for what is worse than that mean. R2 and
    Pearson's correlation are NaN where truth is one number, Pearson's also where the prediction is.

    Raises:
        ValueError: shapes that do not fit, or a prediction of a known number that is not finite.
    """
    predicted_NK, truth_NK = np.array(predicted_NK, np.float64), np.array(truth_NK, np.float64)
    if predicted_NK.ndim != 2 or predicted_NK.shape != truth_NK.shape:
        raise ValueError(f"predictions {predicted_NK.shape} and truth {truth_NK.shape} are not both [records, targets]")
    known_NK = ~np.isnan(truth_NK)
    if not np.isfinite(predicted_NK[known_NK]).all() or not np.isfinite(truth_NK[known_NK]).all():
        raise ValueError("predictions and truth are finite, or truth is NaN (unknown)")
    terms = _terms(predicted_NK, truth_NK, known_NK)

    def statistic(draws_DN: Array) -> Array:
        return np.stack([draws_DN @ term_NK for term_NK in terms], axis=1)

    values_DMK = _from_sums(over_draws(statistic, weights_DN, len(truth_NK)))
    return dict(zip(METRICS, np.moveaxis(values_DMK, 1, 0), strict=True))


def mae(predicted_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Mean absolute error, [D]."""
    return _one("mae", predicted_N, truth_N, weights_DN)


def rmse(predicted_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Root of the mean squared error, [D]."""
    return _one("rmse", predicted_N, truth_N, weights_DN)


def r2(predicted_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """1 - squared error / squares about the draw's own mean, [D]; NaN where truth is one number."""
    return _one("r2", predicted_N, truth_N, weights_DN)


def pearson(predicted_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> Array:
    """Correlation, [D]; NaN where truth or prediction is one number."""
    return _one("pearson", predicted_N, truth_N, weights_DN)


def _one(metric: str, predicted_N: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None) -> Array:
    predicted_N, truth_N = np.asarray(predicted_N, np.float64), np.asarray(truth_N, np.float64)
    return score_numbers(predicted_N[:, None], truth_N[:, None], weights_DN)[metric][:, 0]


def _terms(predicted_NK: Array, truth_NK: Array, known_NK: NDArray[np.bool_]) -> list[Array]:
    """What is summed over a draw, [N, K] each; about the mean of all records, so that variances keep their digits."""
    gap_NK = predicted_NK - truth_NK
    predicted_NK, truth_NK = _centred(predicted_NK, known_NK), _centred(truth_NK, known_NK)
    squares = (predicted_NK**2, truth_NK**2, predicted_NK * truth_NK)
    terms = (known_NK, np.abs(gap_NK), gap_NK**2, predicted_NK, truth_NK, *squares)
    return [np.where(known_NK, term_NK, 0.0) for term_NK in terms]


def _centred(values_NK: Array, known_NK: NDArray[np.bool_]) -> Array:
    return values_NK - np.where(known_NK, values_NK, 0.0).sum(0) / np.maximum(known_NK.sum(0), 1)


def _from_sums(sums_DTK: Array) -> Array:
    """The metrics in the order of METRICS from the sums of `_terms`, [D, M, K]."""
    count, absolute, squared, predicted, truth, predicted2, truth2, product = np.moveaxis(sums_DTK, 1, 0)
    predicted_spread = _spread(predicted2, predicted, count)
    truth_spread = _spread(truth2, truth, count)
    shared = product - predicted * ratio(truth, count)
    correlation = np.clip(ratio(shared, np.sqrt(predicted_spread * truth_spread)), -1, 1)
    values = (ratio(absolute, count), np.sqrt(ratio(squared, count)), 1 - ratio(squared, truth_spread), correlation)
    return np.stack(values, axis=1)


def _spread(squares: Array, total: Array, count: Array) -> Array:
    """Sum of squares about the mean; 0 where rounding is all that is left of it."""
    spread = squares - total * ratio(total, count)
    return np.where(spread > CONSTANT * squares, spread, 0.0)
