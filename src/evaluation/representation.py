"""What features tell of the health of an encoder without any label: rank, spread, and what a constant would score.

A JEPA's loss may fall while its encoder collapses. These four numbers do not: RankMe and the spread of each dimension
read the features of records, the other two read their tokens.
"""

# N records, F features, L tokens of a record, D width of a token

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as functional
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from src.losses.kinds import RegressionKind
from src.losses.regression import feature_regression
from src.models.padding import without

EPSILON = 1e-7
"""What RankMe adds to each share so that its logarithm exists (the paper's value for float32 features)."""

ROUNDING = 1e-6
"""A spread below this share of the mean is the rounding of a float32 forward pass (eight units in the last place)."""

DEAD_BELOW = 0.01
"""A dimension is dead when its spread is below this share of the mean spread."""


def feature_std(features_NF: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation of each dimension over the records, [N, F] -> [F], in the features' units.

    What is below `ROUNDING` of the dimension's mean counts as 0, so that a constant in float32 has no spread.
    """
    features = np.asarray(features_NF, np.float64)
    std_F = features.std(0)
    return np.where(std_F <= ROUNDING * np.abs(features.mean(0)), 0.0, std_F)


@dataclass(frozen=True)
class Spread:
    """The spread of the dimensions in three numbers: their mean and smallest std, and the share that are dead."""

    mean: float
    minimum: float
    dead: float


def spread(features_NF: ArrayLike, dead_below: float = DEAD_BELOW) -> Spread:
    """Summary of `feature_std`; `dead` is the share of dimensions with at most `dead_below` of the mean std.

    Constant features are dead in all dimensions (1.0); non-finite ones give nan in all three.
    """
    if not np.isfinite(features_NF).all():
        return Spread(np.nan, np.nan, np.nan)
    std_F = feature_std(features_NF)
    return Spread(float(std_F.mean()), float(std_F.min()), float((std_F <= dead_below * std_F.mean()).mean()))


def rankme(features_NF: ArrayLike, centred: bool = True) -> float:
    """Effective rank of the features, from 1 to min(N, F): exp of the entropy of the normalised singular values.

    RankMe of Garrido et al. 2023 (arXiv 2210.02885, eq. 1 and 2), which takes the features as they are
    (`centred=False`). The default subtracts their mean first, because a mean that all records share says nothing of
    what tells them apart and no linear head with a bias sees it: 2,000 x 256 standard normal features have RankMe 252,
    and with 10 or 1,000 added to every dimension still 252 centred, but 57 and 1.2 uncentred. Compare only numbers with
    equal `centred`, N and F, and between runs of one method, as the paper warns. Centred it is blind to scale: small
    noise around a large mean has full rank, and the features' std beside their mean tells of it.

    Each of the F - r empty directions adds epsilon, so features of rank r can exceed r by about 2e-6 F r. Constant
    features have no direction and are 1.0, the end of the scale. Non-finite features give nan.
    """
    features = np.asarray(features_NF, np.float64)
    if not np.isfinite(features).all():
        return float("nan")
    if centred:
        features = np.where(feature_std(features) == 0.0, 0.0, features - features.mean(0))
    singular_R = np.linalg.svd(features, compute_uv=False)
    if not singular_R.sum() > 0.0:
        return 1.0
    shares_R = singular_R / singular_R.sum() + EPSILON
    return max(1.0, float(np.exp(-(shares_R * np.log(shares_R)).sum())))


def mean_prediction_loss(targets_NLD: Tensor, kind: RegressionKind, valid_NL: Tensor | None = None) -> float:
    """The loss of predicting at each position the mean target of all records there, averaged over [N, L, D].

    The yardstick beside a JEPA loss: a predictor that is no better knows the positions and nothing of the record. The
    targets are as the loss sees them (layer-normed if it layer-norms them) and `kind` is as in `feature_regression`.
    Under `l1` the median would score a little lower still. Targets that are not valid (padding) are left out.
    """
    targets_NLD = targets_NLD.float()
    if valid_NL is None:
        mean_NLD = targets_NLD.mean(0, keepdim=True).expand_as(targets_NLD)
        return feature_regression(mean_NLD, targets_NLD, kind).mean().item()
    mean_NLD = _mean_of_positions(targets_NLD, valid_NL).expand_as(targets_NLD)
    return feature_regression(mean_NLD, targets_NLD, kind)[valid_NL].mean().item()


def variance_between_samples(tokens_NLD: Tensor, valid_NL: Tensor | None = None) -> float:
    """The share of the variance of layer-normed tokens [N, L, D] that lies between records at the same position.

    Near 0 where the encoder has learned positions alone, near 1 where positions say nothing. The layer norm is the
    parameter-free one of the targets. Tokens that are all equal give 0.0, a single record gives nan. Tokens that are
    not valid (padding) are left out: a position at which few records have signal counts less.
    """
    normed_NLD = functional.layer_norm(tokens_NLD.float(), tokens_NLD.shape[-1:])
    if normed_NLD.shape[0] < 2:
        return float("nan")
    if valid_NL is None:
        total, between = normed_NLD.flatten(0, 1).var(0).mean().item(), normed_NLD.var(0).mean().item()
    else:
        apart_NLD = normed_NLD - _mean_of_positions(normed_NLD, valid_NL)
        freedom = (valid_NL.sum(0) - 1).clamp(min=0).sum().item()
        total = normed_NLD[valid_NL].var(0).mean().item()
        between = apart_NLD[valid_NL].square().sum(0).mean().item() / freedom if freedom else float("nan")
    return 0.0 if total == 0.0 else between / total


def _mean_of_positions(tokens_NLD: Tensor, valid_NL: Tensor) -> Tensor:
    """The mean [1, L, D] of the valid tokens at each position; zeros where there is none."""
    counts_L1 = valid_NL.sum(0).clamp(min=1).unsqueeze(-1)
    return (without(tokens_NLD, valid_NL).sum(0) / counts_L1).unsqueeze(0)
