"""The MLP behind which features are regularised."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class Projection(nn.Sequential):
    """[B, D] -> [B, last of widths]: linear layers with LayerNorm and GELU between them; no widths change nothing.

    The published heads of LeJEPA and VICReg have BatchNorm there, which would make a sample's features those of the
    micro-batch that it happens to be in.
    """

    def __init__(self, width: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((width, *widths)):
            if layers:
                layers += [nn.LayerNorm(before), nn.GELU()]
            layers.append(nn.Linear(before, after))
        super().__init__(*layers)
