"""Sections of heads behind an encoder; free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from src.config.section import Section

HeadNorm = Literal["batch", "layer"]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class ProjectionConfig(Section):
    """The MLP behind the mean token, whose output is compared; it is thrown away after training."""

    widths: Widths
    """Of its layers; the last is the width of what is compared."""
    norm: HeadNorm = "batch"
    """Behind each layer but the last. batch: BatchNorm over the batch of all ranks, as published, which micro-batches
    change. layer: LayerNorm, with which micro-batches change nothing."""
