"""A small objective that has every kind of key a config class may have, and a way to load it from text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from src.config import ExperimentConfig, Section, load_config


class Block(Section):
    kind: Literal["block"] = "block"
    size: PositiveInt = 4


class Tube(Section):
    """Masks through time."""

    kind: Literal["tube"]
    length: PositiveInt
    """Frames of a tube."""


class Source(Section):
    root: str
    weight: PositiveFloat = 1


class Model(Section):
    width: PositiveInt = 8
    heads: PositiveInt = 2
    temperature: float | Literal["learned"] = "learned"

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        return self


class Config(ExperimentConfig):
    """A toy experiment."""

    model: Model = Model()
    mask: Annotated[Block | Tube, Field(discriminator="kind")] | None = None
    sources: list[Source] = []
    notes: dict[str, str] = {}


COMPLETE = """\
objective: toy
data: {root: shards, batch_size: 8}
optimization: {steps: 100, lr: 1e-3}
logging: {folder: runs/toy}
"""


def schema_of(objective: str) -> type[Config]:
    if objective != "toy":
        raise ValueError(f"there is no objective {objective}; did you mean toy?")
    return Config


def write(folder: Path, **files: str) -> None:
    """Writes name.yaml for each name."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def load(path: Path, *overrides: str) -> Config:
    config = load_config(path, overrides, schema_of)
    assert isinstance(config, Config)
    return config
