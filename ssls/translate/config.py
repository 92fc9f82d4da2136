"""What an experiment that translates signals into text may set beyond the common sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from src.config.section import Section
from src.config.supervised import SupervisedConfig
from src.config.transforms import TokenizerConfig
from src.models.any_config import TrainedEncoderConfig
from src.models.decoder_config import DecoderConfig


class ModelConfig(Section):
    """An encoder, and the decoder that writes what its tokens say."""

    encoder: TrainedEncoderConfig | None = None
    """Where init_from is null, the encoder that begins with random weights; else it is init_from's, and is left out
    here, or is the same."""
    frozen: bool = False
    """Whether the encoder keeps the weights of init_from."""
    decoder: DecoderConfig = DecoderConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()


class LossConfig(Section):
    """Cross-entropy of the next token, over all tokens of the reports and the one that ends each."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the truth that is spread over all tokens."""


class ValidationConfig(Section):
    """What the validation records say while training: health.jsonl, and which weights the run leaves behind."""

    every: PositiveInt | None = 500
    """Steps between evaluations; the last step always has one; null never evaluates, and the last weights are left."""
    split: str = "val"
    """Split whose reports are looked at."""
    samples: PositiveInt = 1000
    """At most so many of its records while training; at the end all of them."""
    metric: Literal["loss", "bleu", "rouge_l"] = "loss"
    """What chooses the best weights, and stops early: the cross-entropy of a token, or a score of the greedy texts."""
    patience: PositiveInt | None = None
    """So many evaluations in a row without progress end the run; null trains to the last step."""


class GenerationConfig(Section):
    """How texts are written at the end, beside the greedy ones."""

    beams: PositiveInt = 4
    """Texts of each record that are looked at side by side; 1 writes greedy ones alone."""
    length_penalty: NonNegativeFloat = 1.0
    """A text's log-probability is divided by its number of tokens to this power: more makes longer texts."""


class ScoresConfig(Section):
    """Intervals of the scores at the end."""

    draws: PositiveInt = 1000
    """Bootstrap draws of patients."""
    level: Annotated[PositiveFloat, Field(lt=1.0)] = 0.95


class Config(SupervisedConfig):
    """Training of a decoder on reports, with its encoder or on a frozen one."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    evaluation: ValidationConfig = ValidationConfig()  # type: ignore[assignment]
    generation: GenerationConfig = GenerationConfig()
    scores: ScoresConfig = ScoresConfig()

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.model.frozen and self.init_from is None:
            raise ValueError("model.frozen keeps weights that are random without init_from: leave it out")
        if self.evaluation.every is None and self.evaluation.patience is not None:
            raise ValueError("evaluation.patience waits for evaluations, and evaluation.every is null: set it")
        return self
