"""What a fine-tuned classifier scores on test sets: results.json as a probe's, predictions, and the head's weights."""

# N records, K labels or classes

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.identity import identity
from src.engines.engine import Engine
from src.evaluation.encoder import CONFIG, export_folder
from src.evaluation.features import Records, predict
from src.evaluation.results import FORMAT, positives, show, write_predictions
from src.evaluation.targets import Cases
from src.files import replacing_folder, sync
from src.metrics.classification import best_thresholds
from src.run.training import TrainingRun
from src.transforms.plain import AnyPreprocessing
from ssls.finetune.config import Config
from ssls.finetune.labels import Labels
from ssls.finetune.validation import Validation, records_at_once

ROW = "fine-tuned"
Predicted = dict[str, NDArray[np.float32]]


def write_results(
    config: Config,
    run: TrainingRun,
    engine: Engine,
    validation: Validation,
    labels: Labels,
    preprocessing: AnyPreprocessing,
) -> None:
    """Score the test sets with the engine's weights, and leave head/, predictions/ and results.json; all ranks call it.

    results.json comes last, so that whoever finds it finds the rest too; without test sets there is none.
    """
    if run.check:
        return
    thresholds_K = None
    predicted: Predicted = {}
    with run.after_training("in the evaluation of the test sets") as alive:
        if labels.validation is not None and labels.task == "multilabel":
            probability_NK = validation.probabilities(engine, alive).astype(np.float64)
            thresholds_K = best_thresholds(probability_NK, labels.validation.truth_NK, config.evaluation.threshold)
        for name, cases in labels.tests.items():
            records = Records(cases.shards, cases.samples_N, preprocessing, config.evaluation.windows)
            predicted[name] = predict(engine, records, records_at_once(config, run.ranks), run.ranks, alive)
    head = engine.network("head")
    if not run.ranks.first:
        return
    finite = all(np.isfinite(probability_NK).all() for probability_NK in predicted.values())
    tables = score(config, labels, predicted, thresholds_K) if finite else {}
    run.folder.owner.check()
    root = run.folder.root
    (root / "results.json").unlink(missing_ok=True)
    shutil.rmtree(root / "predictions", ignore_errors=True)
    described = json.dumps(describe_head(config, labels, thresholds_K), indent=1) + "\n"
    export_folder(root / "head", head, {CONFIG: described}, run.folder.owner.check)
    if not finite:
        run.say("warning: the model's predictions are not finite, so that nothing is scored: lower optimization.lr")
    elif predicted:
        write_scores(config, run, labels, predicted, tables, thresholds_K)


def describe_head(config: Config, labels: Labels, thresholds_K: NDArray[np.float64] | None) -> dict[str, Any]:
    """What it takes to use the head's weights on the tokens of encoder/."""
    return {
        "task": labels.task,
        "labels": list(labels.target.names),
        "head": config.model.head.model_dump(mode="json"),
        "thresholds": _listed(thresholds_K),
    }


def score(
    config: Config, labels: Labels, predicted: Predicted, thresholds_K: NDArray[np.float64] | None
) -> dict[str, dict[str, Any]]:
    """The table of each test set."""
    from src.metrics.table import score_table  # scipy, and only rank 0 at the end

    return {
        name: score_table(
            labels.task,
            labels.tests[name].targets(labels.task),
            {ROW: [probability_NK]},
            labels.tests[name].patients_N,
            labels=labels.target.names,
            thresholds=None if thresholds_K is None else {ROW: [thresholds_K]},
            groups={column: labels.tests[name].columns[column] for column in config.scores.groups} or None,
            edges=config.scores.edges or None,
            draws=config.scores.draws,
            seed=config.seed,
            level=config.scores.level,
        )
        for name, probability_NK in predicted.items()
    }


def write_scores(
    config: Config,
    run: TrainingRun,
    labels: Labels,
    predicted: Predicted,
    tables: Mapping[str, dict[str, Any]],
    thresholds_K: NDArray[np.float64] | None,
) -> None:
    """predictions/<test set>/ and results.json."""
    with replacing_folder(run.folder.root / "predictions", run.folder.owner.check) as draft:
        for name, probability_NK in predicted.items():
            (draft / name).mkdir()
            write_predictions(draft / name / f"{ROW}.0.csv", labels.tests[name], labels.target, probability_NK)
    results = {
        "format": FORMAT,
        "identity": identity(config) | {"init_from": config.init_from},
        "task": labels.task,
        "labels": list(labels.target.names),
        "rows": [describe_row(config, thresholds_K)],
        "bootstrap": {"draws": config.scores.draws, "level": config.scores.level, "seed": config.seed},
        "data": {} if labels.validation is None else {"validation": describe_cases(labels.validation, labels)},
        "tests": tables,
    }
    with run.folder.replacing(run.folder.root / "results.json") as draft:
        draft.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        sync(draft)
    for name, table in tables.items():
        run.say(show(name, table))


def describe_row(config: Config, thresholds_K: NDArray[np.float64] | None) -> dict[str, Any]:
    """The one row of results.json."""
    return {
        "name": ROW,
        "kind": "encoder",
        "encoders": [] if config.init_from is None else [config.init_from],
        "head": "linear" if config.model.head.pool == "mean" else "attentive",
        "pool": "mean" if config.model.head.pool == "mean" else None,
        "thresholds": [] if thresholds_K is None else [_listed(thresholds_K)],
    }


def describe_cases(cases: Cases, labels: Labels) -> dict[str, Any]:
    return {"records": len(cases), "patients": len(set(cases.patients_N))} | positives(cases, labels.target)


def _listed(values_K: NDArray[np.float64] | None) -> list[float | None] | None:
    return None if values_K is None else [None if np.isnan(value) else float(value) for value in values_K]
