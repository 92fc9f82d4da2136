"""Training on ECGs of different lengths does not depend on ranks or micro-batches; what it leaves takes all of them."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from src.config import load_config
from src.data.ecg_shards import ECGShards
from src.evaluation.encoder import load_encoder
from src.report.masks import mask_pictures
from src.report.read import read_run
from src.run.logs import LOGGER
from ssls.objectives import schema_of
from tests.commands import lines
from tests.config.record_reads import experiment
from tests.conftest import ROOT
from tools.parity import discrepancies, train

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
LENGTHS, PROBE = ROOT / "configs" / "jepa" / "ecg_lengths_debug.yaml", ROOT / "configs" / "probe" / "ecg_debug.yaml"
REGULARIZED = ["loss.regularizer.kind=sigreg", "loss.regularizer.directions=32"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "lengths"


def test_two_ranks_with_micro_batches_of_two_train_as_one_process(shards, tmp_path):
    """Of the micro-batches some have no short record, and no mask; counts of targets and rows are uneven."""
    one = train(LENGTHS, shards, tmp_path / "one", ["cpu"], REGULARIZED)
    words = [*REGULARIZED, "data.micro_batch_size=2"]
    found = discrepancies(one, train(LENGTHS, shards, tmp_path / "two", ["cpu"] * 2, words))
    assert found.within, found
    weights = [line["weight/prediction"] for line in lines(one / "metrics.jsonl")]
    assert len(set(weights)) == len(weights), "as many targets as hold signal"
    assert all(line["skipped_steps"] == 0 for line in lines(one / "metrics.jsonl"))


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """A run of four steps with its health."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = [
        "optimization.epochs=null",
        "optimization.warmup_epochs=null",
        "optimization.steps=4",
        "evaluation.every=2",
    ]
    places = [f"data.root={shards}", f"logging.folder={folder}", "evaluation.every=2"]
    experiment(load_config(LENGTHS, [*words, *places], schema_of), check=False)
    return folder


@pytest.fixture(autouse=True)
def no_log_of_other_runs(monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [])


def test_health_and_features_of_a_run(trained, shards):
    health = lines(trained / "health.jsonl")[-1]
    names = ("rankme", "between_samples", "mean_loss", "knn_auroc", "probe_auroc")
    assert all(np.isfinite([health[name], health[f"random_init/{name}"]]).all() for name in names)
    encoder = load_encoder(trained)
    assert encoder.preprocessing.short == "pad"
    with ECGShards(shards, "val", encoder.preprocessing.leads) as held_out:
        samples = held_out.read(np.arange(len(held_out)))
    assert min(sample["ecg"].shape[1] for sample in samples) < 400
    features = encoder.embed_samples(samples)
    assert features.shape == (len(samples), 32) and np.isfinite(features).all()


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_probes_of_a_run(trained, shards, tmp_path, head):
    words = [f"data.root={shards}", f"init_from={trained}", f"logging.folder={tmp_path / 'probe'}", f"head.kind={head}"]
    words += ["head.folds=2", "head.attentive.epochs=1", "scores.draws=20"]
    experiment(load_config(PROBE, words, schema_of), check=False)
    found = json.loads((tmp_path / "probe" / "results.json").read_text())["tests"]
    assert all({"pretrained", "random_init"} <= test["scores"].keys() for test in found.values())


def test_pictures_of_masks_over_short_records(trained):
    """Of the first record of several seeds."""
    run, refused = read_run(trained), 0
    for seed in range(8):
        config = copy.deepcopy(run.config) | {"seed": seed}
        assert len(mask_pictures(replace(run, config=config)).kinds[0].figures) == 3
        config["data"]["transform"]["short"] = "refuse"
        try:
            mask_pictures(replace(run, config=config))
        except ValueError as error:
            refused += str(error) == "The record is shorter than what the encoder takes."
    assert 0 < refused < 8
