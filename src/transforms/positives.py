"""Where the two views of an ECG come from that are to be found alike: each function gives the samples of each view.

Positions and leads come from each sample's own stream. What the views then go through is drawn apart (views.py).
"""

# B batch, C leads, T samples of a lead

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.randomness import Streams

Samples = Sequence[Mapping[str, Any]]


def adjacent(samples: Samples, length: int, crop: str, streams: Streams) -> tuple[Samples, Samples]:
    """Two segments of `length` samples of each record; the second begins where the first ends.

    Contrastive multi-segment coding of CLOCS (Kiyasseh et al. 2021, arXiv 2005.13249). Where the two lie in a longer
    record is drawn uniformly, or they are its middle (`crop` is random or center).

    Raises:
        ValueError: a record is too short for two; it is named.
    """
    for sample in samples:
        if sample["ecg"].shape[1] < 2 * length:
            raise ValueError(
                f"sample {sample['key']} is {sample['ecg'].shape[1]} samples long, and pairs.positives adjacent takes "
                f"two segments of model.encoder.length = {length}: lower that length or leave the record out"
            )
    starts_B = _starts(samples, 2 * length, crop, streams)
    return _cut(samples, starts_B, length), _cut(samples, starts_B + length, length)


def leads_apart(samples: Samples, length: int, crop: str, streams: Streams) -> tuple[Samples, Samples]:
    """The same segment twice, with half of the leads that are there in the one and the other half in the other.

    After contrastive multi-lead coding of CLOCS, whose encoder takes one lead at a time: here a view has several, and
    all other leads are missing from it. Which are where is drawn uniformly; of an odd number the first view has one
    more. A shorter record is taken whole.

    Raises:
        ValueError: a record has a signal in fewer than two leads; it is named.
    """
    keep_BC = np.array([sample["lead_keep"] for sample in samples])
    for sample, leads in zip(samples, keep_BC.sum(1).tolist(), strict=True):
        if leads < 2:
            raise ValueError(
                f"sample {sample['key']} has a signal in {leads} of its leads, and pairs.positives leads takes two or "
                "more: leave the record out"
            )
    drawn_BC = np.where(keep_BC, streams.uniform("leads", keep_BC.shape[1]), np.inf)
    rank_BC = drawn_BC.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    first_BC = rank_BC < -(-keep_BC.sum(1, keepdims=True) // 2)
    cut = _cut(samples, _starts(samples, length, crop, streams), length)
    return _with_leads(cut, first_BC), _with_leads(cut, keep_BC & ~first_BC)


def _starts(samples: Samples, length: int, crop: str, streams: Streams) -> NDArray[np.int64]:
    spare_B = np.maximum([sample["ecg"].shape[1] - length for sample in samples], 0)
    return streams.integers("start", spare_B + 1) if crop == "random" else spare_B // 2


def _cut(samples: Samples, starts_B: NDArray[np.int64], length: int) -> Samples:
    return [
        {**sample, "ecg": sample["ecg"][:, start : start + length]}
        for sample, start in zip(samples, starts_B.tolist(), strict=True)
    ]


def _with_leads(samples: Samples, keep_BC: NDArray[np.bool_]) -> Samples:
    return [{**sample, "lead_keep": keep_C} for sample, keep_C in zip(samples, keep_BC, strict=True)]
