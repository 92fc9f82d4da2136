"""Several objectives in one table: what each makes of the same encoder, data and probe, beside what all start from."""

# N records, K labels or classes

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.metrics.table import Task, score_table
from tools.trial_encoders import (
    PTBXL500,
    SEEDS,
    beats,
    floor_told,
    folds,
    markdown,
    probe,
    read_csv,
    train,
    written,
)

Rows = dict[str, list[NDArray[np.float64]]]
NORM_OR_NOT, BEATS = "ecg_ptbxl_small", "ecg_mitdb_small"


class Predicted(NamedTuple):
    """What the probe of one objective's encoders said of the records of a test set, or of several folds as one."""

    rows: Rows
    """Predictions [N, K] of each seed."""
    truth_NK: NDArray[np.float64]
    patients: list[str]
    labels: list[str]


def compare_mitdb(words: argparse.Namespace) -> str:
    """As the trial mitdb, of each objective in a folder of its own; one table of all."""
    shards = beats(words)
    found = {}
    for objective in words.objectives:
        folder = words.output / objective
        runs = [folder / f"seed-{seed}" for seed in range(SEEDS)]
        for seed, run in enumerate(runs):
            train(words, f"configs/{objective}/{BEATS}.yaml", shards, run, seed)
        probe(words, "configs/probe/mitdb.yaml", shards, runs, folder / "probe", 0)
        found[objective] = predicted([folder / "probe/predictions/DS2"])
    table, note = compared(found, "multiclass", draws_of(words.output / words.objectives[0] / "probe"))
    told = markdown(table, "macro", ("balanced_accuracy", "auroc"))
    return written(words, f"mitdb, {', '.join(words.objectives)}, {SEEDS} seeds", told + note)


def compare_ptbxl500(words: argparse.Namespace) -> str:
    """As the trial ptbxl500, of each objective in a folder of its own; one table of all."""
    shards = [folder / "shards" for folder, _ in folds(words)]
    found = {}
    for objective in words.objectives:
        folders = [words.output / objective / f"fold-{fold}" for fold in range(len(shards))]
        for fold, folder in enumerate(folders):
            train(words, f"configs/{objective}/{NORM_OR_NOT}.yaml", shards[fold], folder / "pretrain", fold)
            probe(words, PTBXL500, shards[fold], [folder / "pretrain"], folder / "probe", fold)
        found[objective] = predicted([folder / "probe/predictions/fold" for folder in folders])
    table, note = compared(found, "multilabel", draws_of(words.output / words.objectives[0] / "fold-0/probe"))
    told = f"{markdown(table, 'labels', ('auroc', 'average_precision'))}{note}\n{floor_told(words, shards[0])}"
    return written(words, f"ptbxl500, {', '.join(words.objectives)}, {len(shards)} folds", told)


def predicted(folders: Sequence[Path]) -> Predicted:
    """The predictions in the folders of several folds, one behind the other."""
    rows: Rows = {}
    lines = []
    for path in sorted(folders[0].glob("*.csv")):
        lines = [line for folder in folders for line in read_csv(folder / path.name)]
        labels = [column.removeprefix("true ") for column in lines[0] if column.startswith("true ")]
        rows.setdefault(path.name.split(".")[0], []).append(_numbers(lines, labels))
    truth_NK = _numbers(lines, [f"true {label}" for label in labels])
    return Predicted(rows, truth_NK, [line["patient_id"] for line in lines], labels)


def _numbers(lines: Iterable[Mapping[str, str]], columns: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[float(line[column] or "nan") for column in columns] for line in lines])


def draws_of(folder: Path) -> int:
    """How often a probe drew its patients."""
    return int(json.loads((folder / "results.json").read_text())["bootstrap"]["draws"])


def compared(found: Mapping[str, Predicted], task: Task, draws: int) -> tuple[dict[str, Any], str]:
    """The scores of all objectives' encoders, and what each is ahead of random weights and of the raw signal.

    What all share is one row: encoders of one architecture have the same random weights, and one signal is the same
    for all. Where the predictions differ, each objective has a row of its own, and a note says so.
    """
    first = next(iter(found.values()))
    for objective, one in found.items():
        if one.patients != first.patients or not np.array_equal(one.truth_NK, first.truth_NK, equal_nan=True):
            raise ValueError(f"the probe of {objective} is of other records than the first: name another --output")
    rows: Rows = {objective: one.rows["pretrained"] for objective, one in found.items()}
    pairs, apart = [], []
    for row in (name for name in first.rows if name != "pretrained"):
        shared = all(_same(one.rows[row], first.rows[row]) for one in found.values())
        apart += [] if shared else [row]
        for objective, one in found.items():
            name = row if shared else f"{row} of {objective}"
            rows[name] = one.rows[row]
            pairs.append((objective, name))
    truth = first.truth_NK if task == "multilabel" else np.where(np.isnan(first.truth_NK).any(1), -1, _classes(first))
    table = score_table(task, truth, rows, first.patients, labels=first.labels, pairs=pairs, draws=draws)
    note = f"\n\nNot the same for all objectives, whose encoders or inputs differ: {', '.join(apart)}." if apart else ""
    return table, note


def _classes(of: Predicted) -> NDArray[np.int64]:
    return np.nan_to_num(of.truth_NK).argmax(1)


def _same(one: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))
