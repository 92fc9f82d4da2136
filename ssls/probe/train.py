"""What frozen features are worth: heads on them, beside the random encoder's, scored on each test set."""

# N records, F features, K labels, classes or targets

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.inputs import shards_for
from src.distributed.ranks import barrier, broadcast_object
from src.engines.frozen import FrozenEngine
from src.evaluation.encoder import Encoder, load_encoder, random_encoder
from src.evaluation.features import Records, embed
from src.evaluation.raw import raw_features
from src.evaluation.targets import Cases, Target, read_cases, refuse_shared_patients, target_of
from src.metrics.classification import two_classes
from src.metrics.table import score_table
from src.run.run import Run
from ssls.probe.attentive import fit_attentive
from ssls.probe.config import Config
from ssls.probe.heads import Fitted, fit_head, thresholds
from ssls.probe.model import Frozen
from ssls.probe.results import claim, key_column, read_scores, write_results

HELD = ("train", "validation")
Features = dict[str, list[dict[str, NDArray[np.float32]]]]
"""[N, F] by row, encoder and split."""


def main(config: Config, run: Run) -> None:
    """Embed the records with every encoder, fit the heads, score them, write it all down."""
    # Rank 0's on all ranks: a run that still trains may write a checkpoint between two ranks' reading.
    encoders = broadcast_object([load_encoder(path) for path in config.encoders] if run.ranks.first else None)
    target, cases = read_data(config, encoders[0])
    others = {name: read_scores(Path(path), cases, target) for name, path in config.rows.scores.items()}
    if run.check:
        run.say(f"check passed: {describe(config, target, cases)}; the run folder is untouched")
        return
    claim(config, run, cases, encoders)
    run.say(describe(config, target, cases))
    features, rows = embed_all(config, run, encoders, cases, target)
    if run.ranks.first:
        for name, of_row in features.items():
            if name in rows:
                continue
            run.say(f"fitting {len(config.head.l2)} strengths on the features of {name}")
            rows[name] = [fit_head(of_one, cases, target, config.head, config.seed) for of_one in of_row]
        rows |= {name: [as_fitted(scores, cases, target, config)] for name, scores in others.items()}
        write_results(config, run, target, cases, encoders, features, rows, score(config, target, cases, rows))
    barrier()


def read_data(config: Config, encoder: Encoder) -> tuple[Target, dict[str, Cases]]:
    """The task, and the records of each split: train, validation (if there is one) and the test sets by name."""
    data = config.data
    places = {"train": (data.root, data.train)}
    if data.validation is not None:
        places["validation"] = (data.root, data.validation)
    for name, test in data.tests.items():
        if name in HELD:
            raise ValueError(f"data.tests: a test set can't be called {name}; give it another name")
        places[name] = (test.root or data.root, test.split)
    wants = encoder.preprocessing
    shards = {name: shards_for(wants, root, split, data.cache) for name, (root, split) in places.items()}
    target = target_of(shards["train"], config.target)
    keys = [key_column(Path(path)) for path in config.rows.scores.values()]
    columns = dict.fromkeys([*config.scores.groups, *(key for key in keys if key != "id")])
    cases = {name: read_cases(of_split, target, tuple(columns)) for name, of_split in shards.items()}
    held = [cases[name] for name in HELD if name in cases]
    refuse_shared_patients(held, {name: of for name, of in cases.items() if name not in HELD}, "data.tests")
    for column in config.scores.groups:
        if all(value is None for name, of in cases.items() if name not in HELD for value in of.columns[column]):
            raise ValueError(f"scores.groups: no test record has {column} in its json; name another column")
    return target, cases


def describe(config: Config, target: Target, cases: dict[str, Cases]) -> str:
    """What will be done, in a sentence."""
    counts = ", ".join(f"{len(of_split)} of {name}" for name, of_split in cases.items())
    names = ", ".join(target.names[:5]) + (" ..." if len(target.names) > 5 else "")
    return (
        f"{config.objective}: {target.task} of {len(target.names)} ({names})"
        f" with {len(config.encoders)} encoder(s) on {counts}"
    )


