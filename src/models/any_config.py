"""All encoders' sections as one, told apart by their name; free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from src.models.backbone_config import BackboneConfig, TimmConfig
from src.models.config import (
    EncoderConfig,
    EncoderSection,
    LeadEncoderConfig,
    ResNetConfig,
    S4Config,
    VisionEncoderConfig,
)

AnyEncoderConfig = Annotated[
    EncoderConfig | LeadEncoderConfig | VisionEncoderConfig | ResNetConfig | S4Config | BackboneConfig | TimmConfig,
    Field(discriminator="name"),
]
ECGEncoderConfig = Annotated[EncoderConfig | LeadEncoderConfig | ResNetConfig | S4Config, Field(discriminator="name")]
"""Those of ECGs."""
TrainedEncoderConfig = Annotated[
    EncoderConfig | LeadEncoderConfig | VisionEncoderConfig | ResNetConfig | S4Config | BackboneConfig,
    Field(discriminator="name"),
]
"""Those that any objective may train; timm's are imported as they are."""
_SECTIONS: TypeAdapter[EncoderSection] = TypeAdapter(AnyEncoderConfig)


def read_encoder_section(text: bytes | str) -> EncoderSection:
    """The section out of its JSON, such as encoder/config.json.

    Raises:
        ValueError: it is none; pydantic's, with its errors.
    """
    return _SECTIONS.validate_json(text)
