"""NT-Xent (SimCLR, arXiv 2002.05709, equation 1): among the views of the global batch, find the sample's other."""

# B samples of this rank, N of all ranks, D width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from src.losses.contrastive.columns import gather_columns, precise


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: Tensor | float) -> Tensor:
    """The sum over this rank's samples of the mean loss of their two views; its weight is B.

    An anchor's denominator is all 2 N views of all ranks but the anchor itself. Ranks may hold different numbers of
    samples, or none.
    """
    with torch.autocast(first_BD.device.type, enabled=False):
        found = gather_columns(first_BD, second_BD)
        N = len(found.first_ND)
        anchors = torch.cat([found.first_BD, found.second_BD])
        views = torch.cat([found.first_ND, found.second_ND])
        if isinstance(temperature, Tensor):
            temperature = precise(temperature)
        itself = torch.cat([found.own_B, found.own_B + N])
        other = torch.cat([found.own_B + N, found.own_B])
        logits = (anchors / temperature) @ views.T
        return F.cross_entropy(logits.scatter_(1, itself[:, None], -torch.inf), other, reduction="sum") / 2
