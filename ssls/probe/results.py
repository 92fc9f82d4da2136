"""What a probe leaves in its run folder: results.json, predictions, heads, embeddings; and scores that others gave."""

# N records, K labels, classes or targets

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from src.config.load import dump_config
from src.evaluation.attentive import AttentiveHead, Chosen
from src.evaluation.embeddings import save_embeddings
from src.evaluation.encoder import Encoder
from src.evaluation.linear import LinearHead
from src.evaluation.results import FORMAT, macro_scores, positives, show, write_predictions
from src.evaluation.targets import Cases, Target, as_word
from src.files import replace_text
from src.run.belongs import probe_identity, refuse_another_probe
from src.run.environment import environment
from src.run.folder import Attempt
from src.run.logs import Lines
from src.run.run import Run
from ssls.probe.config import Config
from ssls.probe.heads import Fitted

Rows = Mapping[str, list[Fitted]]


def claim(config: Config, run: Run, cases: Mapping[str, Cases], encoders: Sequence[Encoder]) -> None:
    """Take the run folder, unless it holds another probe's results.

    Raises:
        ValueError: it does; names the first key that differs.
    """
    run.claim()
    if not run.ranks.first:
        return
    refuse_another_probe(run.folder, identity(config, cases, encoders))
    replace_text(run.folder.config, dump_config(config))
    run.folder.record_attempt(
        Attempt(
            number=run.attempt,
            start=0,
            checkpoint_every=0,
            world_size=run.ranks.world_size,
            identity=identity(config, cases, encoders),
            data_sha256=cases["train"].shards.sha256,
            environment=environment(),
        )
    )


def identity(config: Config, cases: Mapping[str, Cases], encoders: Sequence[Encoder]) -> dict[str, Any]:
    """What makes two probes the same: the config less what may change, the data and the encoders' weights."""
    return probe_identity(config) | {
        "data_sha256": {name: of_split.shards.sha256 for name, of_split in cases.items()},
        "weights_sha256": [encoder.sha256() for encoder in encoders],
    }


