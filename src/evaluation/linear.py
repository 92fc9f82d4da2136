"""Linear heads on frozen features: logistic, softmax and ridge regression, and the choice of their regularisation.

The convex problems are those of scikit-learn with C = 1 / (records * l2), solved to the optimum, so that a score is a
property of the features and never of a learning rate (src/evaluation/newton.py).
"""

# N records, F features, K labels, classes or targets; R principal axes, S = R + 1 with the bias last;
# B problems that are solved apart

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh, qr
from scipy.special import expit, softmax

from src.evaluation.newton import Array, ClassProblem, LabelProblem, minimise
from src.evaluation.representation import feature_std
from src.metrics.classification import auroc
from src.metrics.regression import r2
from src.randomness import derive_seed

Task = Literal["multilabel", "multiclass", "regression"]
Criterion = Literal["auroc", "balanced_accuracy", "r2"]

CRITERIA: dict[Task, tuple[Criterion, ...]] = {
    "multilabel": ("auroc",),
    "multiclass": ("auroc", "balanced_accuracy"),
    "regression": ("r2",),
}
"""What may choose l2 in each task, the default first."""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A fitted head: standardisation from its training records, then one linear map.

    mean_F and std_F are in the features' units, weight_KF applies to standardised features. `converged` is False where
    the gradient's norm of some label stayed above `TOLERANCE`.
    """

    mean_F: Array
    std_F: Array
    weight_KF: Array
    bias_K: Array
    l2: float
    task: Task
    converged: bool = True

    def logits(self, features_NF: ArrayLike) -> Array:
        """[N, F] -> [N, K]: log odds, softmax logits, or the values of a regression."""
        features = _finite(features_NF)
        if features.shape[1] != len(self.mean_F):
            raise ValueError(f"{features.shape[1]} features, the head takes {len(self.mean_F)}")
        return (features - self.mean_F) / self.std_F @ self.weight_KF.T + self.bias_K

    def predict(self, features_NF: ArrayLike) -> Array:
        """[N, F] -> [N, K]: probabilities of each label, of each class (rows sum to 1), or values in target units."""
        logits_NK = self.logits(features_NF)
        if self.task == "multilabel":
            return expit(logits_NK)
        return softmax(logits_NK, axis=1) if self.task == "multiclass" else logits_NK


def fit_linear(
    features_NF: ArrayLike,
    targets: ArrayLike,
    task: Task,
    l2: float,
    start: LinearHead | None = None,
    balanced: bool = False,
    classes: int | None = None,
) -> LinearHead:
    """The head that minimises mean loss + l2 / 2 * |weight|^2 per label, the bias free.

    multilabel: targets [N, K] of 0 and 1, NaN unknown, log loss; a label with one class among the known predicts that
    class's rate, half a record short of certain, and one without any known predicts 0.5.
    multiclass: targets int [N], -1 unknown, softmax over `classes` (default: the largest target + 1); a class without
    records has weight 0 and a small probability.
    regression: targets [N, K], NaN unknown, half the squared error, which is scikit-learn's Ridge with
    alpha = records * l2; a target without any known predicts NaN.

    A record without any known target is left out altogether. `balanced` weighs records as scikit-learn's
    class_weight="balanced" does. `start` only makes it faster. Raises ValueError for non-finite features, targets that
    do not fit the task, l2 <= 0; warns when the optimum was not reached.
    """
    targets_NK = _target_matrix(targets, task, classes)
    return _fit(_design(features_NF, targets_NK), targets_NK, task, l2, start, balanced)


def choose_l2(
    features_NF: ArrayLike,
    targets: ArrayLike,
    task: Task,
    grid: Sequence[float],
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    groups_N: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
    criterion: Criterion | None = None,
    balanced: bool = False,
) -> float:
    """The l2 of the grid that scores best on `validation` (features, targets), or else out of fold.

    Out of fold, records are split by `patient_folds` of groups_N (None: each record is a patient of its own) and the
    scores of all folds are pooled. The criterion is the macro AUROC over the labels that have both classes
    (multilabel, multiclass one against the rest), the balanced accuracy over the classes that occur (multiclass, on
    request) or the macro R^2 (regression). A tie goes to the stronger regularisation, and so does, with a warning, a
    criterion that no label defines.
    """
    score = scorer(task, criterion)
    classes = _class_count(targets, None if validation is None else validation[1]) if task == "multiclass" else None
    targets_NK = _target_matrix(targets, task, classes)
    features = _finite(features_NF)
    if not len(grid) or min(grid) <= 0.0:
        raise ValueError(f"the grid {list(grid)} must have values and all above 0")
    path = sorted(set(map(float, grid)), reverse=True)
    if validation is not None:
        truth_NK = _target_matrix(validation[1], task, classes)
        outputs = _path_outputs(features, targets_NK, _finite(validation[0]), task, path, balanced)
    else:
        truth_NK = targets_NK
        outputs = np.full((len(path), *targets_NK.shape), np.nan)
        folds_N = patient_folds(np.arange(len(features)) if groups_N is None else groups_N, folds, seed)
        if not len(folds_N) == len(features) == len(targets_NK):
            raise ValueError(f"{len(features)} features, {len(targets_NK)} targets and {len(folds_N)} groups")
        for fold in range(folds):
            train, test = folds_N != fold, folds_N == fold
            outputs[:, test] = _path_outputs(features[train], targets_NK[train], features[test], task, path, balanced)
    return _best(path, [score(output_NK, truth_NK) for output_NK in outputs])


def patient_folds(patients_N: ArrayLike, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold 0 .. folds - 1 of each record, [N]: patients stay whole and folds hold about equally many records.

    In the order of their records' number, largest first and ties drawn by the seed, patients go to the fold that is
    smallest so far: sizes differ by at most the largest patient's. The order of the records does not matter, and 7 and
    "7" are one patient. Raises ValueError when there are fewer patients than folds.
    """
    patients, patient_N, sizes_P = np.unique(
        np.asarray(patients_N).astype(str), return_inverse=True, return_counts=True
    )
    if not 2 <= folds <= len(patients):
        raise ValueError(f"{folds} folds need at least 2 folds and as many patients; there are {len(patients)}")
    shuffled_P = np.random.default_rng(derive_seed(seed, "patient folds")).permutation(len(patients))
    fold_P = np.empty(len(patients), np.int64)
    filled = np.zeros(folds, np.int64)
    for patient in shuffled_P[np.argsort(-sizes_P[shuffled_P], kind="stable")]:
        fold_P[patient] = filled.argmin()
        filled[fold_P[patient]] += sizes_P[patient]
    return fold_P[patient_N]


