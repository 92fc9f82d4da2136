"""Nearest neighbours on frozen features: no training, no choice to make, so it can run while an encoder trains.

The weighted vote of Wu et al. 2018 (arXiv 1805.01978, section 3.4), with the 20 neighbours and temperature 0.07 of DINO
(Caron et al. 2021).
"""

# N training records, M records to score, C of them at a time, F features, K labels

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 2**23
"""Similarities held at a time (64 MiB)."""


def knn_scores(
    train_NF: ArrayLike,
    targets_NK: ArrayLike,
    test_MF: ArrayLike,
    neighbours: int = 20,
    temperature: float = 0.07,
    train_patients: ArrayLike | None = None,
    test_patients: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Mean target of the nearest training records by cosine similarity, weighted by exp(similarity / temperature).

    Targets are [N, K] with NaN where unknown (left out of that label's mean); scores are [M, K], NaN where no neighbour
    has a known target. All that tie for the last place count, so the order of the records does not matter; features of
    length 0 are at similarity 0 to all. With both lists of patients, [N] and [M], records of the same patient are never
    neighbours: for scoring a set against itself. Raises ValueError for non-finite features and shapes that disagree.
    """
    train, test = _directions(train_NF), _directions(test_MF)
    targets = np.asarray(targets_NK, np.float64)
    _check(train, targets, test, neighbours, temperature)
    patients = _patients(train_patients, test_patients, len(train), len(test))
    known_NK = np.isfinite(targets)
    known_targets_NK = np.where(known_NK, targets, 0.0)
    scores_MK = np.full((len(test), targets.shape[1]), np.nan)
    rows = max(1, CHUNK // len(train))
    for first in range(0, len(test), rows):
        chunk = slice(first, first + rows)
        similarity_CN = test[chunk] @ train.T
        if patients is not None:
            similarity_CN[patients[1][chunk, None] == patients[0]] = -np.inf
        weights_CN = _weights(similarity_CN, neighbours, temperature)
        total_CK = weights_CN @ known_NK
        np.divide(weights_CN @ known_targets_NK, total_CK, out=scores_MK[chunk], where=total_CK > 0.0)
    return scores_MK


def _directions(features: ArrayLike) -> NDArray[np.float64]:
    """Features of length 1, or 0 where they were 0."""
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"features must be finite and [records, features], these have shape {values.shape}")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length == 0.0, 1.0, length)


def _weights(similarity_CN: NDArray[np.float64], neighbours: int, temperature: float) -> NDArray[np.float64]:
    """Weights of all training records, 0 beyond the neighbours; the nearest has weight 1, which leaves means as is."""
    last = max(0, similarity_CN.shape[1] - neighbours)
    threshold_C1 = np.partition(similarity_CN, last, axis=1)[:, last, None]
    nearest_C1 = similarity_CN.max(1, keepdims=True)
    nearest_C1 = np.where(np.isfinite(nearest_C1), nearest_C1, 0.0)
    return np.where(similarity_CN >= threshold_C1, np.exp((similarity_CN - nearest_C1) / temperature), 0.0)


def _patients(
    train: ArrayLike | None, test: ArrayLike | None, train_count: int, test_count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Numbers of the patients of training and other records, equal where the patient is the same."""
    if train is None and test is None:
        return None
    if train is None or test is None:
        raise ValueError("train_patients and test_patients are given together or not at all")
    train_names, test_names = np.asarray(train).astype(str), np.asarray(test).astype(str)
    if train_names.shape != (train_count,) or test_names.shape != (test_count,):
        raise ValueError("train_patients and test_patients need one patient for each record")
    numbers = np.unique(np.concatenate([train_names, test_names]), return_inverse=True)[1]
    return numbers[:train_count], numbers[train_count:]


def _check(
    train: NDArray[np.float64],
    targets: NDArray[np.float64],
    test: NDArray[np.float64],
    neighbours: int,
    temperature: float,
) -> None:
    if targets.ndim != 2 or len(targets) != len(train) or len(train) == 0:
        raise ValueError(f"targets {targets.shape} must be [N, K] for the {len(train)} training records")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"{train.shape[1]} training features and {test.shape[1]} features to score")
    if neighbours < 1 or not temperature > 0.0:
        raise ValueError(f"neighbours {neighbours} must be at least 1 and temperature {temperature} above 0")