def key_column(path: Path) -> str:
    """The first column of a CSV of scores, by which its records are known.

    Raises:
        ValueError: the file can't be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as Excel writes it, and everybody else
            return next(csv.reader(file), [""])[0]
    except OSError as error:
        raise ValueError(f"rows.scores: {path} can't be read ({error.strerror})") from None


def read_scores(path: Path, cases: Mapping[str, Cases], target: Target) -> dict[str, NDArray[np.float64]]:
    """Scores [N, K] of each split from a CSV: `id` (key or id of a record) or a key of the metadata, then the labels.

    Splits of which it lacks a record are left out, but for the test sets, which it must hold whole.

    Raises:
        ValueError: a column or a record of a test set is missing, or a value is no number.
    """
    key = key_column(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    for column in target.names:
        if not lines or column not in lines[0]:
            raise ValueError(f"rows.scores: {path} has no column {column}; it takes {key or 'id'} and each label")
    try:
        known = {line[key]: [float(line[name]) for name in target.names] for line in lines}
    except (TypeError, ValueError) as error:
        raise ValueError(f"rows.scores: {path} holds something that is no number ({error})") from None
    found = {}
    for name, of_split in cases.items():
        names = zip(of_split.keys, of_split.ids if key == "id" else of_split.columns[key], strict=True)
        rows = [known.get(of_key, known.get(as_word(of_id))) for of_key, of_id in names]
        missing = [of_key for of_key, row in zip(of_split.keys, rows, strict=True) if row is None]
        if not missing:
            found[name] = np.array(rows, np.float64)
        elif name not in ("train", "validation"):
            raise ValueError(
                f"rows.scores: {path} has no score for {len(missing)} of {len(rows)} records of {name}, {missing[0]} "
                f"for one"
            )
    return found


def write_results(
    config: Config,
    run: Run,
    target: Target,
    cases: Mapping[str, Cases],
    encoders: Sequence[Encoder],
    features: Mapping[str, list[dict[str, NDArray[np.float32]]]],
    rows: Rows,
    tables: dict[str, dict[str, Any]],
) -> None:
    """results.json last, so that whoever finds it finds the rest too."""
    root = run.folder.root
    run.folder.owner.check()
    (root / "results.json").unlink(missing_ok=True)
    for folder in ("predictions", "heads"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for name, of_test in cases.items():
        if name in tables:
            write_rows(root / "predictions" / name, of_test, target, rows, name)
    write_heads(root / "heads", rows)
    first = next(iter(tables))
    at_random = features["random_init"][0][first] if "random_init" in features else None
    shown, drawn = cases[first], features["pretrained"][0][first]
    with run.folder.replacing(run.folder.embeddings) as draft:
        save_embeddings(draft, drawn, at_random, shown.truth_NK, target.names, shown.keys)
    results = {
        "format": FORMAT,
        "identity": identity(config, cases, encoders),
        "task": target.task,
        "labels": list(target.names),
        "rows": [describe_row(config, name, of_row, features) for name, of_row in rows.items()],
        "bootstrap": {"draws": config.scores.draws, "level": config.scores.level, "seed": config.seed},
        "data": {
            name: {"records": len(of_split), "patients": len(set(of_split.patients_N))} | positives(of_split, target)
            for name, of_split in cases.items()
            if name not in tables
        },
        "tests": tables,
    }
    replace_text(root / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    for log in (run.folder.metrics, run.folder.health):
        replace_text(log, "")
    Lines(run.folder.metrics).write({"step": 0, **macro_scores(tables)})
    run.wandb.open(0)
    for name, table in tables.items():
        run.say(show(name, table))
    run.say(f"finished; results.json, predictions/ and heads/ are in {root}")


def describe_row(
    config: Config, name: str, of_row: list[Fitted], features: Mapping[str, list[dict[str, NDArray[np.float32]]]]
) -> dict[str, Any]:
    """A row of results.json."""
    linear = [fitted.head for fitted in of_row if isinstance(fitted.head, LinearHead)]
    encoder = name in ("pretrained", "random_init", "linear") and name in features
    return {
        "name": name,
        "kind": "encoder" if encoder else "raw" if name == "raw" else "scores",
        "encoders": list(config.encoders) if encoder and name != "random_init" else [],
        "head": "linear" if linear else "attentive" if encoder else None,
        "pool": config.features.pool if encoder and linear else None,
        "width": features[name][0]["train"].shape[1] if linear else None,
        "l2": [head.l2 for head in linear],
        "converged": all(head.converged for head in linear),
        "search": [describe_search(fitted.search) for fitted in of_row if fitted.search is not None],
        "thresholds": [
            [None if np.isnan(value) else float(value) for value in fitted.thresholds_K]
            for fitted in of_row
            if fitted.thresholds_K is not None
        ],
    }


def describe_search(search: Chosen) -> dict[str, Any]:
    """How the settings of an attentive head scored on the held-out records; null where a probe has diverged."""
    tried = [
        {"lr": setting.lr, "weight_decay": setting.weight_decay, "score": None if math.isnan(score) else score}
        for setting, score in zip(search.settings, search.scores, strict=True)
    ]
    return {"chosen": search.place, "tried": tried}


def write_rows(folder: Path, cases: Cases, target: Target, rows: Rows, test: str) -> None:
    """A CSV of predictions for each row and seed."""
    folder.mkdir(parents=True)
    for name, of_row in rows.items():
        for number, fitted in enumerate(of_row):
            write_predictions(folder / f"{name}.{number}.csv", cases, target, fitted.predictions[test])


def write_heads(folder: Path, rows: Rows) -> None:
    """The heads as safetensors. Linear: logits = ((features - mean) / std) weight^T + bias.

    Attentive: the weights of an `AttentiveProbe` by name, and `mean` and `std` of what a regression predicts.
    """
    folder.mkdir(parents=True)
    for name, of_row in rows.items():
        for number, fitted in enumerate(of_row):
            if fitted.head is not None:
                save_file(tensors_of(fitted.head), folder / f"{name}.{number}.safetensors")


def tensors_of(head: LinearHead | AttentiveHead) -> dict[str, torch.Tensor]:
    if isinstance(head, LinearHead):
        parts = {"mean": head.mean_F, "std": head.std_F, "weight": head.weight_KF, "bias": head.bias_K}
    else:
        parts = {"mean": head.mean_K, "std": head.std_K}
    found = {part: torch.from_numpy(np.ascontiguousarray(values)) for part, values in parts.items()}
    if isinstance(head, AttentiveHead):
        found |= {part: tensor.cpu().contiguous() for part, tensor in head.probe.state_dict().items()}
    return found
