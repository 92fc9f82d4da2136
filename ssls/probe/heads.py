"""The linear heads of a probe: l2 chosen, thresholds set, both without the test records."""

# N records, F features, K labels, classes or targets

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.evaluation.attentive import AttentiveHead, Chosen
from src.evaluation.linear import LinearHead, choose_l2, fit_linear, patient_folds
from src.evaluation.targets import Cases, Target
from src.metrics.classification import best_thresholds
from ssls.probe.config import HeadConfig

Features = Mapping[str, NDArray[np.floating]]
"""[N, F] by split: train, validation (if there is one) and each test set."""


@dataclass(frozen=True)
class Fitted:
    """One encoder's head and what it predicts on each test set, [N, K]."""

    predictions: Mapping[str, NDArray[np.floating]]
    thresholds_K: NDArray[np.float64] | None
    head: LinearHead | AttentiveHead | None = None
    """None where the predictions are somebody else's."""
    search: Chosen | None = None
    """How an attentive head was chosen."""


def fit_head(features: Features, cases: Mapping[str, Cases], target: Target, config: HeadConfig, seed: int) -> Fitted:
    """Fit on `train` with the l2 that `validation` (or inner folds) likes best, and predict every test set."""
    train, validation = cases["train"], cases.get("validation")
    truth = train.targets(target.task)
    chosen = choose_l2(
        features["train"],
        truth,
        target.task,
        config.l2,
        validation=None if validation is None else (features["validation"], validation.targets(target.task)),
        groups_N=train.patients_N,
        folds=config.folds,
        seed=seed,
        criterion=None if config.criterion == "auto" else config.criterion,
        balanced=config.balanced,
    )
    classes = len(target.names) if target.task == "multiclass" else None
    head = fit_linear(features["train"], truth, target.task, chosen, balanced=config.balanced, classes=classes)
    thresholds_K = None
    if target.task == "multilabel":
        if validation is None:
            thresholds_K = thresholds(_out_of_fold(features, train, chosen, config, seed), train, config)
        else:
            thresholds_K = thresholds(head.predict(features["validation"]), validation, config)
    tests = [name for name in features if name not in ("train", "validation")]
    return Fitted({name: head.predict(features[name]) for name in tests}, thresholds_K, head)


def thresholds(probability_NK: NDArray[np.floating], cases: Cases, config: HeadConfig) -> NDArray[np.float64]:
    """The threshold of each label, [K]; NaN where the records have one class only."""
    return best_thresholds(np.asarray(probability_NK, np.float64), cases.truth_NK, config.threshold)


def _out_of_fold(features: Features, train: Cases, l2: float, config: HeadConfig, seed: int) -> NDArray[np.float64]:
    """Predictions [N, K] of the training records by heads that have not seen their patients."""
    folds_N = patient_folds(train.patients_N, config.folds, seed)
    predicted_NK = np.full(train.truth_NK.shape, np.nan)
    for fold in range(config.folds):
        seen_N = folds_N != fold
        head = fit_linear(features["train"][seen_N], train.truth_NK[seen_N], "multilabel", l2, balanced=config.balanced)
        predicted_NK[~seen_N] = head.predict(features["train"][~seen_N])
    return predicted_NK
