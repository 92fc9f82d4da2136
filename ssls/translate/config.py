"""What an experiment that translates signals into text may set beyond the common sections."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from src.config.experiment import ExperimentConfig
from src.config.inputs import check_input, check_one_each
from src.config.scores import TestConfig
from src.config.section import Section
from src.config.transforms import TokenizerConfig
from src.models.backbone_config import BackboneConfig
from src.models.config import EncoderConfig, LeadEncoderConfig, ResNetConfig, S4Config, VisionEncoderConfig
from src.models.decoder_config import DecoderConfig

AnyEncoder = Annotated[
    EncoderConfig | LeadEncoderConfig | VisionEncoderConfig | ResNetConfig | S4Config | BackboneConfig,
    Field(discriminator="name"),
]


class ModelConfig(Section):
    """An encoder, and the decoder that writes what its tokens say."""

    encoder: AnyEncoder | None = None
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


class Config(ExperimentConfig):
    """Training of a decoder on reports, with its encoder or on a frozen one."""

    init_from: str | None = None
    """An exported encoder/, a run folder or a checkpoint, whose encoder starts this run; null is from scratch."""
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    evaluation: ValidationConfig = ValidationConfig()  # type: ignore[assignment]
    generation: GenerationConfig = GenerationConfig()
    tests: dict[str, TestConfig] = {}
    """Test sets by name, translated at the end with the weights that the run leaves; the validation split always is."""
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
        if self.model.frozen and self.init_from is None:
            raise ValueError("model.frozen keeps weights that are random without init_from: leave it out")
        return self

    @model_validator(mode="after")
    def _is_judged_on_others(self) -> Self:
        evaluation = self.evaluation
        if self.data.mixture:
            raise ValueError("data.mixture is not for translation, whose reports are those of data.root: leave it out")
        if evaluation.every is None and evaluation.patience is not None:
            raise ValueError("evaluation.patience waits for evaluations, and evaluation.every is null: set it")
        if evaluation.every is not None and evaluation.split == self.data.split:
            raise ValueError(
                f"evaluation.split is {self.data.split}, on which data.split trains: name another, or set "
                "evaluation.every to null"
            )
        for name, test in self.tests.items():
            if not re.fullmatch(r"\w[\w.+ -]*", name) or name == "validation":
                raise ValueError(
                    f"tests: {name!r} can't be the name of a test set: use letters, digits, spaces and . + - _, and "
                    "not validation"
                )
            if test.root is None and test.split == self.data.split:
                raise ValueError(f"tests.{name}.split is {test.split}, on which data.split trains: name another")
        return self
