"""Does BYOL need its predictor? The same runs with and without one, and the health of what they learn."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.trial_encoders import build, train, written

SEEDS = 3
CONFIG = "configs/byol/ecg_ptbxl_small.yaml"
WAYS = {
    "with predictor": ("predictor", ()),
    "without predictor": ("none", ("model.predictor.kind=none",)),
}
"""Folder and settings of each."""
MEASURES = {"rankme": "RankMe", "feature_std": "std of a dimension", "knn_auroc": "kNN AUROC", "probe_auroc": "probe"}
RANDOM = "random_init/"


def collapse(words: argparse.Namespace) -> str:
    """BYOL with its predictor and without: effective rank, spread and probe beside random weights, three seeds."""
    shards = words.output / "shards"
    if not shards.exists():
        build("ecg", ["--input", words.data / "ecg/ptbxl500", "--sampling-rate", "100", "--output", shards])
    found = {}
    for way, (name, settings) in WAYS.items():
        runs = [words.output / name / f"seed-{seed}" for seed in range(SEEDS)]
        for seed, run in enumerate(runs):
            own = argparse.Namespace(**vars(words) | {"set": [*settings, *words.set]})
            train(own, CONFIG, shards, run, seed)
        found[way] = [last_health(run) for run in runs]
    return written(words, f"collapse of BYOL on ptbxl500, {SEEDS} seeds, at the last step", markdown(found))


def last_health(run: Path) -> dict[str, Any]:
    """The last line of health.jsonl."""
    record: dict[str, Any] = json.loads((run / "health.jsonl").read_text().splitlines()[-1])
    return record


def markdown(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """A row for each way, and one for the random weights that all of them start from."""
    lines = [f"| | {' | '.join(MEASURES.values())} | loss |", f"| --- |{' ---: |' * (len(MEASURES) + 1)}"]
    for way, records in found.items():
        cells = [_cell(records, measure) for measure in MEASURES]
        lines.append(f"| {way} | {' | '.join(cells)} | {_cell(records, 'loss')} |")
    first = next(iter(found.values()))
    cells = [_cell(first, RANDOM + measure) for measure in MEASURES]
    lines.append(f"| random weights | {' | '.join(cells)} | |")
    return "\n".join([*lines, "", "Lowest to highest over the seeds; the loss is that of the last step."])


def _cell(records: Sequence[dict[str, Any]], name: str) -> str:
    values = [record[name] for record in records]
    return "not finite" if None in values else f"{min(values):.3g} to {max(values):.3g}"
