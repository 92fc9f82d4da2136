"""Losses of samples with several positives: of one label, or by a weight between any two samples."""

# B rows of this rank, N of all ranks, D width

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from src.distributed.collectives import gather_uneven, row_counts
from src.losses.contrastive.columns import gather_columns, own_columns, precise, unit
from src.losses.contrastive.duplicates import gather_ids, same

Weigh = Callable[[Tensor, Tensor], Tensor]
"""From what is known of the rows [B, ...] and of the columns [N, ...] to weights [B, N] of at least 0."""


def supervised_contrastive(features_BD: Tensor, labels_B: Tensor, temperature: Tensor | float) -> Tensor:
    """Khosla et al. 2020 (arXiv 2004.11362), L_out: the sum over this rank's rows; its weight is B.

    Positives of a row are all other rows, of all ranks, with its label (an integer); its denominator is all other
    rows. A row without positives adds 0. Two views of a sample are two rows with one label.
    """
    assert labels_B.shape == features_BD.shape[:1], (labels_B.shape, features_BD.shape)
    with torch.autocast(features_BD.device.type, enabled=False):
        features_BD = unit(features_BD)
        counts, place = row_counts(features_BD)
        itself = own_columns(counts, place, features_BD.device)[:, None]
        if isinstance(temperature, Tensor):
            temperature = precise(temperature)
        logits_BN = (features_BD / temperature) @ gather_uneven(features_BD, counts).T
        positives_BN = same(labels_B, gather_ids(labels_B, counts)).scatter(1, itself, False)
        others_BN = logits_BN.scatter(1, itself, -torch.inf)
        if logits_BN.shape[1] < 2:
            return logits_BN.sum() * 0  # nothing to compare with, on any rank
        return _weighted(logits_BN, others_BN, positives_BN.to(logits_BN)).sum()


def multi_positive(first_BD: Tensor, second_BD: Tensor, scale: Tensor, about: Tensor, weigh: Weigh = same) -> Tensor:
    """InfoNCE whose target of sample i is w_ij / sum_j w_ij over all ranks' samples j; its weight is B.

    The sum over this rank's samples of the mean of both directions' -sum_j w_ij log softmax_j(s_ij) / sum_j w_ij. What
    is known of each sample, `about` [B, ...], goes to all ranks, where `weigh(about_B, about_N)` gives w, as it is
    with a sample itself too; by default 1 for equal ids. Where w is the identity this is CLIP. A sample without any
    weight adds 0.
    """
    assert len(about) == len(first_BD), (about.shape, first_BD.shape)
    with torch.autocast(first_BD.device.type, enabled=False):
        found = gather_columns(first_BD, second_BD)
        weights_BN = weigh(about, gather_uneven(about.byte() if about.dtype == torch.bool else about, found.counts))
        assert weights_BN.shape == (len(about), len(found.first_ND)), weights_BN.shape
        total = found.first_BD.new_zeros(())
        for rows_BD, columns_ND in ((found.first_BD, found.second_ND), (found.second_BD, found.first_ND)):
            logits_BN = (precise(scale) * rows_BD) @ columns_ND.T
            total = total + _weighted(logits_BN, logits_BN, weights_BN.to(logits_BN)).sum()
        return total / 2


def _weighted(logits_BN: Tensor, denominator_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Each row's -sum_j w_j (logit_j - log sum exp of the denominator) / sum_j w_j; 0 with a gradient where no w is."""
    sum_B = weights_BN.sum(1)
    shares_BN = weights_BN / torch.where(sum_B > 0, sum_B, 1.0)[:, None]
    surprise_BN = denominator_BN.logsumexp(1)[:, None] - logits_BN
    return (shares_BN * surprise_BN).sum(1)
