"""MECLIP at the size of an archive: the model is built, its overlay trains, and what builds its shards is a command."""

import math
import re
import shlex
from pathlib import Path

import torch
import yaml

from src.config import load_config
from ssls.meclip.model import IDS, MECLIP
from ssls.objectives import schema_of
from tests.commands import lines
from tests.config.record_reads import experiment
from tools.build_shards import parse

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "meclip"


def config_of(name, *settings):
    return load_config(CONFIGS / f"{name}.yaml", list(settings), schema_of)


def test_at_full_size_every_parameter_that_trains_gets_a_gradient():
    """Not on meta: transformers looks at the values of a mask."""
    config, B = config_of("ecg_meclip"), 2
    model, L = MECLIP(config.model, config.loss, config.model.tokenizer.vocabulary), config.model.tokenizer.length
    batch = {"ecg": torch.randn(B, 12, 2500), "text": torch.arange(B * L).view(B, L)}
    batch |= {"text_keep": torch.ones(B, L, dtype=torch.bool), "has_text": torch.ones(B, dtype=torch.bool)}
    batch[IDS] = torch.arange(B)
    features = model(batch)["features"]
    assert features["ecg"].shape == features["text"].shape == (B, 256)
    model(features, mode="contrast")["clip"].backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []


def test_the_overlay_changes_size_data_and_steps_alone_and_trains_in_seconds(tmp_path):
    overlay = yaml.safe_load((CONFIGS / "ecg_meclip_debug.yaml").read_text())
    assert overlay.keys() == {"base", "data", "model", "optimization", "logging"}
    assert overlay["data"].keys() == {"root", "batch_size", "workers", "synthetic"}
    assert overlay["optimization"].keys() == {"epochs"}
    places = [f"logging.folder={tmp_path / 'run'}", f"data.root={tmp_path / 'shards'}"]
    experiment(config_of("ecg_meclip_debug", *places), check=False)
    records = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(records) >= 3 and all(math.isfinite(record["loss"]) for record in records)
    assert all((tmp_path / "run" / name).is_dir() for name in ("encoder", "text", "tokenizer"))


def test_the_command_that_builds_its_shards_is_one():
    text = (CONFIGS / "ecg_meclip.yaml").read_text().replace("\\\n#", "")
    (command,) = re.findall(r"python -m tools\.build_shards (.*?--output \S+)", text)
    assert str(parse(shlex.split(command)).output) == config_of("ecg_meclip").data.root


def test_the_small_recipe_stands_beside_jepas():
    """One table takes one encoder, and the same data."""
    own = config_of("ecg_ptbxl_small")
    jepa = load_config(CONFIGS.parent / "jepa" / "ecg_ptbxl_small.yaml", [], schema_of)
    assert own.model.encoder == jepa.model.encoder and own.data.batch_size == jepa.data.batch_size
    assert own.data.transform == jepa.data.transform
