"""ECGs in shards: `<key>.ecg.npy`, integers with a scale for each lead in the json, or millivolts."""

# C leads, T samples of a lead

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from src.data.arrays import decode_npy
from src.data.columns import columns
from src.data.index import TRAINING_SPLIT, Entry, Index
from src.data.millivolt import to_millivolt
from src.data.modality import Members, Modality

FIELD = "ecg.npy"
COMMON_LENGTHS = 5
"""Lengths of records that are told, the most frequent."""


class Statistics(Entry):
    """Of each lead over the training split alone, in mV; 0 where no record of it has that lead."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: tuple[int, ...]
    """Values of each lead; those of missing and flat leads do not count."""


class ECGIndex(Index):
    """What all ECGs of a folder share."""

    modality: Literal["ecg"] = "ecg"
    leads: tuple[str, ...]
    sampling_rate: PositiveFloat
    """Hz, of every sample."""
    lengths: tuple[int, int]
    """Samples of a lead in the shortest and in the longest record."""
    statistics: Statistics | None
    """None where there is no training split."""
    missing_leads: dict[str, int]
    """Samples of all splits in which a lead is missing or flat; leads that always carry a signal are left out."""

    def given(self) -> dict[str, Any]:
        """Leads and rate."""
        return {"leads": self.leads, "sampling_rate": self.sampling_rate}


def _fields(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name == FIELD)


def _decode(members: Members, meta: dict[str, Any]) -> dict[str, Any]:
    stored_CT = decode_npy(members[0][1])
    ecg_CT = to_millivolt(stored_CT, meta.get("scale"))
    if stored_CT.dtype.kind == "f" and not np.isfinite(ecg_CT).all():
        raise ValueError("its ECG holds NaN or infinite values")
    return {"ecg": ecg_CT, "lead_keep": decode_lead_keep(meta.pop("lead_keep", None), len(ecg_CT))}


def decode_lead_keep(kept: Any, leads: int) -> NDArray[np.bool_]:
    """[C] from the json's list, read-only; without one every lead is there."""
    if kept is None:
        return _all_kept(leads)
    if not isinstance(kept, list) or len(kept) != leads or not all(isinstance(keep, bool) for keep in kept):
        raise ValueError(f"lead_keep in the json is not true or false for each of {leads} leads: {kept!r}")
    keep_C = np.array(kept)
    keep_C.flags.writeable = False
    return keep_C


@lru_cache(maxsize=16)
def _all_kept(leads: int) -> NDArray[np.bool_]:
    """One array for all samples."""
    keep_C = np.ones(leads, np.bool_)
    keep_C.flags.writeable = False
    return keep_C


class Moments:
    """Mean and variance of each lead, record by record (Chan, Golub & LeVeque 1983): no sum of squares to cancel."""

    def __init__(self, leads: int) -> None:
        self.count_C = np.zeros(leads, np.int64)
        self.mean_C = np.zeros(leads)
        self._squares_C = np.zeros(leads)

    def add(self, ecg_CT: NDArray[np.float32], keep_C: NDArray[np.bool_]) -> None:
        """Take in the leads of a record that hold a signal."""
        values_CT = ecg_CT.astype(np.float64)
        count_C, mean_C = keep_C * values_CT.shape[1], values_CT.mean(1)
        delta_C = mean_C - self.mean_C
        total_C = self.count_C + count_C
        share_C = count_C / np.maximum(total_C, 1)
        self._squares_C += keep_C * ((values_CT - mean_C[:, None]) ** 2).sum(1) + delta_C**2 * self.count_C * share_C
        self.mean_C += delta_C * share_C
        self.count_C = total_C

    def statistics(self) -> Statistics:
        """What the index keeps."""
        std_C = np.sqrt(self._squares_C / np.maximum(self.count_C, 1))
        return Statistics(
            mean=tuple(self.mean_C.tolist()), std=tuple(std_C.tolist()), count=tuple(self.count_C.tolist())
        )


