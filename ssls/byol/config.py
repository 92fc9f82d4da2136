"""What a BYOL experiment may set beyond the common sections."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from src.config.experiment import ExperimentConfig
from src.config.pairs import PairsConfig, check_pairs
from src.config.section import Probability, Section
from src.models.any_config import ECGEncoderConfig
from src.models.head_config import ProjectionConfig


class PredictorConfig(Section):
    """What guesses the teacher's projection of the other view from the student's."""

    kind: Literal["mlp", "none"] = "mlp"
    """none compares the projections themselves, which is there to show that they then collapse."""
    hidden: tuple[PositiveInt, ...] = (4096,)
    """Widths of the MLP's layers but the last, which is that of the projection; norms are the projection's too."""

    def unused(self) -> list[str]:
        """The keys that were changed from their default but do nothing without a predictor."""
        changed = self.hidden != type(self).model_fields["hidden"].default
        return ["hidden"] if changed and self.kind == "none" else []


class TeacherConfig(Section):
    """The moving average of encoder and projection, updated after each optimizer step."""

    momentum: Probability = 0.996
    """Momentum of the first step; it rises along half a cosine."""
    final_momentum: Probability = 1.0
    """Momentum of the last step."""


class ModelConfig(Section):
    """Encoder, projection, their teacher, and the predictor."""

    encoder: ECGEncoderConfig
    projection: ProjectionConfig = ProjectionConfig(widths=(4096, 256))
    """The default is BYOL's."""
    predictor: PredictorConfig = PredictorConfig()
    teacher: TeacherConfig = TeacherConfig()


class Config(ExperimentConfig):
    """A BYOL experiment."""

    pairs: PairsConfig = PairsConfig()
    model: ModelConfig

    @model_validator(mode="after")
    def _pairs_that_fit(self) -> Self:
        check_pairs(self.pairs, self.data, self.model.encoder)
        return self
