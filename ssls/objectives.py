"""The objectives, found by convention: each is a folder of ssls/ with a config.py and a train.py."""

from __future__ import annotations

import importlib
from pathlib import Path

from src.config.experiment import RunConfig


def schema_of(objective: str) -> type[RunConfig]:
    """The Config class of an objective.

    Raises:
        ValueError: there is no such objective.
    """
    known = sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.py"))
    if objective not in known:
        raise ValueError(f"unknown objective {objective}; there is {', '.join(known)}")
    schema: type[RunConfig] = importlib.import_module(f"ssls.{objective}.config").Config
    return schema
