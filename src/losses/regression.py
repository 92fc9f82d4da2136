"""Losses between predicted and target features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from src.losses.kinds import RegressionKind


def feature_regression(predicted: Tensor, target: Tensor, kind: RegressionKind) -> Tensor:
    """Loss of each token, averaged over features: [..., D] and [..., D] -> [...], in fp32.

    `smooth_l1` has beta 1 (I-JEPA's published configs), `l1` is V-JEPA's and Weimann & Conrad's.
    """
    predicted, target = predicted.float(), target.float()
    if kind == "l1":
        return (predicted - target).abs().mean(-1)
    return F.smooth_l1_loss(predicted, target, reduction="none", beta=1.0).mean(-1)


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos of the angle between vectors: [..., D] and [..., D] -> [...], in fp32.

    The squared distance between both after they are scaled to length 1 (BYOL, arXiv 2006.07733, equation 2).
    """
    return 2.0 - 2.0 * F.cosine_similarity(predicted.float(), target.float(), dim=-1)
