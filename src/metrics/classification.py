"""Scores of a classifier over draws of patients: one label, many labels, or one class of many.

Every function takes weights_DN, how often each record is in each draw (None: every record once), and gives one value a
draw, NaN where it is undefined. A label with one class only has no score; it is skipped, never given 0.5.

Legend: D draws, N records, K labels or classes, M metrics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import Array, over_draws, ratio
from src.metrics.calibration import Calibration, brier, calibration_error
from src.metrics.confusion import (
    Confusion,
    Criterion,
    accuracy,
    balanced_accuracy,
    best_threshold,
    best_thresholds,
    confusion,
    f1,
    outcomes,
    precision,
    recall,
    specificity,
)
from src.metrics.ranking import Ranking, auroc, average_precision
from src.metrics.truth import Mask, known, one_hot, two_classes

__all__ = [
    "ClassScores",
    "Confusion",
    "Criterion",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "best_threshold",
    "best_thresholds",
    "brier",
    "calibration_error",
    "confusion",
    "f1",
    "macro",
    "precision",
    "recall",
    "score_classes",
    "score_labels",
    "score_pooled",
    "specificity",
    "two_classes",
]

RANKED = ("auroc", "average_precision")
CALLED = ("f1", "balanced_accuracy", "precision", "recall", "specificity", "accuracy")
CALIBRATED = ("brier", "calibration_error")
POOLED = ("f1", "precision", "recall")
PER_CLASS = ("f1", "precision", "recall", "specificity")


class ClassScores(NamedTuple):
    """Scores of one class of many."""

    classes: dict[str, Array]
    """One against the rest, [D, K]."""
    overall: dict[str, Array]
    """[D]"""


def score_labels(
    probability_NK: ArrayLike,
    truth_NK: ArrayLike,
    thresholds_K: ArrayLike | None = None,
    weights_DN: NDArray[Any] | None = None,
) -> dict[str, Array]:
    """Every metric of every label, {name: [D, K]}.

    Truth is 0, 1 or NaN; a record counts for the labels that are known of it. Labels with one class (`two_classes`) are
    NaN throughout. Metrics at a threshold are left out without thresholds and NaN where a label's threshold is NaN.

    Raises:
        ValueError: shapes that do not fit, a probability of a known label outside 0 to 1, truth other than 0, 1, NaN.
    """
    probability_NK, truth_NK = _tables(probability_NK, truth_NK)
    skipped_K = ~two_classes(truth_NK)
    truth_NK[:, skipped_K] = np.nan
    scores = dict(zip(RANKED, _ranked(probability_NK, truth_NK, weights_DN), strict=True))
    if thresholds_K is not None:
        thresholds_K = _thresholds(thresholds_K, truth_NK)
        table = _confusion(probability_NK >= thresholds_K, truth_NK, weights_DN)
        none_K = np.isnan(thresholds_K)
        scores |= {name: np.where(none_K, np.nan, getattr(table, name)) for name in CALLED}
    calibrated_DMK = over_draws(Calibration.of(probability_NK, truth_NK).both, weights_DN, len(truth_NK))
    return scores | dict(zip(CALIBRATED, np.moveaxis(calibrated_DMK, 1, 0), strict=True))


def score_pooled(
    probability_NK: ArrayLike,
    truth_NK: ArrayLike,
    thresholds_K: ArrayLike | None = None,
    weights_DN: NDArray[Any] | None = None,
) -> dict[str, Array]:
    """Micro averages: every known (record, label) is one case, {name: [D]}; each label keeps its own threshold.

    The pool takes in labels with one class; a label without threshold is left out of the metrics that need one.
    """
    probability_NK, truth_NK = _tables(probability_NK, truth_NK)
    records_M, labels_M = np.nonzero(~np.isnan(truth_NK))
    ranking = Ranking.of(probability_NK[records_M, labels_M], truth_NK[records_M, labels_M], records_M)
    scores = dict(zip(RANKED, over_draws(ranking.both, weights_DN, len(truth_NK), len(records_M)).T, strict=True))
    if thresholds_K is not None:
        thresholds_K = _thresholds(thresholds_K, truth_NK)
        truth_NK[:, np.isnan(thresholds_K)] = np.nan
        table = _confusion(probability_NK >= thresholds_K, truth_NK, weights_DN)
        pooled = Confusion(*(counts_DK.sum(1) for counts_DK in table))
        scores |= {name: getattr(pooled, name) for name in POOLED}
    return scores


def score_classes(probability_NK: ArrayLike, truth_N: ArrayLike, weights_DN: NDArray[Any] | None = None) -> ClassScores:
    """Scores where each record is of one class, 0 to K - 1, or unknown (-1).

    The class called is the one of highest probability, of equals the first. Each class against the rest: the ranked
    metrics, F1, precision, recall, specificity. Overall: accuracy; balanced accuracy, the mean recall of the classes
    present in the draw; the Brier score summed over classes (Brier 1950); the calibration error of the class that is
    called (Guo et al. 2017).
    """
    probability_NK = np.asarray(probability_NK, np.float64)
    if probability_NK.ndim != 2 or len(probability_NK) != len(np.asarray(truth_N)):
        raise ValueError(f"probabilities {probability_NK.shape} for {len(np.asarray(truth_N))} records")
    truth_NK = one_hot(truth_N, probability_NK.shape[1])
    probability_NK, truth_NK = _tables(probability_NK, truth_NK)
    called_NK = probability_NK.argmax(1)[:, None] == np.arange(truth_NK.shape[1])
    table = _confusion(called_NK, truth_NK, weights_DN)
    skipped_K = ~two_classes(truth_NK)
    classes = dict(zip(RANKED, _ranked(probability_NK, truth_NK, weights_DN), strict=True))
    classes |= {name: np.where(skipped_K, np.nan, getattr(table, name)) for name in PER_CLASS}
    return ClassScores(classes, _overall(probability_NK, truth_NK, called_NK, table, weights_DN))


def macro(values_DK: Array, defined_K: Mask | None = None) -> Array:
    """Mean over the labels that are defined, [D]; NaN where none is.

    `defined_K` are the labels defined in the point estimate. Of these a draw leaves out what it does not define, as the
    point estimate did: the same statistic of other records. Without them it would be undefined in most draws where
    several labels are rare.
    """
    values_DK = values_DK if defined_K is None else values_DK[:, defined_K]
    defined_DK = ~np.isnan(values_DK)
    return ratio(np.where(defined_DK, values_DK, 0.0).sum(1), defined_DK.sum(1).astype(np.float64))


def _tables(probability_NK: ArrayLike, truth_NK: ArrayLike) -> tuple[Array, Array]:
    """As floats, checked; truth is a copy."""
    probability_NK, truth_NK = np.asarray(probability_NK, np.float64), np.array(truth_NK, np.float64)
    if probability_NK.ndim != 2 or probability_NK.shape != truth_NK.shape:
        raise ValueError(
            f"probabilities {probability_NK.shape} and truth {truth_NK.shape} are not both [records, labels]"
        )
    known(probability_NK.ravel(), truth_NK.ravel())
    return probability_NK, truth_NK


def _thresholds(thresholds_K: ArrayLike, truth_NK: Array) -> Array:
    thresholds_K = np.asarray(thresholds_K, np.float64)
    if thresholds_K.shape != truth_NK.shape[1:]:
        raise ValueError(f"thresholds {thresholds_K.shape} for {truth_NK.shape[1]} labels")
    return thresholds_K


def _ranked(probability_NK: Array, truth_NK: Array, weights_DN: NDArray[Any] | None) -> Array:
    """AUROC and average precision of each label, [2, D, K]."""
    pairs = zip(probability_NK.T, truth_NK.T, strict=True)
    rankings = [Ranking.of(*known(probability_N, truth_N)) for probability_N, truth_N in pairs]

    def statistic(draws_DN: Array) -> Array:
        return np.stack([ranking.both(draws_DN) for ranking in rankings], axis=2)

    return np.moveaxis(over_draws(statistic, weights_DN, len(truth_NK)), 1, 0)


def _confusion(called_NK: Mask, truth_NK: Array, weights_DN: NDArray[Any] | None) -> Confusion:
    """Outcomes, [D, K] each."""
    cells_4NK = outcomes(called_NK, truth_NK)

    def statistic(draws_DN: Array) -> Array:
        return np.stack([draws_DN @ cell_NK for cell_NK in cells_4NK], axis=1)

    return Confusion(*np.moveaxis(over_draws(statistic, weights_DN, len(truth_NK)), 1, 0))


def _overall(
    probability_NK: Array, truth_NK: Array, called_NK: Mask, table: Confusion, weights_DN: NDArray[Any] | None
) -> dict[str, Array]:
    """The metrics of `score_classes` that are of no single class, [D]."""
    unknown_N = np.isnan(truth_NK[:, 0])
    right_N = np.where(unknown_N, np.nan, (truth_NK == 1)[called_NK])
    confidence_NK, right_NK = probability_NK.max(1)[:, None], right_N[:, None]
    calibrated_DMK = over_draws(Calibration.of(confidence_NK, right_NK).both, weights_DN, len(truth_NK))
    brier_DK = over_draws(Calibration.of(probability_NK, truth_NK).both, weights_DN, len(truth_NK))[:, 0]
    known_D = table.true_positive.sum(1) + table.false_negative.sum(1)
    return {
        "accuracy": ratio(table.true_positive.sum(1), known_D),
        "balanced_accuracy": macro(table.recall),
        "brier": brier_DK.sum(1),
        "calibration_error": calibrated_DMK[:, 1, 0],
    }