# What goes in


def _finite(features_NF: ArrayLike) -> Array:
    features = np.asarray(features_NF, np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"features must be finite and [N, F], these have shape {features.shape}")
    return features


def _target_matrix(targets: ArrayLike, task: Task, classes: int | None) -> Array:
    """Targets as [N, K] with NaN where unknown; classes as one column of 0 and 1 each."""
    if task not in get_args(Task):
        raise ValueError(f"unknown task {task!r}; choose from {get_args(Task)}")
    if task == "multiclass":
        return _one_column_per_class(np.asarray(targets), classes)
    targets_NK = np.asarray(targets, np.float64)
    if targets_NK.ndim != 2 or np.isinf(targets_NK).any():
        raise ValueError(f"{task} targets must be [N, K] of numbers or NaN, these have shape {targets_NK.shape}")
    if task == "multilabel" and not np.isin(targets_NK[~np.isnan(targets_NK)], (0.0, 1.0)).all():
        raise ValueError("multilabel targets are 0, 1 or NaN")
    return targets_NK


def _one_column_per_class(targets_N: NDArray[np.int64], classes: int | None) -> Array:
    if targets_N.ndim != 1 or targets_N.dtype.kind not in "iu" or (targets_N < -1).any():
        raise ValueError("multiclass targets are integers [N], -1 where unknown")
    count = int(targets_N.max(initial=-1)) + 1
    if classes is not None and classes < count:
        raise ValueError(f"class {count - 1} is not one of {classes} classes")
    columns_NK = (targets_N[:, None] == np.arange(count if classes is None else classes)).astype(np.float64)
    columns_NK[targets_N < 0] = np.nan
    return columns_NK


def _class_count(targets_N: ArrayLike, more_N: ArrayLike | None) -> int:
    """Classes of training and validation together."""
    return 1 + max(int(np.max(part, initial=-1)) for part in (targets_N, more_N) if part is not None)


@dataclass(frozen=True, eq=False)
class _Design:
    """The records that have a known target, standardised, on the principal axes of their features."""

    used_N: NDArray[np.bool_]
    mean_F: Array
    std_F: Array
    axes_FR: Array
    rows_NS: Array
    variance_S: Array

    def coefficients(self, head: LinearHead) -> Array:
        """Another head's map, [S, K], as one on these axes."""
        weight_KF = head.weight_KF / head.std_F
        bias_K = head.bias_K + weight_KF @ (self.mean_F - head.mean_F)
        return np.vstack([self.axes_FR.T @ (weight_KF * self.std_F).T, bias_K])


