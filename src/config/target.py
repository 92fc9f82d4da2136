"""What a probe or a fine-tuning predicts, typed; each default stands here alone."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from src.config.section import Section


class TargetConfig(Section):
    """What is predicted: labels of the index, or a column of the samples' metadata."""

    labels: tuple[str, ...] | None = None
    """Names or patterns such as superclass/*, left out again with !superclass/*; null takes every label."""
    column: str | None = None
    """A key of the metadata instead, age or sex for instance; samples without it are left out."""
    task: Literal["auto", "multilabel", "multiclass", "regression"] = "auto"
    """auto: labels are what their index says; a column of numbers is a regression, one of words has classes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.column is None and self.task == "regression":
            raise ValueError("target.task is regression, which needs target.column")
        if self.column is not None and self.labels is not None:
            raise ValueError("target.labels and target.column can't both be set")
        if self.column is not None and self.task == "multilabel":
            raise ValueError("target.task is multilabel, but target.column is one column")
        return self
