"""Each contrastive loss as one process writes it down: loops over anchors, in fp64, sums over all samples."""

import torch
import torch.nn.functional as F

SCALE, BIAS, TEMPERATURE = 9.0, -2.5, 0.2
IDS = [3, 7, 3, 1, 9, 7, 3, 11, 12, 1, 13, 14]
"""Of twelve samples: one id three times, two twice, five once."""
ROWS, WIDTH = len(IDS), 8
MODES = ("ignore", "exclude", "share")


def pairs(dtype=torch.float64, rows=ROWS):
    """Two sides of samples that are somewhat alike."""
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
    second = 0.5 * first + torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
    return first.to(dtype), second.to(dtype)


def nt_xent(first, second, temperature=TEMPERATURE):
    views = [view / view.norm() for view in (*first, *second)]
    half, total = len(first), 0.0
    for number, anchor in enumerate(views):
        others = [other for other in range(2 * half) if other != number]
        scores = torch.stack([anchor @ views[other] / temperature for other in others])
        total = total - scores.log_softmax(0)[others.index((number + half) % (2 * half))] / 2
    return total


def clip(first, second, scale, ids, duplicates):
    total = 0.0
    for rows, columns in ((first, second), (second, first)):
        for i, row in enumerate(rows):
            score = [scale * F.cosine_similarity(row, column, dim=0) for column in columns]
            twins = [j for j in range(len(ids)) if ids[j] == ids[i] and j != i]
            positives = [i, *twins] if duplicates == "share" else [i]
            left_out = [] if duplicates == "ignore" else twins
            negatives = [j for j in range(len(ids)) if j not in positives + left_out]
            for p in positives:
                seen = torch.stack([score[j].squeeze() for j in (p, *negatives)])
                total = total - seen.log_softmax(0)[0] / len(positives) / 2
    return total


def siglip(first, second, scale, bias, ids, duplicates):
    total = 0.0
    for i, row in enumerate(first):
        for j, column in enumerate(second):
            logit = (scale * F.cosine_similarity(row, column, dim=0) + bias).squeeze()
            twins = ids[i] == ids[j] and i != j
            if not (twins and duplicates == "exclude"):
                yes = i == j or (twins and duplicates == "share")
                total = total - F.logsigmoid(logit if yes else -logit)
    return total


def supervised(features, labels, temperature=TEMPERATURE):
    total, rows = features.sum() * 0, [row / row.norm() for row in features]
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        log_sum = torch.stack([row @ rows[a] / temperature for a in others]).logsumexp(0)
        for p in positives:
            total = total - (row @ rows[p] / temperature - log_sum) / len(positives)
    return total


def multi_positive(first, second, scale, weights):
    """`weights` [N, N] are those of a row and a column."""
    total = first.sum() * 0
    for rows, columns in ((first, second), (second, first)):
        for row, weight in zip(rows, weights, strict=True):
            surprise = -torch.cat([scale * F.cosine_similarity(row, column, dim=0) for column in columns]).log_softmax(
                0
            )
            if weight.sum() > 0:
                total = total + (weight * surprise).sum() / weight.sum() / 2
    return total
