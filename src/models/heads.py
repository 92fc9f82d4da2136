"""MLPs with a norm and ReLU between their layers: the projection and predictor heads of SimCLR and BYOL."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from src.distributed.batchnorm import SyncBatchNorm
from src.models.head_config import HeadNorm


class MLPHead(nn.Sequential):
    """[B, D] -> [B, last of widths]: linear layers; a norm and ReLU behind each but the last.

    BatchNorm has the statistics of all ranks' rows. Layers have no biases: a norm's own follows each but the last, and
    what the last would add, the BatchNorm of a predictor behind it takes away again. Its gradient would be rounding,
    of which AdamW makes whole steps.
    """

    def __init__(self, width: int, widths: Sequence[int], norm: HeadNorm) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((width, *widths)):
            if layers:
                layers += [SyncBatchNorm(before) if norm == "batch" else nn.LayerNorm(before), nn.ReLU()]
            layers.append(nn.Linear(before, after, bias=False))
        super().__init__(*layers)
