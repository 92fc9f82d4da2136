"""What a MECLIP experiment may set beyond the common sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from src.config.ecg_transforms import ECGTransformConfig
from src.config.experiment import ExperimentConfig
from src.config.inputs import check_input, check_one_each
from src.config.section import Section, Share
from src.config.transforms import TokenizerConfig
from src.losses.kinds import Duplicates
from src.models.config import EncoderConfig, LeadEncoderConfig, ResNetConfig, S4Config
from src.models.text_config import AnyTextConfig, JointHeadConfig

Temperature = Annotated[float, Field(ge=0.01, le=1.0)]


class ModelConfig(Section):
    """An encoder of ECGs, one of their reports, and what maps both into one space."""

    encoder: Annotated[EncoderConfig | LeadEncoderConfig | ResNetConfig | S4Config, Field(discriminator="name")]
    """The vector of an ECG is the mean of its tokens."""
    text: AnyTextConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    ecg_head: JointHeadConfig = JointHeadConfig()
    text_head: JointHeadConfig = JointHeadConfig()
    temperature: Temperature = 0.07
    """The learned temperature begins here; 1 / temperature stays between 1 and 100."""


class LossConfig(Section):
    """What is told apart."""

    duplicates: Duplicates = "exclude"
    """Of samples that say the same. ignore: they are told apart, as in CLIP; exclude: they are not; share: they are as
    right for each other as their own sides are."""
    ids: Literal["text", "diagnoses", "labels"] = "text"
    """Which say the same: those whose reports are equal but for case and white space; whose reports have the same parts
    between semicolons, in whatever order; or whose labels, as the index names them, are the same."""
    overlap: Share = 1.0
    """Of labels: they are the same from this Jaccard overlap on, which is how many both have over how many any has."""

    @model_validator(mode="after")
    def _overlap_is_of_labels(self) -> Self:
        if self.overlap != 1.0 and self.ids != "labels":
            raise ValueError(f"overlap is for ids: labels, and ids is {self.ids}: leave overlap out")
        return self


class Config(ExperimentConfig):
    """A MECLIP experiment."""

    model: ModelConfig
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _ecgs_with_reports(self) -> Self:
        data = self.data
        if not isinstance(data.transform, ECGTransformConfig):
            raise ValueError(f"meclip is of ECGs, and data.transform.modality is {data.transform.modality}")
        if data.synthetic is not None and not data.synthetic.reports:
            raise ValueError("data.synthetic makes ECGs without reports: set data.synthetic.reports to true")
        check_one_each(data, self.model.encoder)
        check_input(data, self.model.encoder)
        return self

    @model_validator(mode="after")
    def _towers_meet(self) -> Self:
        ecg, text = self.model.ecg_head.widths[-1], self.model.text_head.widths[-1]
        if ecg != text:
            raise ValueError(
                f"model.ecg_head.widths ends with {ecg} and model.text_head.widths with {text}: both are the width of "
                "the joint space"
            )
        return self

    @model_validator(mode="after")
    def _texts_fit(self) -> Self:
        length, longest = self.model.tokenizer.length, self.model.text.longest
        if length > longest:
            raise ValueError(
                f"model.tokenizer.length is {length}, but model.text takes texts of {longest} tokens at most: lower it"
            )
        if self.model.tokenizer.tokenizer is None and self.model.text.name == "transformers":
            raise ValueError(
                "model.text is transformers, whose tokens are its own: set model.tokenizer.tokenizer, usually to "
                f"{self.model.text.folder}"
            )
        return self
