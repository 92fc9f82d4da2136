"""SimCLR and BYOL with published settings: as large as the arithmetic says, and their overlays train."""

import math
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from src.config import load_config
from ssls.byol.model import BYOL
from ssls.objectives import schema_of
from ssls.simclr.model import SimCLR
from tests.commands import lines
from tests.config.record_reads import experiment
from tools.build_shards import parse

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAME = "ecg_mehari_xresnet50"
both = pytest.mark.parametrize("objective", ["simclr", "byol"])


def config_of(objective, name=NAME, *settings):
    return load_config(CONFIGS / objective / f"{name}.yaml", list(settings), schema_of)


def on_meta(config):
    with torch.device("meta"):
        return BYOL(config.model) if config.objective == "byol" else SimCLR(config.model, config.loss)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolutions(leads):
    """Parameters of an xresnet1d50 by arithmetic: each convolution [out, in, kernel] with scale and shift of a norm."""
    shapes = [(32, leads, 5), (32, 32, 5), (64, 32, 5)]
    channels = 64
    for depth in (3, 4, 6, 3):
        for block in range(depth):
            shapes += [(64, channels, 1), (64, 64, 5), (256, 64, 1)]
            shapes += [(256, channels, 1)] if channels != 256 and not block else []
            channels = 256
    return sum(width * inner * kernel + 2 * width for width, inner, kernel in shapes)


@both
def test_the_models_are_as_large_as_published(objective):
    model, config = on_meta(config_of(objective)), config_of(objective)
    assert config.model.encoder.sides == (250,) and config.model.encoder.name == "xresnet1d_50"
    assert config.data.transform.resized_crop.scale == (0.5, 1.0)
    assert config.data.transform.time_out.fraction == (0.0, 0.5)
    assert count(model.get_submodule("student" if objective == "byol" else "encoder")) == convolutions(12)
    if objective == "simclr":
        assert count(model.projection) == 256 * 256 + 2 * 256 + 256 * 128
        assert config.loss.temperature == 0.1
    else:
        assert count(model.projection) == 256 * 4096 + 2 * 4096 + 4096 * 256
        assert count(model.predictor) == 256 * 4096 + 2 * 4096 + 4096 * 256
        assert (config.model.teacher.momentum, config.model.teacher.final_momentum) == (0.996, 1.0)


@both
def test_at_full_size_every_parameter_that_trains_gets_a_gradient(objective):
    model = on_meta(config_of(objective))
    batch = {name: torch.empty(4, 12, 250, device="meta") for name in ("first", "second")}
    found = model(batch)
    values = found["features"].values() if objective == "simclr" else found.values()
    torch.stack([value.sum() for value in values]).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []


@both
def test_an_overlay_changes_size_data_and_steps_alone_and_trains_in_seconds(objective, tmp_path):
    overlay = yaml.safe_load((CONFIGS / objective / f"{NAME}_debug.yaml").read_text())
    assert overlay.keys() == {"base", "data", "model", "optimization", "logging"}
    assert overlay["data"].keys() == {"root", "batch_size", "workers", "synthetic"}
    assert overlay["optimization"].keys() == {"epochs", "warmup_epochs"}
    places = [f"logging.folder={tmp_path / 'run'}", f"data.root={tmp_path / 'shards'}"]
    experiment(config_of(objective, f"{NAME}_debug", *places), check=False)
    records = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(records) >= 3 and all(math.isfinite(record["loss"]) for record in records)
    assert (tmp_path / "run" / "encoder" / "model.safetensors").is_file()


@both
def test_the_command_that_builds_its_shards_is_one(objective):
    text = (CONFIGS / objective / f"{NAME}.yaml").read_text()
    (command,) = re.findall(r"python -m tools\.build_shards (.*?--output \S+)", text)
    assert str(parse(shlex.split(command)).output) == config_of(objective).data.root


@both
@pytest.mark.parametrize("name", ["ecg_ptbxl_small", "ecg_mitdb_small"])
def test_small_recipes_stand_beside_jepas(objective, name):
    """One table takes one encoder, and the same data."""
    own, jepa = config_of(objective, name), config_of("jepa", name)
    assert own.model.encoder == jepa.model.encoder
    assert (own.data.batch_size, own.data.leads) == (jepa.data.batch_size, jepa.data.leads)
    assert (own.optimization.steps, own.optimization.epochs) == (jepa.optimization.steps, jepa.optimization.epochs)
    assert own.data.transform.normalize == jepa.data.transform.normalize
    assert own.data.transform.clip == jepa.data.transform.clip
