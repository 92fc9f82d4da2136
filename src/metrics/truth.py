"""What is known about a label, and the check that predictions fit it.

Legend: N records, K labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import Array

Mask = NDArray[np.bool_]


def known(probability_N: ArrayLike, truth_N: ArrayLike) -> tuple[Array, Array, NDArray[np.intp]]:
    """Predictions and truth (0 or 1) of the records whose truth is not NaN, and which records these are.

    Raises:
        ValueError: different numbers of records, truth that is neither 0, 1 nor NaN, or a prediction that is NaN.
    """
    probability_N, truth_N = np.asarray(probability_N, np.float64), np.asarray(truth_N, np.float64)
    if probability_N.ndim != 1 or probability_N.shape != truth_N.shape:
        raise ValueError(f"predictions {probability_N.shape} and truth {truth_N.shape} are not one of each a record")
    records_N = np.flatnonzero(~np.isnan(truth_N))
    probability_N, truth_N = probability_N[records_N], truth_N[records_N]
    if not np.isin(truth_N, (0, 1)).all():
        raise ValueError("truth is 0, 1 or NaN (unknown)")
    if np.isnan(probability_N).any():
        raise ValueError(f"{np.isnan(probability_N).sum()} predictions are NaN")
    return probability_N, truth_N, records_N


def two_classes(truth_NK: ArrayLike) -> Mask:
    """Labels with a positive and a negative among the known, [K]: the others have no score to give."""
    truth_NK = np.asarray(truth_NK, np.float64)
    return (truth_NK == 1).any(0) & (truth_NK == 0).any(0)


def one_hot(truth_N: ArrayLike, classes: int) -> Array:
    """One label for each class, [N, K]; NaN in the rows of unknown classes (-1).

    Raises:
        ValueError: a class that is none of -1 to K - 1.
    """
    truth_N = np.asarray(truth_N)
    if not np.isin(truth_N, np.arange(-1, classes)).all():
        raise ValueError(f"classes are 0 to {classes - 1}, or -1 for unknown")
    truth_NK = (truth_N[:, None] == np.arange(classes)).astype(np.float64)
    truth_NK[truth_N == -1] = np.nan
    return truth_NK
