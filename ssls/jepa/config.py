"""What a JEPA experiment may set beyond the common sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.experiment import ExperimentConfig
from src.config.inputs import check_input, check_one_each
from src.config.section import Probability, Section
from src.losses.config import RegularizerConfig
from src.losses.kinds import RegressionKind
from src.masks.config import MaskConfig
from src.models.backbone_config import BackboneConfig
from src.models.config import EncoderConfig, LeadEncoderConfig, PredictorConfig, S4Config, VisionEncoderConfig


class TeacherConfig(Section):
    """Whose features are predicted."""

    kind: Literal["ema", "none"] = "ema"
    """ema: those of an exponential moving average of the encoder, updated after each optimizer step. none: the
    encoder's own, which learns from both sides, as in LeJEPA (arXiv 2511.08544); loss.regularizer keeps them apart."""
    momentum: Probability = 0.996
    """Momentum of the first step; it rises linearly."""
    final_momentum: Probability = 1.0
    """Momentum of the last step."""

    def unused(self) -> list[str]:
        """The keys that were changed from their default but do nothing without a teacher."""
        fields = type(self).model_fields
        changed = [key for key in ("momentum", "final_momentum") if getattr(self, key) != fields[key].default]
        return changed if self.kind == "none" else []


class ModelConfig(Section):
    """Encoder, its teacher, and the predictor."""

    encoder: Annotated[
        EncoderConfig | LeadEncoderConfig | VisionEncoderConfig | S4Config | BackboneConfig, Field(discriminator="name")
    ]
    """None whose features depend on the other samples of a batch, as BatchNorm's do."""
    predictor: PredictorConfig = PredictorConfig()
    teacher: TeacherConfig = TeacherConfig()


class LossConfig(Section):
    """Distance between prediction and the teacher's layer-normalised features, and what keeps features apart."""

    kind: RegressionKind = "smooth_l1"
    """smooth_l1 (beta 1) or l1; averaged over features and target tokens, of padding over none."""
    regularizer: RegularizerConfig | None = None
    """Of the student's features, averaged over the tokens of each view that it has of a sample: those of the context
    under each kind of mask, and without a teacher those of the whole input; padding is no part of them."""


class Config(ExperimentConfig):
    """A JEPA experiment."""

    model: ModelConfig
    mask: MaskConfig = MaskConfig()
    more_masks: tuple[MaskConfig, ...] = ()
    """Other kinds of masks beside `mask`: the student sees each sample once under each, and the loss is their mean."""
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _one_input_that_fits(self) -> Self:
        check_one_each(self.data, self.model.encoder)
        check_input(self.data, self.model.encoder)
        return self

    @model_validator(mode="after")
    def _does_not_collapse(self) -> Self:
        if self.model.teacher.kind == "none" and self.loss.regularizer is None:
            raise ValueError(
                "model.teacher.kind is none, and without loss.regularizer the features that are predicted would become "
                "one constant: set loss.regularizer.kind to sigreg or vicreg, or model.teacher.kind to ema"
            )
        return self

    @model_validator(mode="after")
    def _leads_apart(self) -> Self:
        if self.model.predictor.per_lead and not isinstance(self.model.encoder, LeadEncoderConfig):
            raise ValueError(
                f"model.predictor.per_lead is for encoders whose tokens are of one lead, ecg_lead_*, and "
                f"model.encoder.name is {self.model.encoder.name}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_token_for_each_kind(self) -> Self:
        kinds, tokens = 1 + len(self.more_masks), self.model.predictor.mask_tokens
        if tokens not in (1, kinds):
            raise ValueError(
                f"model.predictor.mask_tokens is {tokens}, but mask and more_masks are {kinds} kinds of masks: set it "
                f"to {kinds}, or to 1, which they share"
            )
        return self
