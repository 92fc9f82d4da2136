"""The section that describes a text decoder; free of torch."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from src.config.section import Probability, Section


class DecoderConfig(Section):
    """A transformer that writes a text while it looks at the tokens of an encoder."""

    width: PositiveInt = 256
    depth: PositiveInt = 4
    heads: PositiveInt = 4
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the MLP over the width."""
    parallel: Probability = 0.0
    """How often a text is predicted all at once, each token from the encoder alone, instead of word by word (CapPa,
    arXiv 2306.07915, takes 0.75): it must then be read off the encoder, and not off the words before it."""

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLPs."""
        return int(self.width * self.mlp_ratio)

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads}")
        return self
