"""What a SimCLR experiment may set beyond the common sections."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveFloat, model_validator

from src.config.experiment import ExperimentConfig
from src.config.pairs import PairsConfig, check_pairs
from src.config.section import Section
from src.models.any_config import ECGEncoderConfig
from src.models.head_config import ProjectionConfig


class ModelConfig(Section):
    """Encoder and projection."""

    encoder: ECGEncoderConfig
    projection: ProjectionConfig = ProjectionConfig(widths=(2048, 128))
    """The default is SimCLR's behind a ResNet-50."""


class LossConfig(Section):
    """NT-Xent: each view is to be told from all others of the global batch by the other view of its ECG."""

    temperature: PositiveFloat = 0.1
    """What similarities are divided by; where it is learned, at first."""
    learn_temperature: bool = False
    """Learn its logarithm."""
    least_temperature: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """A learned one stays between this and 1."""

    @model_validator(mode="after")
    def _learned_between_bounds(self) -> Self:
        if self.learn_temperature and not self.least_temperature <= self.temperature <= 1.0:
            raise ValueError(
                f"temperature {self.temperature:g} is not between least_temperature {self.least_temperature:g} and 1, "
                "where a learned one stays: change one of them, or leave learn_temperature out"
            )
        return self


class Config(ExperimentConfig):
    """A SimCLR experiment."""

    pairs: PairsConfig = PairsConfig()
    model: ModelConfig
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _pairs_that_fit(self) -> Self:
        check_pairs(self.pairs, self.data, self.model.encoder)
        return self
