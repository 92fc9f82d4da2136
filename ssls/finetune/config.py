"""What a fine-tuning experiment may set beyond the common sections."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.experiment import ExperimentConfig
from src.config.inputs import check_input, check_one_each
from src.config.scores import ScoresConfig, TestConfig
from src.config.section import Section
from src.config.target import TargetConfig
from src.models.backbone_config import BackboneConfig
from src.models.config import EncoderConfig, LeadEncoderConfig, ResNetConfig, S4Config, VisionEncoderConfig

AnyEncoder = Annotated[
    EncoderConfig | LeadEncoderConfig | VisionEncoderConfig | ResNetConfig | S4Config | BackboneConfig,
    Field(discriminator="name"),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class HeadConfig(Section):
    """What makes logits of the encoder's tokens."""

    pool: Literal["mean", "attentive"] = "mean"
    """mean: the mean token; attentive: what a learned query sees of the tokens, as the attentive probe has it."""
    heads: PositiveInt | None = None
    """Of the query's attention, where pool is attentive; null is one for every 64 of the encoder's width."""
    dropout: Share = 0.0
    """Share of the pooled vector that is left out in training, drawn for each sample by itself."""


class ModelConfig(Section):
    """The encoder that goes on learning, and the head on it."""

    encoder: AnyEncoder | None = None
    """Where init_from is null, the encoder that begins with random weights; else it is init_from's, and is left out
    here, or is the same."""
    head: HeadConfig = HeadConfig()
    freeze: NonNegativeInt | tuple[str, ...] = 0
    """Stages of the encoder that do not learn, running statistics of BatchNorm included: so many from the input on, or
    their names: stem, block_0, block_1, ... of transformers and s4; stem, stage_1 to stage_4 of ResNets."""


class FocalConfig(Section):
    """Focal loss (arXiv 1708.02002) of labels: what is told with certainty and right counts little."""

    gamma: NonNegativeFloat = 2.0
    """Power of the probability that is not given to the truth."""
    alpha: PositiveFloat = 1.0
    """From 1 on a factor of all; below 1 that of positives, where negatives have 1 - alpha."""


class LossConfig(Section):
    """Binary cross-entropy of labels, cross-entropy of classes; over known labels."""

    weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    """Of a label's positives, or of a class: numbers in the order of the labels, or counted in data.split: balanced is
    negatives / positives of a label, and records / (classes x records of the class) of a class."""
    weight_clip: Annotated[float, Field(ge=1.0)] = 20.0
    """Balanced weights are at most this, and at least 1 / this."""
    label_smoothing: Share = 0.0
    """Share of the truth that is spread over both answers of a label, or over all classes."""
    focal: FocalConfig | None = None
    """For labels alone."""


class ValidationConfig(Section):
    """What the validation records say while training: health.jsonl, and which weights the run leaves behind."""

    every: PositiveInt | None = 500
    """Steps between evaluations; the last step always has one; null never evaluates, and the last weights are left."""
    split: str = "val"
    """Split that is looked at, all of it; it gives the thresholds of labels too."""
    windows: PositiveInt | None = None
    """Evenly spaced windows of the encoder's length in each record, whose probabilities are averaged, of test sets too;
    null covers the record."""
    metric: Literal["auroc", "loss"] = "auroc"
    """What chooses the best weights, and stops early: macro AUROC, or the cross-entropy without class weights."""
    threshold: Literal["f1", "balanced_accuracy"] = "f1"
    """What the threshold of each label maximises on the validation records."""


class EarlyStoppingConfig(Section):
    """When a run ends before its last step."""

    patience: PositiveInt
    """So many evaluations in a row without progress."""
    min_delta: NonNegativeFloat = 0.0
    """A score that is not better by more than this is no progress."""


class Config(ExperimentConfig):
    """Fine-tuning of an encoder, or its training from random weights, on labels."""

    init_from: str | None = None
    """An exported encoder/, a run folder or a checkpoint, whose encoder starts this run; null is from scratch."""
    target: TargetConfig = TargetConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    evaluation: ValidationConfig = ValidationConfig()  # type: ignore[assignment]
    early_stopping: EarlyStoppingConfig | None = None
    """Null trains to the last step."""
    tests: dict[str, TestConfig] = {}
    """Test sets by name, scored at the end with the weights that the run leaves."""
    scores: ScoresConfig = ScoresConfig()

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
        encoder = self.model.encoder
        if encoder is not None:
            check_one_each(self.data, encoder)
            check_input(self.data, encoder)
        elif self.init_from is None:
            raise ValueError("model.encoder is missing: name one, or set init_from to that of a run")
        if self.model.freeze and self.init_from is None:
            raise ValueError("model.freeze keeps weights as they are, which are random without init_from: leave it out")
        if self.model.head.heads is not None and self.model.head.pool == "mean":
            raise ValueError("model.head.heads is for model.head.pool attentive: leave it out")
        return self

    @model_validator(mode="after")
    def _classifies(self) -> Self:
        if self.target.task == "regression":
            raise ValueError("target.task is regression, but fine-tuning is for labels and classes: use a probe")
        if self.data.mixture:
            raise ValueError("data.mixture is not for fine-tuning, whose labels are those of data.root: leave it out")
        return self

    @model_validator(mode="after")
    def _is_judged_on_others(self) -> Self:
        if self.evaluation.every is None and self.early_stopping is not None:
            raise ValueError("early_stopping waits for evaluations, and evaluation.every is null: set it")
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
            if test.root is None and test.split == self.data.split:
                raise ValueError(f"tests.{name}.split is {test.split}, on which data.split trains: name another")
        for name in self.scores.edges:
            if name not in self.scores.groups:
                raise ValueError(f"scores.edges.{name} cuts a column that scores.groups does not name; add it there")
        return self
