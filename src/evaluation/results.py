"""What is told of scores on test sets: predictions as CSV, tables as lines of text."""

# N records, K labels, classes or targets

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.evaluation.targets import Cases, Target

FORMAT = 1
"""Of results.json."""


def write_predictions(path: Path, cases: Cases, target: Target, predicted_NK: NDArray[np.floating]) -> None:
    """A CSV of a test set: key, id, patient_id, `true <label>` and the prediction of each label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "id", "patient_id", *(f"true {name}" for name in target.names), *target.names])
        for place, key in enumerate(cases.keys):
            truth = ["" if np.isnan(value) else f"{value:g}" for value in cases.truth_NK[place]]
            values = [f"{value:.9g}" for value in predicted_NK[place]]
            table.writerow([key, cases.ids[place], cases.patients_N[place], *truth, *values])


def positives(cases: Cases, target: Target) -> dict[str, dict[str, int]]:
    """How many records have each label, or are of each class; nothing of a regression."""
    if target.task == "regression":
        return {}
    counts = (cases.truth_NK == 1).sum(0).tolist()
    return {"positives": dict(zip(target.names, counts, strict=True))}


def macro_scores(tables: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """test/row/metric -> value, for metrics.jsonl."""
    return {
        f"{test}/{row}/{metric}": cell["value"]
        for test, table in tables.items()
        for row, scores in table["scores"].items()
        for metric, cell in scores["macro"].items()
        if cell["value"] is not None
    }


def show(test: str, table: Mapping[str, Any]) -> str:
    """A test set's macro scores as lines of text."""
    lines = [f"{test}: {table['records']} records of {table['patients']} patients"]
    shown = ("auroc", "average_precision", "balanced_accuracy", "f1", "r2", "mae")
    for title, part in (("scores", table["scores"]), ("differences", table["differences"])):
        for row, scores in part.items():
            cells = [f"{metric} {cell_text(scores['macro'][metric])}" for metric in shown if metric in scores["macro"]]
            lines.append(f"  {row:<26} {'  '.join(cells)}" if cells else f"  {row}: no {title}")
    for label, reason in table["skipped"].items():
        lines.append(f"  {label} is skipped: {reason}")
    return "\n".join(lines)


def cell_text(cell: Mapping[str, Any]) -> str:
    """0.831 [0.802, 0.860]"""
    if cell["value"] is None:
        return "undefined"
    interval = "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{cell['value']:.3f}{interval}"
