"""What a fine-tuning experiment may set beyond the common sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.scores import ScoresConfig
from src.config.section import Section
from src.config.supervised import SupervisedConfig
from src.config.target import TargetConfig
from src.models.any_config import TrainedEncoderConfig

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

    encoder: TrainedEncoderConfig | None = None
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


class Config(SupervisedConfig):
    """Fine-tuning of an encoder, or its training from random weights, on labels."""

    target: TargetConfig = TargetConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    evaluation: ValidationConfig = ValidationConfig()  # type: ignore[assignment]
    early_stopping: EarlyStoppingConfig | None = None
    """Null trains to the last step."""
    scores: ScoresConfig = ScoresConfig()

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.model.freeze and self.init_from is None:
            raise ValueError("model.freeze keeps weights as they are, which are random without init_from: leave it out")
        if self.model.head.heads is not None and self.model.head.pool == "mean":
            raise ValueError("model.head.heads is for model.head.pool attentive: leave it out")
        return self

    @model_validator(mode="after")
    def _classifies(self) -> Self:
        if self.target.task == "regression":
            raise ValueError("target.task is regression, but fine-tuning is for labels and classes: use a probe")
        return self

    @model_validator(mode="after")
    def _scores_go_together(self) -> Self:
        if self.evaluation.every is None and self.early_stopping is not None:
            raise ValueError("early_stopping waits for evaluations, and evaluation.every is null: set it")
        for name in self.scores.edges:
            if name not in self.scores.groups:
                raise ValueError(f"scores.edges.{name} cuts a column that scores.groups does not name; add it there")
        return self
