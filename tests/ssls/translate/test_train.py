"""A translator is trained, learns a few reports by heart, and leaves what writes them again."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config.load import load_config
from src.data.inputs import shards_for
from src.evaluation.writer import load_writer
from src.models.generate import Sampling
from src.run.logs import LOGGER
from ssls.objectives import schema_of
from ssls.translate.train import refuse_known_patients
from ssls.translate.validation import reports_of
from tests.config.record_reads import experiment
from tests.report.conftest import page_of

DEBUG = Path(__file__).resolve().parents[3] / "configs" / "translate" / "ecg_debug.yaml"
STEPS = ["optimization.epochs=null", "optimization.warmup_epochs=null"]


def train(folder, *settings, shards=None):
    places = [f"logging.folder={folder}", f"data.root={shards or folder.parent / 'shards'}"]
    config = load_config(DEBUG, [*places, *STEPS, *settings], schema_of)
    handlers, LOGGER.handlers = LOGGER.handlers, []
    try:
        experiment(config, False)
    finally:
        LOGGER.handlers = handlers
    return folder


HEART = [
    "optimization.steps=400",
    "optimization.warmup_steps=10",
    "optimization.weight_decay=0",
    "data.synthetic.samples=12",
    "data.batch_size=8",
    "data.transform.wander.probability=0",
    "data.transform.noise.probability=0",
    "data.transform.crop=center",
    "evaluation.every=null",
    "checkpoint.every=1000",
    "logging.every=50",
]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Eight reports, learned by heart."""
    return train(tmp_path_factory.mktemp("heart") / "run", *HEART)


def written(run, beams=1, **how):
    writer = load_writer(run)
    shards = shards_for(writer.encoder.preprocessing, run.parent / "shards", "train")
    reports = reports_of(shards, writer.encoder.preprocessing)
    samples = shards.read(reports.records.samples_N)
    return writer.write(reports.records, samples, beams, **how), [text.lower() for text in reports.texts]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_few_reports_are_learned_by_heart(learned, beams):
    texts, references = written(learned, beams)
    assert len(references) >= 6 and len(set(references)) >= 4
    assert texts == references


def test_what_is_drawn_depends_on_the_seed_and_the_sample_alone(learned):
    hot = Sampling(temperature=3.0)
    texts, references = written(learned, sampling=hot, seed=1)
    assert texts == written(learned, sampling=hot, seed=1)[0] != written(learned, sampling=hot, seed=2)[0]
    assert texts != references
    writer = load_writer(learned)
    shards = shards_for(writer.encoder.preprocessing, learned.parent / "shards", "train")
    reports = reports_of(shards, writer.encoder.preprocessing)
    last = shards.read(reports.records.samples_N[-1:])
    assert writer.write(reports.records, last, sampling=hot, seed=1) == texts[-1:]


def test_a_frozen_encoder_is_that_of_the_run_it_comes_from(learned, tmp_path):
    settings = ["optimization.steps=4", "optimization.warmup_steps=0", f"init_from={learned}", "model.encoder=null"]
    run = train(tmp_path / "run", *HEART, *settings, "model.frozen=true", shards=learned.parent / "shards")
    mine, theirs = (load_writer(folder).encoder for folder in (run, learned))
    assert mine.sha256() == theirs.sha256()
    other = train(tmp_path / "other", *HEART, *settings, shards=learned.parent / "shards")
    assert load_writer(other).encoder.sha256() != theirs.sha256()


@pytest.fixture(scope="module")
def learned_a_little(tmp_path_factory):
    """At a learning rate that ends too high: the loss may rise again, and the run returns to its lowest."""
    settings = ["optimization.steps=24", "optimization.warmup_steps=2", "evaluation.every=4", "checkpoint.keep_last=1"]
    high = ["optimization.lr=3e-2", "optimization.final_lr=3e-2", "data.synthetic.samples=24"]
    return train(tmp_path_factory.mktemp("little") / "run", *settings, *high)


