"""What a probe may set: whose features, of which records, for which labels, and how the scores are told."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from src.config.attentive import AttentiveConfig
from src.config.data import CacheConfig, check_cache
from src.config.experiment import RunConfig
from src.config.scores import ScoresConfig, TestConfig
from src.config.section import Section
from src.config.target import TargetConfig

Names = tuple[str, ...]


class DataConfig(Section):
    """The records: fitted on `train`, regularisation and thresholds from `validation`, scored on each of `tests`."""

    root: str
    """Folder of tar shards with their index.json (python -m tools.build_shards), or its address (http, s3, gs)."""
    cache: CacheConfig | None = None
    """Needed where data.root or the root of a test set is an address."""
    train: str = "train"
    """Split that the heads are fitted on."""
    validation: str | None = "val"
    """Split that chooses how heads learn (l2; lr and weight decay of attentive ones) and gives thresholds; null takes
    both out of fold from `train`, patients kept together."""
    tests: dict[str, TestConfig] = Field(default={"test": TestConfig()}, min_length=1)
    """Test sets by name."""
    batch_size: PositiveInt = 64
    """Records in one forward of one rank."""

    @model_validator(mode="after")
    def _remote_shards_are_cached(self) -> Self:
        roots = [self.root, *(test.root for test in self.tests.values() if test.root is not None)]
        check_cache(self.cache, roots, "data.root and the roots of data.tests are folders of this machine")
        return self


class FeatureConfig(Section):
    """Which tokens a record has, and how they become one vector; attentive heads take them as they are."""

    pool: Literal["mean", "mean+std", "mean+max", "tokens"] = "mean"
    """Mean over the tokens, with their std or maximum beside it, or all tokens in a row."""
    windows: PositiveInt | None = None
    """Evenly spaced windows of the encoder's length in each record; their vectors are averaged, and for attentive heads
    their tokens are one set. null covers the record."""


class HeadConfig(Section):
    """What reads the frozen tokens."""

    kind: Literal["linear", "attentive"] = "linear"
    """linear: logistic, softmax or ridge regression on pooled tokens, solved to the optimum; attentive: a learned query
    that looks at the tokens, then a linear layer, trained. Rows without tokens have linear heads in any case."""
    l2: tuple[Annotated[float, Field(gt=0.0)], ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Strengths of linear heads to choose from: mean loss + l2 / 2 |weight|^2 on standardised features."""
    attentive: AttentiveConfig = AttentiveConfig()
    criterion: Literal["auto", "auroc", "balanced_accuracy"] = "auto"
    """What chooses; auto: macro AUROC, and R2 for a regression. balanced_accuracy is for classes."""
    balanced: bool = False
    """Weigh records so that each class counts the same."""
    folds: PositiveInt = Field(default=5, ge=2)
    """Folds where there is no validation split."""
    threshold: Literal["f1", "balanced_accuracy"] = "f1"
    """What the threshold of each label maximises on the validation records."""


class RowsConfig(Section):
    """What stands beside the encoder in every table."""

    random_init: bool = True
    """The same architecture with random weights, once for each encoder of init_from."""
    linear: bool = True
    """With head.kind attentive: linear heads on the same encoders too; the difference is what attention adds."""
    raw: Literal["amplitudes", "samples"] | None = None
    """A linear model without any encoder: six amplitude statistics of each lead, or every sample of the signal."""
    scores: dict[str, str] = {}
    """Scores of others by name: CSV files whose first column is id (key or id of a record) or a key of the metadata,
    and which have a column for each label."""
    ceiling: str | None = None
    """One of rows.scores: what could be reached. Which share of the way there from random_init the encoder has gone is
    told as gap_closed."""


class Config(RunConfig):
    """A probe on frozen features, linear or attentive."""

    init_from: str | tuple[str, ...]
    """An exported encoder/, a checkpoint or a run folder; several are seeds of one recipe, scored together."""
    data: DataConfig
    target: TargetConfig = TargetConfig()
    features: FeatureConfig = FeatureConfig()
    head: HeadConfig = HeadConfig()
    rows: RowsConfig = RowsConfig()
    scores: ScoresConfig = ScoresConfig()
    seed: NonNegativeInt = 0
    """Of folds, bootstrap, attentive heads and random encoders (seed, seed + 1, ...)."""

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        taken = {"pretrained", "random_init", "linear", "raw"} & set(self.rows.scores)
        if taken:
            raise ValueError(f"rows.scores: {', '.join(sorted(taken))} is the name of a row of its own; use another")
        if self.rows.ceiling is not None and (self.rows.ceiling not in self.rows.scores or not self.rows.random_init):
            raise ValueError(
                f"rows.ceiling: {self.rows.ceiling} is no row of rows.scores, or rows.random_init is off; it needs both"
            )
        for name in self.scores.edges:
            if name not in self.scores.groups:
                raise ValueError(f"scores.edges.{name} cuts a column that scores.groups does not name; add it there")
        for key, names in (("rows.scores", self.rows.scores), ("data.tests", self.data.tests)):
            for name in names:
                if not re.fullmatch(r"\w[\w.+ -]*", name):
                    raise ValueError(f"{key}: {name!r} names files; use letters, digits, spaces and . + - _")
        return self

    @property
    def shards_needed(self) -> dict[str, tuple[str, str]]:
        """Every split of data.root, and the test sets, wherever they are."""
        data = self.data
        own = {"data.train": data.train} | ({} if data.validation is None else {"data.validation": data.validation})
        tests = {f"data.tests.{name}.split": (test.root or data.root, test.split) for name, test in data.tests.items()}
        return {key: (data.root, split) for key, split in own.items()} | tests

    @property
    def starts_from(self) -> Names:
        return self.encoders

    @property
    def encoders(self) -> Names:
        """The paths of init_from."""
        return (self.init_from,) if isinstance(self.init_from, str) else self.init_from
