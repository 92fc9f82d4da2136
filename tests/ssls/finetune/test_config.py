"""What a fine-tuning config refuses, each with the key and what to do."""

from pathlib import Path

import pytest

from src.config import load_config
from ssls.objectives import schema_of

DEBUG = Path(__file__).resolve().parents[3] / "configs" / "finetune" / "ecg_debug.yaml"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.encoder=null"], "model.encoder is missing: name one, or set init_from"),
        (["model.freeze=1"], "model.freeze keeps weights as they are, which are random without init_from"),
        (["model.head.heads=2"], "model.head.heads is for model.head.pool attentive"),
        (
            ["target.task=regression", "target.labels=null", "target.column=age"],
            "fine-tuning is for labels and classes",
        ),
        (["data.mixture.other.root=x"], "data.mixture is not for finetune"),
        (["evaluation.every=null", "early_stopping.patience=3"], "early_stopping waits for evaluations"),
        (["evaluation.split=train"], "evaluation.split is train, on which data.split trains"),
        (["tests.val.split=train"], "tests.val.split is train, on which data.split trains"),
        (["tests.train.split=val"], "'train' can't be the name of a test set"),
        (["scores.edges.age=[40]"], "scores.edges.age cuts a column that scores.groups does not name"),
        (["data.transform.short=pad", "model.encoder.name=resnet1d_18"], "model.encoder"),
        (["data.transform.lengths=[200,400]"], "data.transform.lengths is not for this objective"),
        (["data.leads=[I,II]"], "model.encoder.leads is 12, but data.leads names 2"),
        (["optimization.layer_decay=0"], "optimization.layer_decay"),
        (["loss.weight_clip=0.5"], "loss.weight_clip"),
        (["model.head.dropout=1.0"], "model.head.dropout"),
        (["early_stopping.patience=0"], "early_stopping.patience"),
        (["loss.weights=[1.0,-1.0]"], "loss.weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_misuse_is_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        load_config(DEBUG, settings, schema_of)


def test_init_from_names_an_encoder_and_not_a_whole_run():
    config = load_config(DEBUG, ["init_from=runs/a"], schema_of)
    assert config.starts_from == ("runs/a",) and config.starts_whole_from is None


def test_all_splits_are_asked_for_before_a_job_is_sent():
    config = load_config(DEBUG, ["data.synthetic=null", "tests.far.root=elsewhere"], schema_of)
    assert config.shards_needed == {
        "data.split": ("shards/ecg_debug", "train"),
        "evaluation.split": ("shards/ecg_debug", "val"),
        "tests.val.split": ("shards/ecg_debug", "val"),
        "tests.far.split": ("elsewhere", "test"),
    }
