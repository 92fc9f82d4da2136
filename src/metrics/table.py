"""The table of a comparison: rows of predictions on one test set, with intervals, paired differences and groups.

Legend: D draws, N records, K labels, classes or targets, S seeds; row 0 of draws is every record once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics.bootstrap import LEVEL, Array, count_patients, interval, patient_draws
from src.metrics.classification import macro, score_classes, score_labels, score_pooled
from src.metrics.groups import group_masks
from src.metrics.regression import UNITLESS, score_numbers
from src.metrics.truth import Mask, one_hot, two_classes

Task = Literal["multilabel", "multiclass", "regression"]
Table = dict[str, Any]
Flat = dict[tuple[str, ...], Array]

LEAST_PATIENTS = 20  # of a group with scores: there 95 % intervals of AUROC cover 91 %, of average precision 89 %
WITHOUT_INTERVAL = ("calibration_error",)  # intervals of 95 % cover 31 % at 20 patients and 68 % at 200


def score_table(
    task: Task,
    truth: ArrayLike,
    rows: Mapping[str, Sequence[ArrayLike]],
    patients: Sequence[object] | NDArray[Any],
    *,
    labels: Sequence[str],
    thresholds: Mapping[str, Sequence[ArrayLike]] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    gap: tuple[str, str, str] | None = None,
    groups: Mapping[str, Iterable[Any]] | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
    least_patients: int = LEAST_PATIENTS,
) -> Table:
    """Scores of every row with percentile intervals over patients, ready for JSON: None is what is undefined.

    Args:
        task: what is predicted.
        truth: multilabel [N, K] of 0, 1, NaN (unknown); multiclass [N] of 0 to K - 1, -1 (unknown); regression [N, K]
            or [N], NaN (unknown).
        rows: name of a row -> the predictions of each seed: probabilities [N, K], or numbers shaped as truth.
        patients: whose each record is, [N].
        labels: names of the K labels, classes or targets.
        thresholds: multilabel only: row -> for each seed [K], NaN where validation gave none. Rows that are not named
            have no metric at a threshold.
        pairs: (row, reference) whose difference, row - reference, is wanted.
        gap: (row, floor, ceiling): which share of the way from floor to ceiling the row has gone, in macro AUROC, or
            R^2 of a regression.
        groups: name of a column -> its value for each record (see `group_masks`).
        edges: name of a column -> where its numbers are cut, rather than at quartiles.
        draws, seed, level: of the bootstrap; the same draws serve every row, pair and group.
        least_patients: groups of fewer are counted, not scored.

    Returns:
        {"records": N, "patients": P,
         "known": {label: records whose truth is known}, "positives": {label: n} (none for regression),
         "skipped": {label: reason},
         "scores": {row: {"macro": {metric: cell}, "micro": {metric: cell} (multilabel only),
                          "labels": {label: {metric: cell}}}},
         "differences": {"row - reference": as a row of scores},
         "gap_closed": a cell with "row", "floor", "reference" (the ceiling) and "metric" (where gap is given),
         "groups": {column: {group: all of the above}} (where groups are given)}

        with cell = {"value", "low", "high", "draws", "seeds"}. `value` is the mean over seeds, `seeds` the score of
        each; a draw is scored for every seed and averaged before its percentile is taken, so low and high are about
        other patients and `seeds` is about other seeds. `draws` counts the draws in which the cell is defined; low and
        high are None by the rule of `interval`, and for the calibration error, whose bias no draw shows. `seeds` of a
        difference are those of equal position, or one, of the means, where their numbers differ.

        Skipped labels are in no "labels" and in no macro average. "macro" of multiclass holds accuracy,
        balanced_accuracy, brier and calibration_error too; of several regression targets it holds what has no unit.

    Raises:
        ValueError: what does not fit together, with the name of the row.
    """
    trial = _Trial.of(task, truth, rows, patients, labels, thresholds or {}, list(pairs))
    once_1N = np.ones((1, len(trial.truth)), np.uint8)
    trial = replace(
        trial, weights_DN=np.concatenate([once_1N, patient_draws(trial.patients, draws, seed)]), level=level
    )
    table = _table(trial)
    if gap is not None:
        table["gap_closed"] = _gap_closed(trial, *gap)
    if groups is not None:
        table["groups"] = {
            name: _by_group(trial, name, column, (edges or {}).get(name), least_patients)
            for name, column in groups.items()
        }
    return table


class _Scores(NamedTuple):
    """One row, one seed."""

    labels: dict[str, Array]
    """[D, K]"""
    averages: dict[str, dict[str, Array]]
    """macro and micro, [D]"""


@dataclass(frozen=True)
class _Trial:
    """Checked inputs of a table, of all records or of a group."""

    task: Task
    labels: tuple[str, ...]
    truth: NDArray[Any]
    rows: dict[str, list[Array]]
    thresholds: dict[str, list[Array]]
    patients: NDArray[Any]
    pairs: list[tuple[str, str]]
    weights_DN: NDArray[Any]
    level: float

    @classmethod
    def of(
        cls,
        task: Task,
        truth: ArrayLike,
        rows: Mapping[str, Sequence[ArrayLike]],
        patients: Sequence[object] | NDArray[Any],
        labels: Sequence[str],
        thresholds: Mapping[str, Sequence[ArrayLike]],
        pairs: list[tuple[str, str]],
    ) -> _Trial:
        truth_N = np.asarray(truth, np.int64 if task == "multiclass" else np.float64)
        truth_N = truth_N[:, None] if task == "regression" and truth_N.ndim == 1 else truth_N
        shape = (len(truth_N), len(labels))
        if task != "multiclass" and truth_N.shape != shape:
            raise ValueError(f"truth {truth_N.shape} of {len(labels)} labels")
        if len(patients) != len(truth_N) or len(set(labels)) != len(labels):
            raise ValueError(f"{len(patients)} patients of {len(truth_N)} records, labels {', '.join(labels)}")
        unknown = {name for pair in pairs for name in pair} | set(thresholds)
        if unknown - set(rows):
            raise ValueError(f"no row is called {', '.join(sorted(unknown - set(rows)))}")
        return cls(
            task,
            tuple(labels),
            truth_N,
            {name: _seeds(name, seeds, shape) for name, seeds in rows.items()},
            {name: _seeds(name, seeds, shape[1:], len(rows[name])) for name, seeds in thresholds.items()},
            np.asarray(patients, dtype=object),
            pairs,
            np.empty((0, shape[0]), np.uint8),
            LEVEL,
        )

    def where(self, mask_N: Mask) -> _Trial:
        """The records of a group, with their part of the same draws."""
        return replace(
            self,
            truth=self.truth[mask_N],
            rows={name: [prediction[mask_N] for prediction in seeds] for name, seeds in self.rows.items()},
            patients=self.patients[mask_N],
            weights_DN=self.weights_DN[:, mask_N],
        )


def _seeds(name: str, seeds: Sequence[ArrayLike], shape: tuple[int, ...], count: int | None = None) -> list[Array]:
    arrays = [np.asarray(values, np.float64) for values in seeds]
    arrays = [values[:, None] if values.ndim == 1 and shape[1:] == (1,) else values for values in arrays]
    if not arrays or len(arrays) != (count or len(arrays)):
        raise ValueError(f"row {name}: {len(arrays)} seeds, {count or 'at least 1'} expected")
    for values in arrays:
        if values.shape != shape:
            raise ValueError(f"row {name}: {values.shape} where {shape} is expected of each seed")
    return arrays


def _table(trial: _Trial) -> Table:
    skipped = _skipped(trial)
    table = _counts(trial) | {"skipped": skipped}
    flat = {name: _flat(trial, name, skipped) for name in trial.rows}
    differences = {f"{row} - {reference}": _difference(flat[row], flat[reference]) for row, reference in trial.pairs}
    table["scores"] = {name: _cells(values, trial.level) for name, values in flat.items()}
    table["differences"] = {name: _cells(values, trial.level) for name, values in differences.items()}
    return table


def _gap_closed(trial: _Trial, row: str, floor: str, ceiling: str) -> Table:
    """(row - floor) / (ceiling - floor) of the means over seeds, draw by draw; undefined where there is no gap."""
    metric = "r2" if trial.task == "regression" else "auroc"
    skipped = _skipped(trial)
    row_D, floor_D, ceiling_D = (_flat(trial, name, skipped)["macro", metric].mean(0) for name in (row, floor, ceiling))
    width_D = ceiling_D - floor_D
    share_D = np.where(width_D > 0, (row_D - floor_D) / np.where(width_D > 0, width_D, 1.0), np.nan)
    cell = _cells({("macro", metric): share_D[None]}, trial.level)["macro"][metric]
    return {"row": row, "floor": floor, "reference": ceiling, "metric": metric, **cell}


def _by_group(
    trial: _Trial, name: str, column: Iterable[Any], edges: Sequence[float] | None, least_patients: int
) -> dict[str, Table]:
    masks = group_masks(column, edges)
    if any(len(mask_N) != len(trial.truth) for mask_N in masks.values()):
        raise ValueError(f"column {name} does not have a value for each of {len(trial.truth)} records")
    tables = {}
    for group, mask_N in masks.items():
        part = trial.where(mask_N)
        if count_patients(part.patients) < least_patients:
            reason = f"fewer than {least_patients} patients"
            empty: Table = {"skipped": dict.fromkeys(trial.labels, reason), "scores": {}, "differences": {}}
            tables[group] = _counts(part) | empty
        else:
            tables[group] = _table(part)
    return tables


def _counts(trial: _Trial) -> Table:
    truth_NK = _per_label(trial)
    positives = {} if trial.task == "regression" else _named(trial.labels, (truth_NK == 1).sum(0))
    return {
        "records": len(truth_NK),
        "patients": count_patients(trial.patients),
        "known": _named(trial.labels, (~np.isnan(truth_NK)).sum(0)),
        "positives": positives,
    }


def _skipped(trial: _Trial) -> dict[str, str]:
    """Labels without a score, and why."""
    truth_NK = _per_label(trial)
    known_K, positive_K = (~np.isnan(truth_NK)).sum(0), (truth_NK == 1).sum(0)
    scored_K = known_K > 0 if trial.task == "regression" else two_classes(truth_NK)
    reasons = {}
    for label, known, positive, scored in zip(trial.labels, known_K, positive_K, scored_K, strict=True):
        if not scored:
            kind = "positives" if positive == 0 else "negatives"
            reasons[label] = f"no {kind} among {known} known records" if known else "no known records"
    return reasons


def _per_label(trial: _Trial) -> Array:
    return one_hot(trial.truth, len(trial.labels)) if trial.task == "multiclass" else trial.truth


def _named(labels: tuple[str, ...], counts_K: NDArray[Any]) -> dict[str, int]:
    return {label: int(count) for label, count in zip(labels, counts_K, strict=True)}


def _flat(trial: _Trial, name: str, skipped: Mapping[str, str]) -> Flat:
    """Scores of a row by where they stand in its table, [S, D] each."""
    seeds = []
    for index, prediction in enumerate(trial.rows[name]):
        thresholds_K = trial.thresholds[name][index] if name in trial.thresholds else None
        try:
            seeds.append(_score(trial, prediction, thresholds_K))
        except ValueError as error:
            raise ValueError(f"row {name}, seed {index}: {error}") from error
    flat: Flat = {}
    for average, metrics in seeds[0].averages.items():
        for metric in metrics:
            flat[average, metric] = np.stack([scores.averages[average][metric] for scores in seeds])
    for column, label in enumerate(trial.labels):
        for metric in seeds[0].labels if label not in skipped else ():
            flat["labels", label, metric] = np.stack([scores.labels[metric][:, column] for scores in seeds])
    return flat


def _score(trial: _Trial, prediction: Array, thresholds_K: Array | None) -> _Scores:
    """Scores of one seed over all draws."""
    if trial.task == "regression":
        labels = score_numbers(prediction, trial.truth, trial.weights_DN)
        averaged = [name for name in labels if len(trial.labels) == 1 or name in UNITLESS]
        return _Scores(labels, {"macro": _macro({name: labels[name] for name in averaged})})
    if trial.task == "multiclass":
        classes, overall = score_classes(prediction, trial.truth, trial.weights_DN)
        return _Scores(classes, {"macro": overall | _macro(classes)})
    labels = score_labels(prediction, trial.truth, thresholds_K, trial.weights_DN)
    pooled = score_pooled(prediction, trial.truth, thresholds_K, trial.weights_DN)
    return _Scores(labels, {"macro": _macro(labels), "micro": pooled})


def _macro(labels: dict[str, Array]) -> dict[str, Array]:
    """Means over the labels that are defined at the point estimate.

    A label that a draw does not define counts there with the mean of its other draws. Left out, it would make that draw
    a mean of other labels than the point estimate's: for twelve rhythm labels, some on one patient, every draw had a
    higher average precision than the 0.168 of all records.
    """
    return {name: macro(_filled(values_DK), ~np.isnan(values_DK[0])) for name, values_DK in labels.items()}


def _filled(values_DK: Array) -> Array:
    """NaN after row 0 replaced by the label's mean over the draws that define it, or by row 0 where none does."""
    draws_DK = values_DK[1:]
    defined_DK = ~np.isnan(draws_DK)
    count_K = defined_DK.sum(0)
    mean_K = np.where(defined_DK, draws_DK, 0.0).sum(0) / np.maximum(count_K, 1)
    mean_K = np.where(count_K > 0, mean_K, values_DK[0])
    return np.concatenate([values_DK[:1], np.where(defined_DK, draws_DK, mean_K)])


