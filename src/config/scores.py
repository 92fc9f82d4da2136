"""On which records encoders are scored, and how the scores are told, typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from src.config.section import Section


class TestConfig(Section):
    """Records to be scored on."""

    __test__ = False  # to pytest

    root: str | None = None
    """Folder or address of shards; null is data.root. Another hospital's, for instance, with the same labels."""
    split: str = "test"


class ScoresConfig(Section):
    """How scores and intervals are told."""

    draws: PositiveInt = 1000
    """Bootstrap draws of patients."""
    level: Annotated[PositiveFloat, Field(lt=1.0)] = 0.95
    """Of the intervals."""
    groups: tuple[str, ...] = ()
    """Columns of the metadata by which scores are told apart: sex, age, site, ..."""
    edges: dict[str, tuple[NonNegativeFloat, ...]] = {}
    """Where a column of numbers is cut, age: [40, 60, 75]; without edges at its quartiles, few values stay as they
    are."""
