"""Fine-tuning by main.py: begun from a JEPA or from nothing, stopped early, killed, continued, scored."""

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.checkpoints.read import checkpoint_folders, open_checkpoint
from src.config.load import load_config
from src.evaluation.encoder import load_encoder
from src.report.read import read_run
from src.run.logs import LOGGER
from ssls.objectives import schema_of
from tests.commands import (
    FAULTY,
    health,
    lines,
    metrics,
    refuse,
    same_tensors,
    start,
    succeed,
    tensors,
    wait_for_lines,
    wait_until,
)
from tests.config.record_reads import experiment

pytestmark = pytest.mark.distributed
PATIENT = ("evaluation.every=2", "early_stopping.patience=3", "early_stopping.min_delta=1.0")
STOPPED = 8
"""The first evaluation begins, and with such a min_delta three more are without progress."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("finetune") / "shards"


def command(folder, shards, *settings, world_size=1, objective="finetune"):
    own = [f"logging.folder={folder}", f"data.root={shards}", "optimization.epochs=null", "optimization.steps=30"]
    own += ["optimization.warmup_epochs=null", "checkpoint.every=3", "checkpoint.keep_last=1"]
    words = ["--fname", f"configs/{objective}/ecg_debug.yaml", "--devices", *["cpu"] * world_size]
    return [*words, "--set", *own, *settings]


@pytest.fixture(scope="module")
def jepa(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jepa") / "run"
    succeed(*command(folder, shards, "optimization.steps=4", "evaluation.every=null", objective="jepa"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    made = {}

    def run(world_size):
        if world_size not in made:
            made[world_size] = tmp_path_factory.mktemp(f"undisturbed-{world_size}") / "run"
            out = succeed(*command(made[world_size], shards, *PATIENT, world_size=world_size))
            assert f"stopped early after {STOPPED} of 30 steps" in out and f"finished {STOPPED} steps" in out
        return made[world_size]

    return run


def equals(folder, reference):
    assert metrics(folder) == metrics(reference)
    assert health(folder) == health(reference)
    assert same_tensors(folder, reference)
    assert load_encoder(folder).sha256() == load_encoder(reference).sha256()
    assert (folder / "results.json").read_text() == (reference / "results.json").read_text()
    assert (folder / "head" / "model.safetensors").read_bytes() == (reference / "head/model.safetensors").read_bytes()


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_killed_run_stops_early_at_the_same_step_with_the_same_best(undisturbed, shards, tmp_path, world_size):
    words = command(tmp_path, shards, *PATIENT, world_size=world_size)
    process = start(*words, "--fault", "slow_steps", script=FAULTY)
    wait_for_lines(process, tmp_path, 5)
    process.kill()
    process.communicate()
    reference = undisturbed(world_size)
    succeed(*words)
    assert len(lines(tmp_path / "metrics.jsonl")) == STOPPED
    equals(tmp_path, reference)
    again = succeed(*words)
    assert f"finished {STOPPED} steps" in again, "patience is at its end in the checkpoint too"
    equals(tmp_path, reference)


def test_an_evaluation_that_is_broken_off_is_followed_all_the_same(undisturbed, shards, tmp_path):
    """Also where the run is killed after it has made up for it, and before a checkpoint knows of that."""
    words = command(tmp_path, shards, *PATIENT, "data.micro_batch_size=2")
    slow = start(*words, "--fault", "slow_validation", script=FAULTY)
    wait_for_lines(slow, tmp_path, 2)
    time.sleep(0.2)
    slow.send_signal(signal.SIGTERM)
    out, err = slow.communicate(timeout=60)
    assert slow.returncode == 128 + signal.SIGTERM and "stopped after 2 steps" in out, out + err
    assert not health(tmp_path)
    killed = start(*words, "--fault", "slow_steps", script=FAULTY)
    wait_until(lambda: health(tmp_path), 60, "the owed evaluation")
    killed.kill()
    killed.communicate()
    succeed(*words)
    reference = undisturbed(1)
    mine, theirs = health(tmp_path), health(reference)
    assert [line["step"] for line in mine] == [line["step"] for line in theirs] == [1, 3, 5, 7]
    assert [line["best_step"] for line in mine] == [line["best_step"] for line in theirs]
    assert [line["loss"] for line in mine] == pytest.approx([line["loss"] for line in theirs], rel=1e-5)


def test_a_stop_while_test_sets_are_scored_is_answered_and_the_same_command_scores_them(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, *PATIENT)
    process = start(*words, "--fault", "slow_scoring", script=FAULTY)
    told = iter(process.stdout.readline, "")
    assert any(line.endswith("in 3 s\n") for line in told)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err, out + err
    assert f"stopped after {STOPPED} steps, which are saved" in out and not (tmp_path / "results.json").exists()
    succeed(*words)
    equals(tmp_path, undisturbed(1))


def test_two_ranks_learn_and_choose_as_one(undisturbed):
    one, two = undisturbed(1), undisturbed(2)
    for mine, theirs in zip(metrics(two), metrics(one), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert [line["best_step"] for line in health(two)] == [line["best_step"] for line in health(one)]


def test_the_best_weights_are_those_that_are_left(undisturbed):
    """Its checkpoint has outlived keep_last: 1, and what is exported and scored is its."""
    folder = undisturbed(1)
    best = health(folder)[-1]["best_step"]
    scores = {line["step"] + 1: line["auroc"] for line in health(folder)}
    assert best == min(step for step, score in scores.items() if score == max(scores.values()))
    steps = {int(path.name[5:13]) for path in checkpoint_folders(folder / "checkpoints")}
    assert steps == {best, STOPPED}
    exported, at_best = load_encoder(folder).network.state_dict(), tensors(folder, best)
    for name, value in exported.items():
        assert np.array_equal(value, at_best["model", f"encoder.{name}"]), name
    table = json.loads((folder / "results.json").read_text())["tests"]["val"]
    assert table["scores"]["fine-tuned"]["macro"]["auroc"]["value"] == pytest.approx(scores[best], abs=1e-5)


def test_scores_are_those_of_the_predictions(undisturbed):
    folder = undisturbed(1)
    with (folder / "predictions" / "val" / "fine-tuned.0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    score = roc_auc_score([float(row["true fast"]) for row in rows], [float(row["fast"]) for row in rows])
    results = json.loads((folder / "results.json").read_text())
    cell = results["tests"]["val"]["scores"]["fine-tuned"]["macro"]["auroc"]
    assert cell["value"] == pytest.approx(score) and cell["low"] <= cell["value"] <= cell["high"]
    head = json.loads((folder / "head" / "config.json").read_text())
    assert head["labels"] == ["fast"] and head["thresholds"] == results["rows"][0]["thresholds"][0]


def test_the_report_shows_it(undisturbed, tmp_path):
    out = tmp_path / "report.html"
    from tools.report import main

    assert main([str(undisturbed(1)), "--output", str(out)]) == 0
    assert "fine-tuned" in out.read_text() and read_run(undisturbed(1)).finished


def test_a_frozen_encoder_is_the_jepas_to_the_bit(jepa, shards, tmp_path):
    settings = ["model.encoder=null", f"init_from={jepa}", "optimization.steps=4"]
    succeed(*command(tmp_path / "frozen", shards, *settings, "model.freeze=3"))
    theirs = load_encoder(jepa)
    assert load_encoder(tmp_path / "frozen").sha256() == theirs.sha256()
    succeed(*command(tmp_path / "free", shards, *settings))
    assert load_encoder(tmp_path / "free").sha256() != theirs.sha256()


def test_a_run_that_goes_on_does_without_init_from(jepa, shards, tmp_path):
    copy, words = tmp_path / "jepa", ["optimization.steps=12", "model.encoder=null"]
    shutil.copytree(jepa / "encoder", copy / "encoder")
    for name in ("whole", "killed"):
        process = start(
            *command(tmp_path / name, shards, *words, f"init_from={copy}"), "--fault", "slow_steps", script=FAULTY
        )
        if name == "whole":
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
            continue
        wait_for_lines(process, tmp_path / name, 7)
        process.kill()
        process.communicate()
    shutil.rmtree(copy)
    succeed(*command(tmp_path / "killed", shards, *words, f"init_from={copy}"))
    equals(tmp_path / "killed", tmp_path / "whole")
    part = open_checkpoint(checkpoint_folders(tmp_path / "killed" / "checkpoints")[0]).manifest.encoder
    assert part["network"] == "encoder" and part["config"] == load_encoder(jepa).config.model_dump(mode="json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.transform.normalize=sample"], "data.transform.normalize is sample, but the encoder of init_from"),
        (["data.transform.clip=2.0"], "data.transform.clip is 2.0, but the encoder of init_from"),
        (["data.transform.short=pad"], "data.transform.short is pad, but the encoder of init_from"),
        (["model.freeze=9"], "model.freeze is 9, but the encoder has 3 stages: stem, block_0, block_1"),
        (["model.encoder.name=ecg_tiny", "model.encoder.length=200", "model.encoder.patch=10"], "leave model.encoder"),
        (["target.labels=[slow]"], "has no label slow; there is fast"),
        (["evaluation.split=never"], "never"),
        (["target.labels=null", "target.column=heart_rate"], "target.column: heart_rate holds numbers"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_the_encoder_is_refused(jepa, shards, tmp_path, monkeypatch, settings, words):
    monkeypatch.setattr(LOGGER, "handlers", [])
    given = command(tmp_path / "run", shards, "model.encoder=null", f"init_from={jepa}", *settings)
    with pytest.raises(ValueError, match=re.escape(words)):
        experiment(load_config(Path(given[1]), given[given.index("--set") + 1 :], schema_of), False)
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_is_not_there_is_named(shards, tmp_path):
    said = refuse(*command(tmp_path / "run", shards, "model.encoder=null", f"init_from={tmp_path / 'nowhere'}"))
    assert f"{tmp_path / 'nowhere'} holds no encoder" in said