def embed_all(
    config: Config, run: Run, encoders: list[Encoder], cases: dict[str, Cases], target: Target
) -> tuple[Features, dict[str, list[Fitted]]]:
    """Features [N, F] by row, encoder and split, on every rank but for the raw ones, which only rank 0 needs; and the
    rows whose heads are attentive, on rank 0: tokens are kept for one encoder at a time."""
    rows = {"pretrained": encoders}
    if config.rows.random_init:
        rows["random_init"] = [random_encoder(like, config.seed + number) for number, like in enumerate(encoders)]
    found: Features = {}
    fitted: dict[str, list[Fitted]] = {}
    for row, of_row in rows.items():
        found[row] = []
        for number, encoder in enumerate(of_row):
            run.say(f"embedding with {row} {number + 1} of {len(of_row)}")
            door = FrozenEngine(Frozen(encoder), config.engine, run.ranks)
            records = {name: records_of(config, encoder, of) for name, of in cases.items()}
            if config.head.kind == "linear":
                found[row].append({name: features_of(config, run, door, of) for name, of in records.items()})
                continue
            pooled, head = fit_attentive(config, run, door, records, cases, target)
            found[row].append(pooled)
            if head is not None:
                fitted.setdefault(row, []).append(head)
    if config.head.kind == "attentive" and config.rows.linear:
        found["linear"] = found["pretrained"]
    if config.rows.raw is not None and run.ranks.first:
        kind, wants = config.rows.raw, encoders[0].preprocessing
        found["raw"] = [{name: raw_features(of.shards, of.samples_N, kind, wants) for name, of in cases.items()}]
    return found, fitted


def records_of(config: Config, encoder: Encoder, cases: Cases) -> Records:
    return Records(cases.shards, cases.samples_N, encoder.preprocessing, config.features.windows)


def features_of(config: Config, run: Run, door: FrozenEngine, records: Records) -> NDArray[np.float32]:
    return embed(door, records, config.features.pool, config.data.batch_size, run.ranks)


def as_fitted(
    scores: dict[str, NDArray[np.float64]], cases: dict[str, Cases], target: Target, config: Config
) -> Fitted:
    """Somebody else's scores as a row, with thresholds from the validation records as for everybody."""
    known = scores.get("validation")
    thresholds_K = None  # and so no metric at a threshold, where the validation records are not all scored
    if target.task == "multilabel" and known is not None:
        thresholds_K = thresholds(known, cases["validation"], config.head)
    return Fitted({name: values for name, values in scores.items() if name not in HELD}, thresholds_K)


def score(
    config: Config, target: Target, cases: dict[str, Cases], rows: dict[str, list[Fitted]]
) -> dict[str, dict[str, Any]]:
    """The table of each test set; the encoder is compared with every other row."""
    tables = {}
    untrained_K = untrained(cases["train"], target)
    for name, of_test in cases.items():
        if name in HELD:
            continue
        hidden_K = untrained_K & two_classes(of_test.truth_NK)
        truth = of_test.targets(target.task)
        tables[name] = score_table(
            target.task,
            np.where(hidden_K, np.nan, truth) if hidden_K.any() else truth,
            {row: [fitted.predictions[name] for fitted in of_row] for row, of_row in rows.items()},
            of_test.patients_N,
            labels=target.names,
            thresholds={
                row: [fitted.thresholds_K for fitted in of_row if fitted.thresholds_K is not None]
                for row, of_row in rows.items()
                if all(fitted.thresholds_K is not None for fitted in of_row)
            }
            if target.task == "multilabel"
            else None,
            pairs=[("pretrained", row) for row in rows if row != "pretrained"],
            gap=None if config.rows.ceiling is None else ("pretrained", "random_init", config.rows.ceiling),
            groups={name: of_test.columns[name] for name in config.scores.groups} or None,
            edges=config.scores.edges or None,
            draws=config.scores.draws,
            seed=config.seed,
            level=config.scores.level,
        )
        for place in np.flatnonzero(hidden_K):
            known = of_test.truth_NK[:, place]
            tables[name]["skipped"][target.names[place]] = "its training records are of one class"
            tables[name]["known"][target.names[place]] = int((~np.isnan(known)).sum())
            tables[name]["positives"][target.names[place]] = int((known == 1).sum())
    return tables


def untrained(train: Cases, target: Target) -> NDArray[np.bool_]:
    """Labels [K] whose training records are of one class: every head predicts a constant, which is worth no score."""
    if target.task != "multilabel":
        return np.zeros(len(target.names), np.bool_)
    return ~two_classes(train.truth_NK)
