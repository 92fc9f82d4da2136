"""CLIP (arXiv 2103.00020) over all ranks, and MECLIP's two ways with samples that say the same.

Of sample i, D(i) are the other samples with its id. Each direction's loss of i is

    ignore    -log softmax_j(s_ij) at j = i
    exclude   the same, over the columns that are not in D(i)
    share     the mean over p in {i} and D(i) of -log(exp(s_ip) / (exp(s_ip) + sum over the negatives n of exp(s_in)))

(MECLIP, doi 10.1038/s44325-024-00010-0.) Where no two samples of the batch share an id the three are the same to the
last bit; where all do, `exclude` and `share` are exactly 0.
"""

# B rows of this rank, N of all ranks, D width

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from src.losses.contrastive.columns import gather_columns, precise
from src.losses.contrastive.duplicates import gather_ids, same
from src.losses.kinds import Duplicates


def clip(
    first_BD: Tensor,
    second_BD: Tensor,
    scale: Tensor,
    ids_B: Tensor | None = None,
    duplicates: Duplicates = "ignore",
    overlap: float = 1.0,
) -> Tensor:
    """The sum over this rank's samples of the mean of both directions' losses; its weight is B.

    `scale` is 1 / temperature (`temperature.LogitScale`). `ids_B` are integers, or sets [B, K] that are the same from
    a Jaccard `overlap` on (`duplicates.same`). Samples that lack a side are left out before the call: ranks may hold
    different numbers of rows, or none.
    """
    assert duplicates == "ignore" or ids_B is not None, f"{duplicates} needs ids"
    with torch.autocast(first_BD.device.type, enabled=False):
        found = gather_columns(first_BD, second_BD)
        same_BN = None
        if ids_B is not None and duplicates != "ignore":
            same_BN = same(ids_B, gather_ids(ids_B, found.counts), overlap)
            same_BN = same_BN.scatter(1, found.own_B[:, None], False)
        forth, back = (
            _direction((precise(scale) * rows_BD) @ columns_ND.T, found.own_B, same_BN, duplicates)
            for rows_BD, columns_ND in ((found.first_BD, found.second_ND), (found.second_BD, found.first_ND))
        )
        return (forth.sum() + back.sum()) / 2


def _direction(logits_BN: Tensor, own_B: Tensor, same_BN: Tensor | None, duplicates: Duplicates) -> Tensor:
    """Each row's loss; same_BN are its duplicates, itself not among them."""
    if same_BN is not None and duplicates == "exclude":
        logits_BN = logits_BN.masked_fill(same_BN, -torch.inf)
    alone_B = F.cross_entropy(logits_BN, own_B, reduction="none")
    if same_BN is None or duplicates != "share":
        return alone_B
    return torch.where(same_BN.any(1), _shared(logits_BN, own_B, same_BN), alone_B)


def _shared(logits_BN: Tensor, own_B: Tensor, same_BN: Tensor) -> Tensor:
    """The mean over a row's positives; 0 of a row without negatives, whose gradient must not be NaN either."""
    positives_BN = same_BN.scatter(1, own_B[:, None], True)
    lonely_B = positives_BN.all(1)
    negatives_BN = logits_BN.masked_fill(positives_BN & ~lonely_B[:, None], -torch.inf)
    against_B = negatives_BN.logsumexp(1)
    # log(1 + exp(x)) by logsigmoid, since F.softplus rounds to x above 20
    each_BN = -F.logsigmoid(logits_BN - against_B[:, None])
    mean_B = torch.where(positives_BN, each_BN, 0.0).sum(1) / positives_BN.sum(1)
    return torch.where(lonely_B, 0.0, mean_B)
