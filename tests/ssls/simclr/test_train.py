"""Runs of SimCLR and BYOL as a user starts them."""

import math

import pytest

from src.config import load_config
from src.run.logs import LOGGER
from ssls.objectives import schema_of
from tests.commands import metrics
from tests.config.record_reads import SHORT, experiment
from tests.conftest import ROOT
from tools.parity import STEPS, discrepancies, tensors_at, train

WARNING = "warning: the model has BatchNorm, whose statistics are those of each of 2 micro-batches"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


def config_of(objective, shards, folder, *settings):
    places = [f"data.root={shards}", f"logging.folder={folder}", "evaluation.every=null"]
    path = ROOT / "configs" / objective / "ecg_debug.yaml"
    return load_config(path, [*SHORT, *places, *settings], schema_of)


@pytest.mark.parametrize("objective", ["simclr", "byol"])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["data.micro_batch_size=8"], 1),
        (["data.micro_batch_size=8", "model.projection.norm=layer"], 0),
        ([], 0),
    ],
    ids=["batch norm", "layer norm", "whole"],
)
def test_batchnorm_with_micro_batches_is_told_once(shards, tmp_path, monkeypatch, objective, settings, told):
    monkeypatch.setattr(LOGGER, "handlers", [])
    experiment(config_of(objective, shards, tmp_path / "run", *settings), check=False)
    assert (tmp_path / "run" / "training.log").read_text().count(WARNING) == told


@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_a_record_too_short_for_two_segments_is_named(shards, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(LOGGER, "handlers", [])
    adjacent = ["pairs.positives=adjacent", "model.encoder.length=260"]
    with pytest.raises(ValueError, match=r"sample \S+ is 500 samples long, and pairs.positives adjacent takes two"):
        experiment(config_of(objective, shards, tmp_path / "run", *adjacent), check=True)


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_two_ranks_with_micro_batches_of_two_train_as_one_process(tmp_path):
    """Of what mixes no samples: features of all are contrasted, and the temperature is learned from all."""
    words = ["model.projection.norm=layer", "loss.learn_temperature=true", "pairs.positives=leads"]
    config, root = ROOT / "configs" / "simclr" / "ecg_debug.yaml", tmp_path / "shards"
    one = train(config, root, tmp_path / "one", ["cpu"], words)
    found = discrepancies(one, train(config, root, tmp_path / "two", ["cpu"] * 2, [*words, "data.micro_batch_size=2"]))
    assert found.within, found
    for name in ("one", "two"):
        temperature = metrics(tmp_path / name)[-1]["temperature"]
        learned = tensors_at(tmp_path / name, STEPS)["model", "scale.log_scale"]
        assert temperature == pytest.approx(math.exp(-learned.item()), rel=1e-6) and abs(temperature - 0.1) > 1e-4