def _difference(row: Flat, reference: Flat) -> Flat:
    """Paired by draw, [S, D], or [1, D] of the means over seeds where the numbers of seeds differ."""
    shared = [key for key in row if key in reference]
    return {key: _subtract(row[key], reference[key]) for key in shared}


def _subtract(row_SD: Array, reference_SD: Array) -> Array:
    if len(row_SD) == len(reference_SD):
        return row_SD - reference_SD
    return row_SD.mean(0, keepdims=True) - reference_SD.mean(0, keepdims=True)


def _cells(flat: Flat, level: float) -> Table:
    """Nested by key, with a cell in place of each [S, D]."""
    table: Table = {"macro": {}, "labels": {}}
    for (*path, metric), values_SD in flat.items():
        inside = table
        for step in path:
            inside = inside.setdefault(step, {})
        inside[metric] = _cell(values_SD, level) | ({"low": None, "high": None} if metric in WITHOUT_INTERVAL else {})
    return table


def _cell(values_SD: Array, level: float) -> Table:
    """Averaged over seeds draw by draw; the first draw is every record once."""
    values_D = values_SD.mean(0)
    cell = asdict(interval(float(values_D[0]), values_D[1:], level, tuple(values_SD[:, 0])))
    return cell | {"seeds": list(cell["seeds"])}