class GatherECGs:
    """Leads, rate, lengths and statistics of all ECGs of a folder.

    Raises:
        ValueError: what is wrong with the flags, or with a sample in `add`.
    """

    def __init__(self, leads: Sequence[str] | None = None, sampling_rate: float | None = None) -> None:
        if sampling_rate is not None and not 0 < sampling_rate < math.inf:
            raise ValueError(f"a sampling rate of {sampling_rate:g} Hz can't be: --sampling-rate must be positive")
        if repeated := [name for number, name in enumerate(leads or ()) if name in (leads or ())[:number]]:
            raise ValueError(f"two leads are called {repeated[0]}: give each lead a name of its own")
        self._leads, self._rate = None if leads is None else tuple(leads), sampling_rate
        self._lengths: Counter[int] = Counter()
        self._moments: Moments | None = None
        self._missing: Counter[int] = Counter()

    def add(self, split: str, sample: Mapping[str, Any]) -> None:
        """Take in a sample."""
        ecg_CT, meta = sample["ecg"], sample["meta"]
        leads = self._agree_on_leads(meta.get("leads"))
        self._agree_on_rate(meta.get("sampling_rate"))
        if len(ecg_CT) != len(leads):
            raise ValueError(
                f"its ECG has {len(ecg_CT)} leads, not the {len(leads)} ({', '.join(leads)}) of the folder"
            )
        self._lengths[ecg_CT.shape[1]] += 1
        self._missing.update(np.flatnonzero(~sample["lead_keep"]).tolist())
        if split == TRAINING_SPLIT:
            self._moments = self._moments or Moments(len(leads))
            self._moments.add(ecg_CT, sample["lead_keep"])

    def _agree_on_leads(self, leads: Any) -> tuple[str, ...]:
        if leads is not None and not (isinstance(leads, list) and all(isinstance(lead, str) for lead in leads)):
            raise ValueError(f"leads in its json must be a list of names, not {leads!r}")
        if leads is not None and len(set(leads)) < len(leads):
            raise ValueError(f"leads in its json come twice: {', '.join(leads)}")
        if leads is not None and self._leads is None:
            self._leads = tuple(leads)
        if self._leads is None:
            raise ValueError("its json does not name the leads: name them with --leads")
        if leads is not None and tuple(leads) != self._leads:
            raise ValueError(f"its leads are [{', '.join(leads)}], those of the folder [{', '.join(self._leads)}]")
        return self._leads

    def _agree_on_rate(self, rate: Any) -> None:
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise ValueError(f"sampling_rate in its json must be a positive number of Hz, not {rate!r}")
        if self._rate is None:
            self._rate = rate
        if self._rate is None:
            raise ValueError("its json has no sampling_rate: give it in Hz with --sampling-rate")
        if rate is not None and rate != self._rate:
            raise ValueError(f"its sampling_rate is {rate:g} Hz, that of the folder {self._rate:g} Hz")

    def _missing_leads(self) -> dict[str, int]:
        assert self._leads is not None
        return {self._leads[lead]: count for lead, count in sorted(self._missing.items())}

    def facts(self) -> dict[str, Any]:
        """Of the index."""
        assert self._lengths
        return {
            "leads": self._leads,
            "sampling_rate": self._rate,
            "lengths": (min(self._lengths), max(self._lengths)),
            "statistics": self._moments.statistics() if self._moments else None,
            "missing_leads": self._missing_leads(),
        }

    def counts(self) -> dict[str, Any]:
        """What people are told; lengths are samples of a lead."""
        return {
            "leads": list(self._leads or ()),
            "sampling_rate": self._rate,
            "shortest": min(self._lengths, default=0),
            "longest": max(self._lengths, default=0),
            "lengths": dict(self._lengths.most_common(COMMON_LENGTHS)),
            "missing_leads": self._missing_leads(),
            "statistics": self._moments.statistics().model_dump() if self._moments else None,
        }


def _lines(counts: Mapping[str, Any]) -> Iterable[str]:
    rate = counts["sampling_rate"]
    common = ", ".join(f"{length:,} in {count:,}" for length, count in counts["lengths"].items())
    spans = f"{counts['shortest'] / rate:g} to {counts['longest'] / rate:g} s"
    yield f"lengths: {spans}; samples of a lead, the most frequent: {common}"
    missing = ", ".join(f"{lead} in {count:,}" for lead, count in counts["missing_leads"].items())
    yield f"leads without a signal: {missing or 'none'}"
    statistics = zip(counts["leads"], counts["statistics"]["mean"], counts["statistics"]["std"], strict=True)
    yield from columns(
        ("lead", "mean mV", "std mV"), [(lead, f"{mean:.4f}", f"{std:.4f}") for lead, mean, std in statistics]
    )


def _heading(index: ECGIndex) -> str:
    return f"leads {' '.join(index.leads)} at {index.sampling_rate:g} Hz"


def _remarks(index: ECGIndex) -> Iterable[str]:
    if index.statistics is None:
        yield f"there is no split {TRAINING_SPLIT} and so no statistics to normalise with"
    if index.missing_leads:
        counts = ", ".join(f"{lead} in {count:,}" for lead, count in index.missing_leads.items())
        yield f"leads that are missing or flat: {counts} samples; lead_keep is False for them"


ECG = Modality("ecg", FIELD, ECGIndex, _fields, _decode, GatherECGs, _lines, _heading, _remarks)
