"""The index of a folder of tars: where each sample lies, what all of them share, and the training split's statistics.

Every sample is decoded once here, so that what would stop a training run after a night is told while building.
"""

# C leads, T samples of a lead

from __future__ import annotations

import hashlib
import io
import math
import mmap
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.index import (
    INDEX_NAME,
    TRAINING_SPLIT,
    Index,
    Labels,
    ShardEntry,
    Statistics,
    save_index,
    table_path,
)
from src.data.sample import Sample, decode_sample, rows
from src.data.scan import scan_tar
from src.files import sha256_of

Progress = Callable[[Collection[Path]], Iterable[Path]]
"""Wraps the list of tars to show how far it is, as tqdm does."""


def find_tars(root: Path, patterns: Mapping[str, str] | None = None) -> dict[str, list[Path]]:
    """The tars of a folder that has no index yet, by split, each split in the order of the names.

    Without patterns the split is the name less its number (`train-000012.tar`); with them it is {split: glob}, and
    tars that no glob matches are left out.

    Raises:
        ValueError: no folder, no tars, an index that is there already, a tar in two splits.
    """
    tars = sorted(root.glob("*.tar"))
    if not tars:
        raise ValueError(f"{root} holds no .tar: name the folder of the shards with --input")
    if (root / INDEX_NAME).exists():
        raise ValueError(f"{root} has an {INDEX_NAME} already: delete it to index the folder again")
    splits: dict[str, list[Path]] = {}
    if patterns is None:
        for tar in tars:
            splits.setdefault(re.sub(r"[-_.]?\d+$", "", tar.stem) or "all", []).append(tar)
        return splits
    for split, pattern in patterns.items():
        splits[split] = [tar for tar in tars if tar.match(pattern)]
        if not splits[split]:
            raise ValueError(f"no .tar in {root} matches {pattern}, which --split gives for {split}")
        for other in list(splits)[:-1]:
            if both := set(splits[split]) & set(splits[other]):
                raise ValueError(f"{min(both)} matches both {other} and {split}: keep each tar in one --split")
    return splits


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


class Survey:
    """What all samples of a folder share, gathered and checked sample by sample.

    Raises:
        ValueError: what is wrong with the flags, or with a sample in `add`, where the caller adds the file and the key.
    """

    def __init__(self, leads: Sequence[str] | None, sampling_rate: float | None, labels: Labels) -> None:
        if sampling_rate is not None and not 0 < sampling_rate < math.inf:
            raise ValueError(f"a sampling rate of {sampling_rate:g} Hz can't be: --sampling-rate must be positive")
        for kind, names in (("lead", leads or ()), ("label", labels.names)):
            if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
                raise ValueError(f"two {kind}s are called {repeated[0]}: give each {kind} a name of its own")
        self.leads, self.sampling_rate, self.labels = None if leads is None else tuple(leads), sampling_rate, labels
        self.lengths: tuple[int, int] | None = None
        self.split_of: dict[str, str] = {}
        self.moments: Moments | None = None
        self.texts: Counter[str] = Counter()
        self._missing: Counter[int] = Counter()

    def add(self, split: str, sample: Sample) -> None:
        """Take in a sample."""
        ecg_CT, meta = sample["ecg"], sample["meta"]
        leads = self._agree_on_leads(meta.get("leads"))
        self._agree_on_rate(meta.get("sampling_rate"))
        if len(ecg_CT) != len(leads):
            raise ValueError(
                f"its ECG has {len(ecg_CT)} leads, not the {len(leads)} ({', '.join(leads)}) of the folder"
            )
        if not np.isfinite(ecg_CT).all():
            raise ValueError("its ECG holds NaN or infinite values")
        shortest, longest = self.lengths or (ecg_CT.shape[1], ecg_CT.shape[1])
        self.lengths = (min(shortest, ecg_CT.shape[1]), max(longest, ecg_CT.shape[1]))
        self._one_split(meta.get("patient_id"), split)
        self.texts[split] += sample["text"] is not None
        self._missing.update(np.flatnonzero(~sample["lead_keep"]).tolist())
        if split == TRAINING_SPLIT:
            self.moments = self.moments or Moments(len(leads))
            self.moments.add(ecg_CT, sample["lead_keep"])

    def _agree_on_leads(self, leads: Any) -> tuple[str, ...]:
        if leads is not None and not (isinstance(leads, list) and all(isinstance(lead, str) for lead in leads)):
            raise ValueError(f"leads in its json must be a list of names, not {leads!r}")
        if leads is not None and len(set(leads)) < len(leads):
            raise ValueError(f"leads in its json come twice: {', '.join(leads)}")
        if leads is not None and self.leads is None:
            self.leads = tuple(leads)
        if self.leads is None:
            raise ValueError("its json does not name the leads: name them with --leads")
        if leads is not None and tuple(leads) != self.leads:
            raise ValueError(f"its leads are [{', '.join(leads)}], those of the folder [{', '.join(self.leads)}]")
        return self.leads

    def _agree_on_rate(self, rate: Any) -> None:
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise ValueError(f"sampling_rate in its json must be a positive number of Hz, not {rate!r}")
        if self.sampling_rate is None:
            self.sampling_rate = rate
        if self.sampling_rate is None:
            raise ValueError("its json has no sampling_rate: give it in Hz with --sampling-rate")
        if rate is not None and rate != self.sampling_rate:
            raise ValueError(f"its sampling_rate is {rate:g} Hz, that of the folder {self.sampling_rate:g} Hz")

    def _one_split(self, patient: Any, split: str) -> None:
        """A patient in two splits would let a model be scored on what it has learnt by heart."""
        if patient is not None and self.split_of.setdefault(str(patient), split) != split:
            raise ValueError(
                f"its patient {patient} is in the splits {self.split_of[str(patient)]} and {split}: keep each in one"
            )

    def missing_leads(self) -> dict[str, int]:
        """Samples without a signal in a lead, for each lead that has such."""
        assert self.leads is not None
        return {self.leads[lead]: count for lead, count in sorted(self._missing.items())}

    def patients(self, splits: Iterable[str]) -> dict[str, int]:
        """Different patients of each split."""
        of_patients = list(self.split_of.values())
        return {split: of_patients.count(split) for split in splits}