def _design(features_NF: ArrayLike, targets_NK: Array) -> _Design:
    """Rotate to principal axes: the penalty is unchanged by it, and N records span at most N axes."""
    features = _finite(features_NF)
    if len(features) != len(targets_NK):
        raise ValueError(f"{len(features)} records have features and {len(targets_NK)} have targets")
    used_N = np.asarray((~np.isnan(targets_NK)).any(1), np.bool_)
    features = features[used_N]
    if not len(features):
        raise ValueError("no record has a known target")
    mean_F, std_F = features.mean(0), feature_std(features)
    std_F = np.where(std_F == 0.0, 1.0, std_F)
    standard_NF = (features - mean_F) / std_F
    axes_FR = None
    if standard_NF.shape[1] > len(standard_NF):
        axes_FR = qr(standard_NF.T, mode="economic")[0]
        standard_NF = standard_NF @ axes_FR
    variance_R, rotation_RR = eigh(standard_NF.T @ standard_NF / len(standard_NF))
    axes_FR = rotation_RR if axes_FR is None else axes_FR @ rotation_RR
    rows_NS = np.column_stack([standard_NF @ rotation_RR, np.ones(len(standard_NF))])
    return _Design(used_N, mean_F, std_F, axes_FR, rows_NS, np.append(np.maximum(variance_R, 0.0), 1.0))


def _fit(
    design: _Design, targets_NK: Array, task: Task, l2: float, start: LinearHead | None, balanced: bool
) -> LinearHead:
    if not 0.0 < l2 < np.inf:
        raise ValueError(f"l2 {l2} must be above 0")
    if start is not None and (start.task, len(start.bias_K)) != (task, targets_NK.shape[1]):
        raise ValueError(
            f"a {task} head with {targets_NK.shape[1]} outputs cannot start from {start.task}'s {len(start.bias_K)}"
        )
    if balanced and task == "regression":
        raise ValueError("balanced weighs classes, and a regression has none")
    targets_NK = targets_NK[design.used_N]
    start_SK = None if start is None else design.coefficients(start)
    converged = True
    if task == "regression":
        fitted_SK = _ridge(design.rows_NS, targets_NK, l2)
    elif task == "multilabel":
        fitted_SK, converged = _fit_labels(design, targets_NK, l2, start_SK, balanced)
    else:
        fitted_SK, converged = _fit_classes(design, targets_NK, l2, start_SK, balanced)
    if not converged:
        warnings.warn(f"the {task} head with l2 {l2:g} did not reach its optimum", RuntimeWarning, stacklevel=3)
    weight_KF = (design.axes_FR @ fitted_SK[:-1]).T
    return LinearHead(design.mean_F, design.std_F, weight_KF, fitted_SK[-1], float(l2), task, converged)


# Ridge


def _ridge(rows_NS: Array, targets_NK: Array, l2: float) -> Array:
    """Closed form by Cholesky, once for all targets that are known for the same records.

    The solution is linear in the targets, so that their scale needs no standardising; their mean goes to the bias.
    """
    fitted_SK = np.zeros((rows_NS.shape[1], targets_NK.shape[1]))
    known_NK = ~np.isnan(targets_NK)
    patterns_PN, pattern_K = np.unique(known_NK.T, axis=0, return_inverse=True)
    for pattern, known_N in enumerate(patterns_PN):
        columns = pattern_K == pattern
        if not known_N.any():
            fitted_SK[-1, columns] = np.nan
            continue
        rows_NR, values_NK = rows_NS[known_N, :-1], targets_NK[known_N][:, columns]
        mean_R, mean_K = rows_NR.mean(0), values_NK.mean(0)
        rows_NR = rows_NR - mean_R
        normal_RR = rows_NR.T @ rows_NR + len(rows_NR) * l2 * np.eye(rows_NR.shape[1])
        weight_RK = cho_solve(cho_factor(normal_RR), rows_NR.T @ (values_NK - mean_K))
        fitted_SK[:-1, columns], fitted_SK[-1, columns] = weight_RK, mean_K - mean_R @ weight_RK
    return fitted_SK


# Logistic and softmax


def _fit_labels(
    design: _Design, targets_NK: Array, l2: float, start_SK: Array | None, balanced: bool
) -> tuple[Array, bool]:
    """Labels with both classes are solved, the others predict their rate."""
    known_NK = ~np.isnan(targets_NK)
    truth_NK = np.where(known_NK, targets_NK, 0.0)
    count_K, positive_K = known_NK.sum(0), truth_NK.sum(0)
    half_K = 0.5 / np.maximum(count_K, 1)
    rate_K = np.where(count_K > 0, np.clip(positive_K / np.maximum(count_K, 1), half_K, 1.0 - half_K), 0.5)
    fitted_SK = np.zeros((design.rows_NS.shape[1], len(count_K)))
    fitted_SK[-1] = np.log(rate_K) - np.log1p(-rate_K)
    both = np.flatnonzero((positive_K > 0) & (positive_K < count_K))
    if not both.size:
        return fitted_SK, True
    weights_NK = known_NK[:, both] / count_K[both]
    if balanced:
        rate_NK = np.where(truth_NK[:, both] == 1.0, rate_K[both], 1.0 - rate_K[both])
        weights_NK = weights_NK / (2.0 * rate_NK)
        fitted_SK[-1, both] = 0.0
    begin_SK = (fitted_SK if start_SK is None else start_SK)[:, both]
    fitted_SK[:, both], converged = minimise(
        design.rows_NS, design.variance_S, LabelProblem(weights_NK, truth_NK[:, both]), l2, begin_SK
    )
    return fitted_SK, converged


