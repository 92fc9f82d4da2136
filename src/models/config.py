"""Sections that describe networks; free of torch, so that a config can be checked without loading it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from src.config.section import Section

# name: width, depth, heads. xs and s are Weimann & Conrad's ViT-XS and ViT-S (arXiv 2410.13867), b is ViT-B.
ECG_SIZES = {
    "ecg_tiny": (128, 4, 4),
    "ecg_xs": (192, 8, 6),
    "ecg_s": (384, 8, 6),
    "ecg_b": (768, 12, 12),
}


class EncoderConfig(Section):
    """A vision transformer over lead-patches: one token is all leads x `patch` samples."""

    name: Literal["ecg_tiny", "ecg_xs", "ecg_s", "ecg_b"]
    """Size; width, depth and heads below override parts of it."""
    leads: PositiveInt = 12
    """Leads of the input; data.leads names them."""
    length: PositiveInt
    """Samples of each lead that the model sees; longer records are cropped."""
    patch: PositiveInt
    """Samples of a token; must divide length."""
    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the MLP over the width."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, depth and heads after the overrides."""
        width, depth, heads = ECG_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis."""
        return (self.length // self.patch,)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length % self.patch:
            raise ValueError(f"patch {self.patch} does not divide length {self.length}")
        width, _, heads = self.size
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and divisible by heads {heads}")
        return self


class PredictorConfig(Section):
    """The transformer that predicts target tokens from context tokens."""

    width: PositiveInt = 192
    depth: PositiveInt = 4
    heads: PositiveInt = 6

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by heads {self.heads}")
        return self
