"""VICReg (arXiv 2105.04906): features of two views agree, each feature varies, and no two features say the same.

Variance and covariance are those of the global batch: the mean over all ranks' rows first, then the centred products,
summed over ranks. That is an all-reduce of D x D numbers (a D of 8,192, the paper's, is 256 MiB in fp32).

Every term is returned times the rows of this rank: a sum whose weight is the rows. An objective returns them from its
mode `contrast` and counts its rows in `weights`: over all ranks the sums are n times the term and the weights n, and
the engine's gradient is that of the term on one process with all rows. Ranks may hold different numbers of rows, or
none.
"""

# B rows of this rank, n of all ranks, D width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from src.distributed.collectives import sum_with_gradient

COEFFICIENTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
"""The paper's, for the mean over features in `invariance` (its listing; its equation 5 sums over them)."""
EPS = 1e-4


def vicreg(first_BD: Tensor, second_BD: Tensor) -> dict[str, Tensor]:
    """The three terms of two views, each times B; variance and covariance are the sums of both views'."""
    with torch.autocast(first_BD.device.type, enabled=False):
        apart_BD = _precise(first_BD) - _precise(second_BD)
    first, second = variance_covariance(first_BD), variance_covariance(second_BD)
    return {"invariance": apart_BD.square().mean(1).sum()} | {name: first[name] + second[name] for name in first}


def variance_covariance(features_BD: Tensor) -> dict[str, Tensor]:
    """What keeps features from collapse, each times B: also beside, or in place of, a teacher.

    `variance` is the mean over features of max(0, 1 - sqrt(var + 1e-4)), `covariance` the squares off the diagonal of
    the covariance matrix over D; both divide by n - 1. At least fp32, whatever autocast says.
    """
    B, D = features_BD.shape
    with torch.autocast(features_BD.device.type, enabled=False):
        features_BD = _precise(features_BD)
        with torch.no_grad():  # centred products do not change to first order with the mean: it needs no gradient
            own = torch.cat([features_BD.sum(0), features_BD.new_full((1,), B)])
            total = sum_with_gradient(own)
        n = total[-1]
        centred_BD = features_BD - total[:-1] / n.clamp(min=1.0)
        covariance_DD = sum_with_gradient(centred_BD.T @ centred_BD) / (n - 1).clamp(min=1.0)
        variance_D = covariance_DD.diagonal()
        between_DD = covariance_DD - variance_D.diag()
        return {
            "variance": B * F.relu(1.0 - (variance_D + EPS).sqrt()).mean(),
            "covariance": B * between_DD.square().sum() / D,
        }


def _precise(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
