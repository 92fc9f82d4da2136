"""Losses of labels and of classes, as sums over what is known; NaN is unknown and carries none."""

# B samples, K labels or classes

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def known_labels(truth_BK: Tensor) -> Tensor:
    """Which labels [B, K] are known."""
    return ~truth_BK.isnan()


def known_classes(truth_BK: Tensor) -> Tensor:
    """Of which samples [B] the class is known; the others' rows hold NaN."""
    return ~truth_BK.isnan().any(1)


def binary_cross_entropy(
    logits_BK: Tensor,
    truth_BK: Tensor,
    positive_weight_K: Tensor | None = None,
    smoothing: float = 0.0,
    focal: tuple[float, float] | None = None,
) -> Tensor:
    """The sum over known labels, [], of -(w y log p + (1 - y) log(1 - p)), in fp32.

    `positive_weight_K` is w. With `smoothing` s a truth y is (1 - s) y + s / 2. `focal` is (gamma, alpha) of Lin et al.
    2017 (arXiv 1708.02002): each label's loss times alpha_t (1 - p_t)^gamma, where p_t is the probability that is given
    to the truth, before smoothing and whatever the weight. alpha_t is alpha for positives and 1 - alpha for negatives
    where 0 < alpha < 1; from 1 on it is a factor of both.
    """
    logits, known = logits_BK.float(), known_labels(truth_BK)
    truth = torch.where(known, truth_BK, 0.0)
    smoothed = truth * (1.0 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=positive_weight_K, reduction="none")
    if focal is not None:
        gamma, alpha = focal
        wrong = (gamma * F.logsigmoid(logits * (1.0 - 2.0 * truth))).exp()  # a power of 1 - p_t has no slope at 0
        of_truth = truth * alpha + (1.0 - truth) * (1.0 - alpha) if alpha < 1.0 else alpha
        losses = losses * of_truth * wrong
    return torch.where(known, losses, 0.0).sum()


def cross_entropy(
    logits_BK: Tensor, truth_BK: Tensor, weight_K: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """The sum over samples of known class, [], of -sum over c of w_c q_c log p_c, in fp32.

    `truth_BK` are ones and zeros; q is (1 - s) of it plus s / K with `smoothing` s; `weight_K` is w.
    """
    known_B = known_classes(truth_BK)
    truth = torch.where(known_B[:, None], truth_BK, 0.0)
    q_BK = truth * (1.0 - smoothing) + smoothing / truth.shape[1]
    losses_BK = -q_BK * logits_BK.float().log_softmax(1)
    if weight_K is not None:
        losses_BK = losses_BK * weight_K
    return torch.where(known_B, losses_BK.sum(1), 0.0).sum()
