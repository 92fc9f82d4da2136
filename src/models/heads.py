"""MLPs with a norm and ReLU between their layers: the projection and predictor heads of SimCLR and BYOL."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from src.distributed.batchnorm import SyncBatchNorm
from src.models.encoder import AnyEncoder
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


def hold_shift(encoder: AnyEncoder) -> None:
    """Keep the shift of the LayerNorm that an encoder ends with as it is, where a linear layer and BatchNorm follow.

    They take away what is added to all rows alike: the loss does not depend on it, and its gradient is rounding, of
    which AdamW makes whole steps, others under each engine.
    """
    for name, layer in encoder.named_children():
        if name == "norm" and isinstance(layer, nn.LayerNorm):
            layer.bias.requires_grad_(False)
