"""Pairs that a config can't have are refused in a sentence that names the key."""

from pathlib import Path

import pytest

from src.config import load_config
from src.config.load import ConfigError
from ssls.objectives import schema_of

ROOT = Path(__file__).resolve().parents[2]
ONE_LEAD = ["data.leads=[II]", "model.encoder.leads=1"]
FILE = """
objective: {}
data: {{root: there, batch_size: 8, transform: {}}}
model: {{encoder: {{name: xresnet1d_50, length: 250}}}}
optimization: {{steps: 4, lr: 1e-3}}
logging: {{folder: there}}
"""
REFUSED = {
    "data.transform.lengths is not for this objective": ["data.transform.lengths=[100, 200]"],
    "pairs.positives is adjacent, which takes two whole": ["pairs.positives=adjacent", "data.transform.short=pad"],
    "pairs.positives is leads, but data.leads has one lead": ["pairs.positives=leads", *ONE_LEAD],
    "set data.transform.vcg.probability to 0": ["pairs.positives=leads", "data.transform.vcg.probability=0.5"],
    "set pairs.second.vcg.probability to 0": ["pairs.positives=leads", "pairs.second.vcg.probability=0.5"],
    "pairs.second.normalize is sample, but data.transform.normalize is dataset": ["pairs.second.normalize=sample"],
    "pairs.second.clip is 5.0, but data.transform.clip is null": ["data.transform.clip=null", "pairs.second={}"],
    "model.encoder.leads is 12, but data.leads names 1": ["data.leads=[II]"],
}


def load(objective, *settings):
    return load_config(ROOT / "configs" / objective / "ecg_debug.yaml", list(settings), schema_of)


@pytest.mark.parametrize("objective", ["simclr", "byol"])
@pytest.mark.parametrize("sentence", REFUSED)
def test_a_pair_that_can_not_be_is_refused(objective, sentence):
    with pytest.raises(ConfigError) as caught:
        load(objective, *REFUSED[sentence])
    assert sentence in str(caught.value)


def other(folder, objective, transform):
    (folder / "other.yaml").write_text(FILE.format(objective, transform))
    return load_config(folder / "other.yaml", [], schema_of)


@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_padding_is_for_encoders_that_know_of_it(objective, tmp_path):
    assert load(objective, "data.transform.short=pad").data.transform.short == "pad"
    with pytest.raises(ConfigError, match="can't be told what is padding"):
        other(tmp_path, objective, "{short: pad}")


@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_what_is_no_ecg_is_refused(objective, tmp_path):
    with pytest.raises(ConfigError, match="data.transform.modality is image, and this objective pairs ECGs alone"):
        other(tmp_path, objective, "{modality: image, size: 32}")


def test_a_learned_temperature_begins_between_its_bounds():
    with pytest.raises(ConfigError, match="temperature 2 is not between least_temperature 0.01 and 1"):
        load("simclr", "loss.temperature=2.0", "loss.learn_temperature=true")
    assert load("simclr", "loss.temperature=2.0").loss.temperature == 2.0
