"""What training on labels or reports has in common: an encoder to begin with, and records to be judged on."""

from __future__ import annotations

import re
from typing import Self

from pydantic import model_validator

from src.config.experiment import ExperimentConfig
from src.config.inputs import check_input, check_one_each
from src.config.scores import TestConfig


class SupervisedConfig(ExperimentConfig):
    """An experiment whose `model.encoder` is that of init_from, or begins with random weights where that is null."""

    init_from: str | None = None
    """An exported encoder/, a run folder or a checkpoint, whose encoder starts this run; null is from scratch."""
    tests: dict[str, TestConfig] = {}
    """Test sets by name, scored at the end with the weights that the run leaves."""

    @property
    def starts_whole_from(self) -> None:
        return None

    @property
    def shards_needed(self) -> dict[str, tuple[str, str]]:
        """Also the validation split and the test sets."""
        data, evaluation = self.data, self.evaluation
        if data.synthetic is not None:
            return super().shards_needed
        held = {} if evaluation.every is None else {"evaluation.split": (data.root, evaluation.split)}
        tests = {f"tests.{name}.split": (test.root or data.root, test.split) for name, test in self.tests.items()}
        return super().shards_needed | held | tests

    @model_validator(mode="after")
    def _one_encoder_that_fits(self) -> Self:
        encoder = self.model.encoder  # type: ignore[attr-defined]
        if encoder is not None:
            check_one_each(self.data, encoder)
            check_input(self.data, encoder)
        elif self.init_from is None:
            raise ValueError("model.encoder is missing: name one, or set init_from to that of a run")
        return self

    @model_validator(mode="after")
    def _is_judged_on_others(self) -> Self:
        if self.data.mixture:
            raise ValueError(
                f"data.mixture is not for {self.objective}, whose labels or reports are those of data.root: leave it "
                "out"
            )
        if self.evaluation.every is not None and self.evaluation.split == self.data.split:
            raise ValueError(
                f"evaluation.split is {self.data.split}, on which data.split trains: name another, or set "
                "evaluation.every to null"
            )
        for name, test in self.tests.items():
            if not re.fullmatch(r"\w[\w.+ -]*", name) or name in ("train", "validation"):
                raise ValueError(
                    f"tests: {name!r} can't be the name of a test set: use letters, digits, spaces and . + - _, and "
                    "neither train nor validation"
                )
            root = (test.root or self.data.root).rstrip("/")
            if (root, test.split) == (self.data.root.rstrip("/"), self.data.split):
                raise ValueError(f"tests.{name}.split is {test.split}, on which data.split trains: name another")
        return self