def _fit_classes(
    design: _Design, targets_NK: Array, l2: float, start_SK: Array | None, balanced: bool
) -> tuple[Array, bool]:
    """Classes that occur are solved, their biases have mean 0; the others lie at half a record's log rate."""
    records, count_K = len(targets_NK), targets_NK.sum(0)
    fitted_SK = np.zeros((design.rows_NS.shape[1], len(count_K)))
    fitted_SK[-1] = np.log(0.5 / records)
    occur = np.flatnonzero(count_K > 0)
    truth_NK, rate_K = targets_NK[:, occur], count_K[occur] / records
    weights_N1 = np.full((records, 1), 1.0 / records)
    if balanced:
        weights_N1 = (truth_NK / rate_K).sum(1, keepdims=True) / (records * len(occur))
    if start_SK is None:
        begin_SK = np.zeros((len(fitted_SK), len(occur)))
        begin_SK[-1] = 0.0 if balanced else np.log(rate_K)
    else:
        begin_SK = start_SK[:, occur]
    solved_SK, converged = minimise(design.rows_NS, design.variance_S, ClassProblem(weights_N1, truth_NK), l2, begin_SK)
    solved_SK[-1] -= solved_SK[-1].mean()
    fitted_SK[:, occur] = solved_SK
    return fitted_SK, converged


# The choice of l2


def _path_outputs(
    train_NF: Array, targets_NK: Array, test_NF: Array, task: Task, path: Sequence[float], balanced: bool
) -> Array:
    """Predictions at each l2 of a falling path, [len(path), records, K], each fit started from the one before."""
    design = _design(train_NF, targets_NK)
    head, outputs = None, []
    for l2 in path:
        head = _fit(design, targets_NK, task, l2, head, balanced)
        outputs.append(head.predict(test_NF))
    return np.stack(outputs)


def _best(path: Sequence[float], scores: Sequence[float]) -> float:
    """The first of the path that no later one beats by more than rounding."""
    best = None
    for l2, score in zip(path, scores, strict=True):
        if np.isfinite(score) and (best is None or score > best[1] + 1e-12):
            best = l2, score
    if best is None:
        warnings.warn("no label defines the criterion; l2 is the strongest of the grid", RuntimeWarning, stacklevel=3)
        return path[0]
    return best[0]


def scorer(task: Task, criterion: Criterion | None) -> Callable[[Array, Array], float]:
    """Scores predictions by truth, both [N, K]: the task's first criterion unless another of its own is asked for."""
    if task not in CRITERIA:
        raise ValueError(f"unknown task {task!r}; choose from {tuple(CRITERIA)}")
    chosen = CRITERIA[task][0] if criterion is None else criterion
    if chosen not in CRITERIA[task]:
        raise ValueError(f"criterion {criterion!r} is not one of {task}'s: {CRITERIA[task]}")
    if chosen == "balanced_accuracy":
        return _balanced_accuracy
    return partial(_macro, auroc if chosen == "auroc" else r2)


def _macro(metric: Callable[[Array, Array], Array], outputs_NK: Array, truth_NK: Array) -> float:
    """Mean over the columns that define the metric; NaN without any."""
    values = []
    for output_N, truth_N in zip(outputs_NK.T, truth_NK.T, strict=True):
        known_N = ~np.isnan(truth_N)
        value = metric(output_N[known_N], truth_N[known_N])[0] if np.isfinite(output_N[known_N]).all() else np.nan
        values.append(float(value))
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _balanced_accuracy(scores_NK: Array, truth_NK: Array) -> float:
    """Mean recall over the classes that occur; NaN without any known."""
    known_N = ~np.isnan(truth_NK).any(1)
    truth_N, chosen_N = truth_NK[known_N].argmax(1), scores_NK[known_N].argmax(1)
    recalls = [float((chosen_N[truth_N == label] == label).mean()) for label in np.unique(truth_N)]
    return float(np.mean(recalls)) if recalls else float("nan")
