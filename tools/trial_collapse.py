"""Does BYOL need its predictor? The same runs with and without one, and the health of what they learn."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from src.checkpoints.read import checkpoint_folders, open_checkpoint
from src.config.load import load_config
from src.data.inputs import shards_for
from src.evaluation.encoder import load_encoder
from src.models.heads import MLPHead
from ssls.byol.config import Config
from tools.trial_encoders import build, train, written

SEEDS = 3
CONFIG = "configs/byol/ecg_ptbxl_small.yaml"
WAYS = {
    "with predictor": ("predictor", ()),
    "without predictor": ("none", ("model.predictor.kind=none",)),
}
"""Folder and settings of each."""
MEASURES = {"rankme": "RankMe", "feature_std": "std of a dimension", "knn_auroc": "kNN AUROC", "probe_auroc": "probe"}
COSINE = "projection/cosine"
RANDOM = "random_init/"


def collapse(words: argparse.Namespace) -> str:
    """BYOL with its predictor and without: effective rank, spread, probe and projections, three seeds."""
    shards = words.output / "shards"
    if not shards.exists():
        build("ecg", ["--input", words.data / "ecg/ptbxl500", "--sampling-rate", "100", "--output", shards])
    found = {}
    for way, (name, settings) in WAYS.items():
        runs = [words.output / name / f"seed-{seed}" for seed in range(SEEDS)]
        for seed, run in enumerate(runs):
            own = argparse.Namespace(**vars(words) | {"set": [*settings, *words.set]})
            train(own, CONFIG, shards, run, seed)
        found[way] = [last_health(run) | projected(run, shards) for run in runs]
    return written(words, f"collapse of BYOL on ptbxl500, {SEEDS} seeds, at the last step", markdown(found))


def projected(run: Path, root: Path) -> dict[str, float]:
    """What the loss sees of the validation records: the mean cosine between the student's projections of two different
    ones, which is 1 where all have one vector."""
    config = load_config(run / "config.yaml", [], lambda _: Config)
    assert isinstance(config, Config)
    encoder = load_encoder(run)
    shards = shards_for(encoder.preprocessing, root, config.evaluation.split)
    features_NF = encoder.embed_samples(shards.read(np.arange(len(shards))), windows=config.evaluation.windows)
    head = MLPHead(encoder.config.token_width, config.model.projection.widths, config.model.projection.norm).eval()
    checkpoint = open_checkpoint(checkpoint_folders(run / "checkpoints")[0])
    head.load_state_dict(
        {
            name.removeprefix("projection."): checkpoint.read(kind, name, shape)
            for kind, name, shape in checkpoint.shapes()
            if name.startswith("projection.") and kind in ("model", "buffer")
        }
    )
    with torch.no_grad():
        projected_NP = F.normalize(head(torch.from_numpy(features_NF)), dim=1).double()
    cosines_NN = projected_NP @ projected_NP.T
    count = len(projected_NP)
    return {COSINE: float((cosines_NN.sum() - cosines_NN.trace()) / (count * (count - 1)))}


def last_health(run: Path) -> dict[str, Any]:
    """The last line of health.jsonl."""
    record: dict[str, Any] = json.loads((run / "health.jsonl").read_text().splitlines()[-1])
    return record


def markdown(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """A row for each way, and one for the random weights that all of them start from."""
    measures = MEASURES | {COSINE: "cosine of two projections"}
    lines = [f"| | {' | '.join(measures.values())} | loss |", f"| --- |{' ---: |' * (len(measures) + 1)}"]
    for way, records in found.items():
        cells = [_cell(records, measure) for measure in measures]
        lines.append(f"| {way} | {' | '.join(cells)} | {_cell(records, 'loss')} |")
    first = next(iter(found.values()))
    cells = [_cell(first, RANDOM + measure) for measure in MEASURES]
    lines.append(f"| random weights | {' | '.join(cells)} | | |")
    return "\n".join([*lines, "", "Lowest to highest over the seeds; the loss is that of the last step."])


def _cell(records: Sequence[dict[str, Any]], name: str) -> str:
    values = [record[name] for record in records]
    return "not finite" if None in values else f"{min(values):.3g} to {max(values):.3g}"
