"""Which changes make another run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from src.config import ABSENT, config_hash, dump_config, first_difference, identity
from src.config.identity import SECTIONS, completed
from tests.config.toy import COMPLETE, Config, Source, load, write

FREE = [
    "data.root=elsewhere",
    "data.workers=4",
    "data.micro_batch_size=2",
    "engine.name=ddp",
    "engine.precision=bf16",
    "checkpoint.every=7",
    "logging.folder=elsewhere",
    "logging.every=1",
    "init_from=runs/old",
]
BOUND = {
    "seed=1": ("seed", 0, 1),
    "data.batch_size=16": ("data.batch_size", 8, 16),
    "data.leads=[I]": ("data.leads", None, ["I"]),
    "data.transform.noise.std=1": ("data.transform.noise.std", 0.02, 1.0),
    "data.synthetic.seed=1": ("data.synthetic", None, None),
    "model.width=16": ("model.width", 8, 16),
    "mask.kind=block": ("mask", None, {"kind": "block", "size": 4}),
    "optimization.lr=2e-3": ("optimization.lr", 1e-3, 2e-3),
}


def config_of(folder: Path, *overrides: str) -> Config:
    write(folder, experiment=COMPLETE)
    return load(folder / "experiment.yaml", *overrides)


@pytest.mark.parametrize("override", FREE)
def test_what_may_change_on_a_resume_does_not_change_the_hash(tmp_path: Path, override: str) -> None:
    old, new = config_of(tmp_path), config_of(tmp_path, override)
    assert old != new
    assert config_hash(old) == config_hash(new)
    assert first_difference(identity(old), identity(new)) is None


@pytest.mark.parametrize("override", BOUND)
def test_what_is_learned_from_changes_the_hash_and_is_named(tmp_path: Path, override: str) -> None:
    old, new = config_of(tmp_path), config_of(tmp_path, override)
    assert config_hash(old) != config_hash(new)
    difference = first_difference(identity(old), identity(new))
    assert difference is not None
    key, before, after = BOUND[override]
    assert difference[0] == key
    assert before is None or difference[1] == before
    assert after is None or difference[2] == after


def test_every_section_of_an_objective_is_part_of_the_run_or_is_said_to_be_free() -> None:
    judged = {"evaluation", "early_stopping", "tests", "scores", "generation"}  # what is made of the weights
    free = {"engine", "logging", "checkpoint", "init_from", *judged}
    objectives = [path.parent.name for path in Path("ssls").glob("*/config.py") if path.parent.name != "probe"]
    assert objectives  # a probe is not resumed, and has an identity of its own
    for name in objectives:
        sections = set(importlib.import_module(f"ssls.{name}.config").Config.model_fields)
        assert sections <= {*SECTIONS, *free}, (name, sections - {*SECTIONS, *free})


def test_an_earlier_run_has_the_defaults_of_keys_that_came_later(tmp_path: Path) -> None:
    config, other = config_of(tmp_path), config_of(tmp_path, "optimization.clip=3.0", "data.workers=3")
    earlier = json.loads(json.dumps(identity(config)))
    del earlier["optimization"]["clip"], earlier["data"]["transform"]["noise"]
    assert first_difference(completed(earlier, config), identity(config)) is None
    assert first_difference(completed(earlier, other), identity(other)) == ("optimization.clip", None, 3.0)
    earlier["model"]["gone"] = 1
    assert completed(earlier, config) == earlier, "what is not valid any more stays as it is"


def test_a_folder_of_a_mixture_may_move_but_its_split_and_weight_are_part_of_the_run(tmp_path: Path) -> None:
    here = config_of(tmp_path, "data.mixture.clinic.root=here")
    moved = config_of(tmp_path, "data.mixture.clinic.root=there")
    heavier = config_of(tmp_path, "data.mixture.clinic.root=there", "data.mixture.clinic.weight=2")
    earlier = json.loads(json.dumps(identity(here)))
    assert first_difference(completed(earlier, moved), identity(moved)) is None
    del earlier["data"]["mixture"]["clinic"]["split"]
    assert first_difference(completed(earlier, moved), identity(moved)) is None
    assert first_difference(completed(earlier, heavier), identity(heavier)) == ("data.mixture.clinic.weight", 1.0, 2.0)
    assert config_hash(here) == config_hash(moved) != config_hash(config_of(tmp_path))


def test_a_mixture_behind_an_address_has_the_defaults_of_later_keys_too(tmp_path: Path) -> None:
    remote = ["data.mixture.clinic.root=https://a/b", "data.cache.folder=c", "data.cache.size=1"]
    config = config_of(tmp_path, *remote)
    earlier = json.loads(json.dumps(identity(config)))
    del earlier["data"]["balance"]
    assert first_difference(completed(earlier, config), identity(config)) is None


def test_a_mixture_does_not_train_on_what_is_held_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.mixture\.clinic would train on split val of data\.root"):
        config_of(tmp_path, "data.mixture.clinic={root: shards/, split: val}", "data.root=shards")


def test_hash_is_the_same_for_a_default_and_the_same_value_written_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, "sources=[{root: a}]")
    write(tmp_path, resolved=dump_config(config))
    assert config_hash(load(tmp_path / "resolved.yaml")) == config_hash(config)
    assert config_hash(config_of(tmp_path, "data.transform.clip=5")) == config_hash(config_of(tmp_path))


def test_whole_default_of_a_float_key_is_a_float() -> None:
    """`weight: PositiveFloat = 1` in the class and `weight: 1` in a file are one run."""
    assert isinstance(Source(root="a").weight, float)


def test_identity_survives_json_and_another_order_of_keys(tmp_path: Path) -> None:
    old = identity(config_of(tmp_path))
    again = json.loads(json.dumps(old, sort_keys=True))
    assert first_difference(old, again) is None
    changed = {**again, "seed": 5, "data": {**again["data"], "split": "test"}}
    assert first_difference(old, changed) == ("seed", 0, 5)
    assert first_difference(dict(reversed(old.items())), changed) == ("seed", 0, 5)


def test_missing_key_is_told_as_absent() -> None:
    assert first_difference({"model": {"depth": 3}}, {"model": {}}) == ("model.depth", 3, ABSENT)
    assert first_difference({}, {"mask": None}) == ("mask", ABSENT, None)
    assert first_difference({"split": ABSENT}, {}) is not None
    assert first_difference({}, {}) is None
