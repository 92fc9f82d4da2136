"""Sections that describe networks; free of torch, so that a config can be checked without loading it."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.section import Section

# name: width, depth, heads. xs and s are Weimann & Conrad's ViT-XS and ViT-S (arXiv 2410.13867), b is ViT-B.
ECG_SIZES = {
    "ecg_tiny": (128, 4, 4),
    "ecg_xs": (192, 8, 6),
    "ecg_s": (384, 8, 6),
    "ecg_b": (768, 12, 12),
}
# name: width, depth, heads, hidden width of the MLP. As timm's; giant and gigantic are those of Zhai et al. 2022
# (arXiv 2106.04560).
VISION_SIZES = {
    "vit_tiny": (192, 12, 3, 768),
    "vit_small": (384, 12, 6, 1536),
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_huge": (1280, 32, 16, 5120),
    "vit_giant": (1408, 40, 16, 6144),
    "vit_gigantic": (1664, 48, 16, 8192),
}
PositionKind = Literal["sincos", "learned", "rope", "rope_vjepa2"]


class TransformerConfig(Section):
    """What all vision transformers may be told, whatever they look at."""

    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    positions: PositionKind = "sincos"
    """How a token knows where it is: sincos: fixed waves are added; learned: a vector for each token is; rope: queries
    and keys are turned by it (rotary); rope_vjepa2: as V-JEPA 2's published weights are, whose code turns each pair by
    the sine and cosine of two different angles."""
    registers: NonNegativeInt = 0
    """Learned tokens without a place that all others may write to (arXiv 2309.16588); no features are read off them."""

    @property
    def channels(self) -> int:
        """Channels of the input: leads, colours, windows of a CT."""
        raise NotImplementedError

    @property
    def sides(self) -> tuple[int, ...]:
        """Size of the input along each axis."""
        raise NotImplementedError

    @property
    def patches(self) -> tuple[int, ...]:
        """Size of a token's part of the input along each axis."""
        raise NotImplementedError

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, depth and heads after the overrides."""
        raise NotImplementedError

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLPs."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis."""
        return tuple(side // patch for side, patch in zip(self.sides, self.patches, strict=True))

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        width, _, heads = self.size
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and divisible by heads {heads}")
        axes = len(self.sides)
        if self.positions.startswith("rope") and width // heads < 2 * axes:
            raise ValueError(
                f"positions: {self.positions} turns pairs of a head's numbers on each of {axes} axes, but a head is "
                f"{width // heads} wide; use fewer heads or another kind"
            )
        return self


class EncoderConfig(TransformerConfig):
    """A vision transformer over lead-patches: one token is all leads x `patch` samples."""

    name: Literal["ecg_tiny", "ecg_xs", "ecg_s", "ecg_b"]
    """Size; width, depth and heads below override parts of it."""
    leads: PositiveInt = 12
    """Leads of the input; data.leads names them."""
    length: PositiveInt
    """Samples of each lead that the model sees; longer records are cropped."""
    patch: PositiveInt
    """Samples of a token; must divide length."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the MLP over the width."""

    @property
    def channels(self) -> int:
        return self.leads

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch,)

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads = ECG_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads

    @property
    def mlp_width(self) -> int:
        return int(self.size[0] * self.mlp_ratio)

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.length % self.patch:
            raise ValueError(f"patch {self.patch} does not divide length {self.length}")
        return self


class VisionEncoderConfig(TransformerConfig):
    """A vision transformer over the patches of images, or the tubelets of videos and CT volumes."""

    name: Literal["vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge", "vit_giant", "vit_gigantic"]
    """Size; width, depth, heads and mlp_hidden below override parts of it."""
    colors: PositiveInt = 3
    """Channels of the input: 3 colours, or the windows of a CT."""
    input: tuple[PositiveInt, ...]
    """Size of the input: [height, width], or [frames or slices, height, width]."""
    patch: tuple[PositiveInt, ...]
    """Size of a token along the same axes; must divide the input's."""
    mlp_hidden: PositiveInt | None = None
    """Hidden width of the MLP."""

    @property
    def channels(self) -> int:
        return self.colors

    @property
    def sides(self) -> tuple[int, ...]:
        return self.input

    @property
    def patches(self) -> tuple[int, ...]:
        return self.patch

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads, _ = VISION_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads

    @property
    def mlp_width(self) -> int:
        if self.mlp_hidden is not None:
            return self.mlp_hidden
        width, _, _, hidden = VISION_SIZES[self.name]
        return round(self.size[0] * hidden / width)

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if len(self.input) not in (2, 3) or len(self.patch) != len(self.input):
            raise ValueError(
                f"input {list(self.input)} and patch {list(self.patch)} must both have two numbers (images) or three "
                "(videos, volumes)"
            )
        if any(side % patch for side, patch in zip(self.input, self.patch, strict=True)):
            raise ValueError(f"patch {list(self.patch)} does not divide input {list(self.input)}")
        return self

    @property
    def tokens(self) -> int:
        """Of the whole input."""
        return math.prod(self.grid)


class PredictorConfig(Section):
    """The transformer that predicts target tokens from context tokens."""

    width: PositiveInt = 192
    depth: PositiveInt = 4
    heads: PositiveInt = 6
    mask_tokens: PositiveInt = 1
    """Learned tokens that stand for what is hidden, one for each kind of mask."""
    zero_mask_tokens: bool = False
    """Whether they begin at zero, as V-JEPA's; else with a standard deviation of 0.02."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by heads {self.heads}")
        return self
