"""What a translator leaves beside its encoder: decoder/, tokenizer/, and of each test set texts and their scores."""

# N records

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.config.identity import identity
from src.engines.engine import Engine
from src.evaluation.results import cell_text
from src.evaluation.writer import DECODER, TOKENIZER, export_decoder
from src.files import replacing_folder, sync
from src.metrics.bootstrap import Interval
from src.metrics.translation import measure, translation_intervals
from src.models.decoder import Decoder
from src.run.training import TrainingRun
from src.text.tokenize import Tokenize
from ssls.translate.config import Config
from ssls.translate.validation import Reports, Translation

FORMAT = 1
"""A probe's, which the report reads."""


def write_results(
    config: Config,
    run: TrainingRun,
    engine: Engine,
    decoder: Decoder,
    tokenize: Tokenize,
    translation: Translation,
    held_out: Mapping[str, Reports],
    constant: str,
) -> None:
    """Translate the records that are held out, and leave decoder/, tokenizer/, predictions/ and results.json.

    All ranks call it. results.json comes last, so that whoever finds it finds the rest too.
    """
    if run.check:
        return
    modes = ("greedy", "beam") if config.generation.beams > 1 else ("greedy",)
    with run.after_training("in the translation of what is held out") as alive:
        written = {
            name: {mode: translation.write(engine, reports, mode, alive) for mode in modes}
            for name, reports in held_out.items()
        }
        losses = {name: translation.loss(engine, reports, alive) for name, reports in held_out.items()}
    weights = engine.network("decoder")
    if not run.ranks.first:
        return
    if not all(map(math.isfinite, losses.values())):
        run.say("warning: the model's loss is not finite, so that nothing is written: lower optimization.lr")
        return
    tests = {}
    for name, reports in held_out.items():
        rows = {**written[name], "constant": [constant] * len(reports.texts)}
        tests[name] = {"records": len(reports.texts), "loss_per_token": losses[name]} | score(config, rows, reports)
    root, allowed = run.folder.root, run.folder.owner.check
    allowed()
    (root / "results.json").unlink(missing_ok=True)
    export_decoder(root / DECODER, weights, decoder, allowed)
    with replacing_folder(root / TOKENIZER, allowed) as draft:
        tokenize.save(draft)
    with replacing_folder(root / "predictions", allowed) as draft:
        for name, reports in held_out.items():
            write_predictions(draft / f"{name}.csv", reports, written[name])
    results = {
        "format": FORMAT,
        "identity": identity(config) | {"init_from": config.init_from},
        "task": "translation",
        "rows": [{"name": name, "kind": "scores" if name == "constant" else "texts"} for name in (*modes, "constant")],
        "generation": config.generation.model_dump(mode="json"),
        "constant": constant,
        "bootstrap": {"draws": config.scores.draws, "level": config.scores.level, "seed": config.seed},
        "tests": tests,
    }
    with run.folder.replacing(root / "results.json") as draft:
        draft.write_text(json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
        sync(draft)
    for name, table in tests.items():
        run.say(show(name, table))


def write_predictions(path: Path, reports: Reports, written: Mapping[str, list[str]]) -> None:
    """A CSV with each record's key, patient, report, and the text of each way to write."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "patient_id", "reference", *written])
        for told, reference, *texts in zip(reports.about, reports.texts, *written.values(), strict=True):
            table.writerow([told.key, told.patient, reference, *texts])


def score(config: Config, rows: Mapping[str, list[str]], reports: Reports) -> dict[str, Any]:
    """BLEU and ROUGE of each row with intervals over patients, laid out as a probe's scores for the report."""
    draws, level, patients = config.scores.draws, config.scores.level, reports.patients_N.tolist()
    scores: dict[str, dict[str, Any]] = {}
    for row, texts in rows.items():
        found = translation_intervals(measure(texts, reports.texts), patients, draws, config.seed, level)
        scores[row] = {"macro": {name: _as_cell(value) for name, value in found.items()}}
    return {"patients": len(set(patients)), "scores": scores}


def _as_cell(found: Interval) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "seeds"}


def show(test: str, table: Mapping[str, Any]) -> str:
    """A test set's scores as lines of text."""
    lines = [
        f"{test}: {table['records']} records of {table['patients']} patients, loss of a token "
        f"{table['loss_per_token']:.4f}"
    ]
    for row, scores in table["scores"].items():
        cells = [f"{name} {cell_text(cell)}" for name, cell in scores["macro"].items()]
        lines.append(f"  {row:<9} {'  '.join(cells)}")
    return "\n".join(lines)
