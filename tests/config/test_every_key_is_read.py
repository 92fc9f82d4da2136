"""A key of the config that no code reads is a promise that nobody keeps: every one is read while experiments run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from src.config import Section, load_config
from src.run.logs import LOGGER
from ssls.jepa.config import Config
from ssls.objectives import schema_of
from tests.config.record_reads import experiment, name_of, recorded

ROOT = Path(__file__).resolve().parents[2]
OBJECTIVES = sorted(path.parent.name for path in (ROOT / "ssls").glob("*/config.py"))
UNREAD = {
    "model.encoder.name": "of sections that have one name alone it only tells them apart",
    "model.text.name": "it only tells the sections apart",
    "loss.regularizer.kind": "it only tells the sections apart",
}
"""Dotted keys that may stay unread, each with its reason."""


def sections_in(annotation: Any) -> set[type[Section]]:
    """The section classes that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return {section for part in get_args(annotation) for section in sections_in(part)}


def fields(schema: type[Section]) -> dict[tuple[str, str], str]:
    """Every key below a config class: (section class, field) and its dotted name; a section itself is no key."""
    found = {}
    for name, field in schema.model_fields.items():
        below = sections_in(field.annotation)
        if not below:
            found[name_of(schema), name] = name
        for section in below:
            found |= {key: f"{name}.{dotted}" for key, dotted in fields(section).items()}
    return found


def unread(schema: type[Section], reads: set[tuple[str, str]]) -> list[str]:
    """The dotted names of the keys that nothing read."""
    return [dotted for key, dotted in fields(schema).items() if key not in reads]


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> set[tuple[str, str]]:
    """What is read while small experiments of every objective run; a process of their own, as W&B keeps state."""
    folder = tmp_path_factory.mktemp("reads")
    words = [sys.executable, "-m", "tests.config.record_reads", str(folder / "reads.json"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return {(section, field) for section, field in json.loads((folder / "reads.json").read_text())}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_key_is_read_by_some_code(reads, objective):
    missed = [key for key in unread(schema_of(objective), reads) if key not in UNREAD]
    assert not missed, f"no experiment of tests/config/record_reads.py reads {missed}: use them or remove them"


def test_exceptions_are_still_needed(reads):
    assert set(UNREAD) <= {key for objective in OBJECTIVES for key in unread(schema_of(objective), reads)}


class Inner(Section):
    used: int = 1
    forgotten: int = 1


class Extended(Config):
    """A config with keys that no code reads, however often they are declared, checked or dumped."""

    forgotten: int = 1
    inner: Inner = Inner()

    @property
    def half(self) -> float:
        return self.inner.used / 2

    def model_post_init(self, _: Any) -> None:
        assert self.forgotten == 1


def test_a_key_that_nobody_reads_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [])
    settings = [f"logging.folder={tmp_path / 'run'}", f"data.root={tmp_path / 'shards'}"]
    with recorded() as reads:
        config = load_config(ROOT / "configs" / "jepa" / "ecg_debug.yaml", settings, lambda _: Extended)
        experiment(config, check=True)
        config.model_dump()
        assert config.forgotten == 1 and config.half == 0.5, "a test is no use of a key"
    missed = unread(Extended, reads)
    assert {"forgotten", "inner.used", "inner.forgotten"} <= set(missed)
    assert not {"seed", "data.root", "model.predictor.width", "optimization.lr", "logging.folder"} & set(missed)


def test_a_property_counts_for_who_asks_for_it(monkeypatch):
    """The width of an encoder is read by its section's `size`, which the model asks for."""
    from src.models.build import build_encoder
    from src.models.config import EncoderConfig

    with recorded() as reads:
        config = EncoderConfig(name="ecg_tiny", length=40, patch=10)
        assert (name_of(EncoderConfig), "width") not in reads, "the section's own check has read it"
        build_encoder(config)
    assert {(name_of(EncoderConfig), field) for field in ("width", "depth", "heads", "length", "patch")} <= reads