def make_index(
    root: Path,
    splits: Mapping[str, Sequence[Path]],
    *,
    leads: Sequence[str] | None,
    sampling_rate: float | None,
    labels: Labels,
    source: dict[str, Any],
    progress: Progress = iter,
    count_duplicates: bool = False,
) -> Index:
    """Scan the tars of each split, write their tables and at last index.json.

    Args:
        root: the folder of the tars.
        splits: the tars of each split, in the order that numbers the samples.
        leads: names of the leads; None takes them from the json members.
        sampling_rate: in Hz; None takes it from the json members.
        labels: names of the labels of each sample, in order.
        source: how the samples were made.
        progress: shows how far it is.
        count_duplicates: put into `source` how many samples hold the very signal of another (`duplicates`), and
            how many such signals are in several splits (`duplicates_across_splits`); some 100 bytes a sample meanwhile.

    Raises:
        ValueError: a tar or a sample that can't be used, named.
    """
    survey = Survey(leads, sampling_rate, labels)
    split_of = {tar: split for split, tars in splits.items() for tar in tars}
    entries: dict[str, list[ShardEntry]] = {split: [] for split in splits}
    keys: list[NDArray[np.bytes_]] = []
    hashes: dict[str, list[NDArray[np.void]]] = {split: [] for split in splits}
    for tar in progress(split_of):
        table = scan_tar(tar)
        if count_duplicates:
            hashes[split_of[tar]].append(_hash_signals(tar, table))
        _survey_tar(survey, split_of[tar], tar, table)
        keys.append(table["key"])
        entries[split_of[tar]].append(_write_table(tar, table))
    _refuse_repeated_keys(list(split_of), keys)
    assert survey.leads is not None and survey.sampling_rate is not None and survey.lengths is not None
    index = Index(
        leads=survey.leads,
        sampling_rate=survey.sampling_rate,
        lengths=survey.lengths,
        labels=labels,
        statistics=survey.moments.statistics() if survey.moments else None,
        patients=survey.patients(splits),
        texts={split: survey.texts[split] for split in splits},
        missing_leads=survey.missing_leads(),
        splits={split: tuple(shards) for split, shards in entries.items()},
        source={**source, **_duplicates(hashes)} if count_duplicates else source,
    )
    save_index(root, index)
    return index


def _survey_tar(survey: Survey, split: str, tar: Path, table: NDArray[np.void]) -> None:
    """Decode each sample of a tar that was just scanned."""
    labels = len(survey.labels.names)
    with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for row in rows(table):
            try:
                survey.add(split, decode_sample(row, data[row.start : row.start + row.size], labels))
            except ValueError as error:
                raise ValueError(f"{tar.name}: sample {row.key.decode()} can't be used: {error}") from error


def _hash_signals(tar: Path, table: NDArray[np.void]) -> NDArray[np.void]:
    """The sha256 of the stored signal of each sample, [samples] of 32 bytes."""
    digests = bytearray()
    with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for row in rows(table):
            start = row.start + row.ecg[0]
            digests += hashlib.sha256(data[start : start + row.ecg[1]]).digest()
    return np.frombuffer(bytes(digests), "V32")


def _duplicates(hashes: Mapping[str, Sequence[NDArray[np.void]]]) -> dict[str, int]:
    """Samples whose signal an earlier one has, and signals that are in several splits."""
    of_splits = [np.concatenate(own).view("S32") for own in hashes.values() if own]
    # S32 leaves out zeros at the end: two digests would have to agree in all else
    different = [np.unique(own) for own in of_splits]
    _, counts = np.unique(np.concatenate(different), return_counts=True)
    return {
        "duplicates": sum(map(len, of_splits)) - len(counts),
        "duplicates_across_splits": int((counts > 1).sum()),
    }


def _write_table(tar: Path, table: NDArray[np.void]) -> ShardEntry:
    path = table_path(tar)
    content = io.BytesIO()  # numpy writes into a file by itself and can't say why it fails
    np.lib.format.write_array(content, table, version=(1, 0), allow_pickle=False)
    path.write_bytes(content.getvalue())
    return ShardEntry(
        name=tar.name,
        samples=len(table),
        bytes=tar.stat().st_size,
        sha256=sha256_of(tar),
        index_sha256=sha256_of(path),
    )


def _refuse_repeated_keys(tars: list[Path], keys: list[NDArray[np.bytes_]]) -> None:
    """Keys name samples in the audit and in errors, so that one must not stand for two."""
    ordered = np.sort(np.concatenate(keys))
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        key = ordered[repeated[0]]
        first, second = [tar for tar, own in zip(tars, keys, strict=True) if key in own][:2]
        raise ValueError(
            f"{first.name} and {second.name} both hold the key {key.decode()}: give each sample of a folder a key of"
            " its own and index it again"
        )