def test_the_best_weights_are_left_and_told_of(learned_a_little):
    run = learned_a_little
    health = [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]
    losses = [record["loss_per_token"] for record in health]
    best = health[int(np.argmin(losses))]
    assert best["step"] + 1 == health[-1]["best_step"]
    results = json.loads((run / "results.json").read_text())
    table = results["tests"]["validation"]
    assert table["loss_per_token"] == pytest.approx(min(losses), rel=1e-4)
    for name in ("bleu", "rouge_1", "rouge_2", "rouge_l", "exact"):
        assert table["scores"]["greedy"]["macro"][name]["value"] == pytest.approx(best[name], rel=1e-4)
        assert table["scores"]["constant"]["macro"][name]["value"] == pytest.approx(best[f"constant/{name}"], rel=1e-4)
    with (run / "predictions" / "validation.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == table["records"] == health[-1]["records"]
    assert list(rows[0]) == ["key", "patient_id", "reference", "greedy", "beam"]
    writer = load_writer(run)
    shards = shards_for(writer.encoder.preprocessing, run.parent / "shards", "val")
    reports = reports_of(shards, writer.encoder.preprocessing)
    samples = shards.read(reports.records.samples_N)
    assert [row["reference"] for row in rows] == list(reports.texts)
    assert [row["key"] for row in rows] == [sample["key"] for sample in samples]
    assert [row["greedy"] for row in rows] == writer.write(reports.records, samples)
    assert [row["beam"] for row in rows] == writer.write(reports.records, samples, beams=2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model.encoder=null"], "model.encoder is missing"),
        (["model.frozen=true"], "model.frozen keeps weights that are random"),
        (["evaluation.split=train"], "evaluation.split is train, on which data.split trains"),
        (["evaluation.every=null", "evaluation.patience=2"], "evaluation.patience waits"),
        (["tests.again.split=train"], "tests.again.split is train"),
        (["data.synthetic.reports=false"], "no report"),
        (["model.decoder.heads=3"], "divisible by heads"),
    ],
)
def test_what_can_not_be_is_told_by_its_key(tmp_path, settings, told):
    with pytest.raises(ValueError, match=told):
        train(tmp_path / "run", "optimization.steps=1", *settings)
    assert not (tmp_path / "run").exists()


def test_the_report_shows_the_scores(learned_a_little):
    results = json.loads((learned_a_little / "results.json").read_text())
    page = page_of(learned_a_little)
    for name in ("BLEU", "ROUGE-1", "ROUGE-L", "share of exact texts"):
        assert name in page
    for row in ("greedy", "beam", "constant"):
        cell = results["tests"]["validation"]["scores"][row]["macro"]["rouge_l"]
        assert f"{cell['value']:.3f}" in page


def test_a_run_goes_on_with_no_other_tokenizer(learned, tmp_path):
    folder = shutil.copytree(learned / "tokenizer", tmp_path / "tokenizer")
    settings = ["optimization.warmup_steps=0", f"model.tokenizer.tokenizer={folder}"]
    train(tmp_path / "run", *settings, "optimization.steps=2")
    told = json.loads((folder / "tokenizer.json").read_text())
    ids = told["model"]["vocab"]
    one, other = sorted(ids, key=ids.get)[-2:]
    ids[one], ids[other] = ids[other], ids[one]  # as many tokens as before
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"model.tokenizer is not what .*run has been trained with"):
        train(tmp_path / "run", *settings, "optimization.steps=2")


def test_patients_of_other_splits_are_no_test(learned):
    writer = load_writer(learned)
    train, val = (
        reports_of(shards_for(writer.encoder.preprocessing, learned.parent / "shards", split), None)
        for split in ("train", "val")
    )
    refuse_known_patients({"validation": val, "test": val}, train)
    with pytest.raises(ValueError, match=r"tests.again: \d+ of its patients are in split train too"):
        refuse_known_patients({"again": train}, train)


def test_a_decoder_that_is_not_there_or_damaged_is_told_of(learned, tmp_path):
    with pytest.raises(ValueError, match="is missing: name the run folder of a finished translation"):
        load_writer(tmp_path)
    weights = learned / "decoder" / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:100])
        with pytest.raises(ValueError, match="is damaged"):
            load_writer(learned)
    finally:
        weights.write_bytes(whole)
    assert torch.is_tensor(load_writer(learned).decoder.positions)
