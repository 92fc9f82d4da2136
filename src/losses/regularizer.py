"""The regulariser that a config names, over the views that an objective has of its samples."""

# B rows of this rank, D width

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from src.losses.config import RegularizerConfig, SIGRegConfig
from src.losses.sigreg import draw_directions, sigreg
from src.losses.vicreg import variance_covariance


def regularizer_coefficients(config: RegularizerConfig) -> dict[str, float]:
    """What each of its losses weighs."""
    if isinstance(config, SIGRegConfig):
        return {"sigreg": config.coefficient}
    return {"variance": config.variance, "covariance": config.covariance}


def regularize(config: RegularizerConfig, views: Iterable[Tensor], seed: int, step: int) -> dict[str, Tensor]:
    """Each loss of views [B, D], their mean over the views, times B: sums whose weight is the rows of this rank.

    For an objective's mode `contrast`: the features are those of all of the rank's rows, and statistics are those of
    all ranks' rows together, each view by itself. SIGReg's directions are a step's, the same for all views and ranks.
    """
    if isinstance(config, SIGRegConfig):
        views = list(views)
        directions_DM = draw_directions(views[0].shape[1], config.directions, seed, step)
        found = [{"sigreg": sigreg(view_BD, directions_DM)} for view_BD in views]
    else:
        found = [variance_covariance(view_BD) for view_BD in views]
    return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}
