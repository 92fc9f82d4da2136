"""What the sections of a config are made of: their base class, and the numbers that several of them limit alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def ordered(span: tuple[float, float]) -> tuple[float, float]:
    """The span, if it is one: raises ValueError where low is above high."""
    if span[0] > span[1]:
        raise ValueError(f"must be [low, high] with low <= high, got {list(span)}")
    return span


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Amount = Annotated[float, Field(ge=0.0, le=1000.0)]
Positive = Annotated[float, Field(gt=0.0, le=1000.0)]
Shares = Annotated[tuple[Share, Share], AfterValidator(ordered)]
Gains = Annotated[tuple[Positive, Positive], AfterValidator(ordered)]


class Section(BaseModel):
    """A part of the config: unknown keys, strings for numbers and later changes are refused.

    Defaults are validated too, so that one written 5 for a float is 5.0, as it would be from a file: one run, one hash.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, use_attribute_docstrings=True
    )
