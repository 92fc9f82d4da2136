"""The encoder that a section describes."""

from __future__ import annotations

from typing import overload

from src.models.backbone import TimmBackbone, TransformersBackbone
from src.models.backbone_config import BackboneConfig, TimmConfig
from src.models.config import EncoderSection, ResNetConfig, S4Config, TransformerConfig
from src.models.encoder import AnyEncoder
from src.models.resnet import ResNet1d
from src.models.s4 import S4
from src.models.vit import VisionTransformer


@overload
def build_encoder(config: TransformerConfig) -> VisionTransformer: ...
@overload
def build_encoder(config: EncoderSection) -> AnyEncoder: ...
def build_encoder(config: EncoderSection) -> AnyEncoder:
    """The encoder that a `model.encoder` section, or an exported encoder/config.json, describes."""
    match config:
        case TransformerConfig():
            return VisionTransformer(config)
        case ResNetConfig():
            return ResNet1d(config)
        case S4Config():
            return S4(config)
        case BackboneConfig():
            return TransformersBackbone(config)
        case TimmConfig():
            return TimmBackbone(config)
    raise AssertionError(f"no encoder is known for {type(config).__name__}")
