"""How attentive probes are trained, typed: `head.attentive` of a probe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from src.config.section import Section

Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, le=10.0)]


class AttentiveConfig(Section):
    """Where head.kind is attentive: probes of every lr with every weight_decay, trained by AdamW, all at once."""

    depth: PositiveInt = 1
    """Blocks: the last is the learned query's cross-attention, those before it are self-attention of the tokens. 1 is
    V-JEPA's probe, 4 is V-JEPA 2's, which costs far more: its tokens are no longer the same for all probes."""
    heads: PositiveInt | None = None
    """Of the attention; null is one for every 64 of the encoder's width."""
    epochs: PositiveInt = 20
    """Passes over the records of `train`."""
    batch_size: PositiveInt = 64
    """Records of a step."""
    lr: tuple[Rate, ...] = Field(default=(5e-3, 3e-3, 1e-3, 3e-4, 1e-4), min_length=1)
    """Learning rates to choose from, each falling to 0 along half a cosine; these are V-JEPA 2's."""
    weight_decay: tuple[Decay, ...] = Field(default=(0.01, 0.1, 0.4, 0.8), min_length=1)
    """Weight decays to choose from, of the matrices alone."""
