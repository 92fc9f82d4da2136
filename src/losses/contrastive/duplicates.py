"""Samples that say the same: ids of reports and of diagnoses, which samples share one, and how many do.

In medicine identical reports are the rule ("normal ECG"): what a contrastive loss calls negatives are then often none.
"""

# B rows of this rank, N of all ranks, K diagnoses

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import torch
from torch import Tensor

from src.distributed.collectives import gather_uneven, row_counts, sum_with_gradient
from src.losses.contrastive.columns import own_columns


def text_id(text: str) -> int:
    """An id of 64 bits, with a sign: equal for texts that differ in case, white space or Unicode's ways to write one.

    The same in every process and on every machine. Among 10^7 different texts two share one with a chance of 3e-6.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _hashed(" ".join(folded.split()).encode())


def diagnosis_id(diagnoses: Iterable[str]) -> int:
    """An id of 64 bits of a set of diagnoses, whatever their order, repeats, case and white space.

    No diagnosis is a set as well: all samples without one have the same id.
    """
    return _hashed(b"".join(one.to_bytes(8, "big", signed=True) for one in sorted(set(map(text_id, diagnoses)))))


def _hashed(words: bytes) -> int:
    return int.from_bytes(blake2b(words, digest_size=8).digest(), "big", signed=True)


def same(rows: Tensor, columns: Tensor, overlap: float = 1.0) -> Tensor:
    """Which columns say the same as each row [B, N], bool.

    Of ids [B] and [N], integers: those that are equal. Of sets [B, K] and [N, K], multi-hot over K diagnoses: those
    whose Jaccard overlap |a and b| / |a or b| is at least `overlap`; two empty sets are equal.
    """
    if rows.ndim == 1:
        return rows[:, None] == columns
    common_BN = rows.double() @ columns.double().T
    either_BN = rows.sum(1, dtype=torch.float64)[:, None] + columns.sum(1, dtype=torch.float64) - common_BN
    return torch.where(either_BN > 0, common_BN / either_BN, 1.0) >= overlap


def gather_ids(ids: Tensor, counts: list[int]) -> Tensor:
    """The ids [B] or sets [B, K] of all ranks."""
    assert not ids.is_floating_point() and ids.ndim in (1, 2), f"ids are integers [B], sets are [B, K]: {ids.shape}"
    return gather_uneven(ids.byte() if ids.dtype == torch.bool else ids, counts)


def have_duplicates(ids: Tensor, overlap: float = 1.0) -> Tensor:
    """Which of this rank's samples [B] say the same as another sample of any rank, bool."""
    counts, place = row_counts(ids)
    found_BN = same(ids, gather_ids(ids, counts), overlap)
    return found_BN.scatter(1, own_columns(counts, place, ids.device)[:, None], False).any(1)


def duplicate_rate(ids: Tensor, overlap: float = 1.0) -> Tensor:
    """The share of all ranks' samples that say the same as another one, [1]; 0 of none.

    At 1, every sample of the batch says the same: `exclude` and `share` then have nothing to learn from, and their
    loss is 0.
    """
    found_B = have_duplicates(ids, overlap)
    with torch.no_grad():
        number, count = sum_with_gradient(
            torch.stack([found_B.sum(), found_B.new_full((), len(ids), dtype=torch.int64)])
        )
    return (number / count.clamp(min=1)).reshape(1)
