"""Shards of samples that are in memory: made-up ones, beats, those of tests. Archives go through build.py.

A folder is built beside its place and renamed when it is whole, so that what has an index.json is complete. A build
that was killed leaves a hidden folder `.<name>.<number>.partial`, which may be deleted.
"""

# C leads, T samples of a lead, K labels

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import encode_npy
from src.data.index import Index, Labels
from src.data.make_index import Contents, Progress, make_index
from src.data.modalities.ecg import FIELD
from src.data.tars import (
    SAMPLES_PER_SHARD,
    TarWriter,
    check_key,
    check_split,
    move,
    refuse_taken,
    sample_files,
    tar_name,
)


@dataclass(frozen=True)
class Record:
    """A sample on its way into a shard."""

    split: str
    key: str
    """Letters, digits, - and _; one record of the whole folder."""
    signal_CT: NDArray[np.int16] | NDArray[np.float32]
    """Integers of the source with `scale` in the meta, or mV."""
    meta: dict[str, Any]
    """id, patient_id, labels (a list of K, None where unknown), scale (mV per unit of each lead), lead_keep, ..."""
    text: str | None = None
    """The report."""


class Files(NamedTuple):
    """A sample as a shard will hold it."""

    split: str
    key: str
    members: Mapping[str, bytes]
    """The bytes of its files, by what follows the key and a dot in their names."""


@dataclass(frozen=True)
class Description:
    """What all records of a folder share."""

    leads: tuple[str, ...]
    sampling_rate: float
    labels: Labels
    source: dict[str, Any]
    """How the records were made; no dates and no places of this machine, since it is part of the index's identity."""

    def contents(self) -> Contents:
        """The same, as every index is made from."""
        return Contents("ecg", self.labels, self.source, {"leads": self.leads, "sampling_rate": self.sampling_rate})


def write_shards(
    output: Path,
    records: Iterable[Record],
    description: Description,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    progress: Progress = iter,
) -> Index:
    """Write records, in their order, into <split>-000000.tar, ... with their index; returns the index.

    `progress` wraps the list of tars while they are indexed; the caller may wrap the records.

    Raises:
        FolderTaken: `output` is there and not empty.
        ValueError: a record that can't be stored, named.
    """
    files = (Files(record.split, record.key, members(record, description)) for record in records)
    return write_files(output, files, description.contents(), samples_per_shard, progress)


def write_files(
    output: Path,
    samples: Iterable[Files],
    contents: Contents,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    progress: Progress = iter,
) -> Index:
    """As `write_shards`, of samples of any modality, whose files are made already (`tars.sample_files`).

    Raises:
        FolderTaken: `output` is there and not empty.
        ValueError: a sample that can't be stored, named.
    """
    if samples_per_shard < 1:
        raise ValueError(f"a shard of {samples_per_shard} samples can't be: --samples-per-shard must be at least 1")
    output = output.resolve()
    refuse_taken(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        splits = _write_tars(partial, samples, samples_per_shard)
        index = make_index(partial, splits, contents, progress)
        move(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return index


def _write_tars(folder: Path, samples: Iterable[Files], samples_per_shard: int) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    writers: dict[str, _SplitWriter] = {}
    try:
        for split, key, files in samples:
            if split not in writers:
                writers[split] = _SplitWriter(folder, split, samples_per_shard)
                splits[split] = writers[split].tars
            writers[split].add(key, files)
    finally:
        for writer in writers.values():
            writer.close()
    if not splits:
        raise ValueError("there are no records: nothing was written")
    return splits


class _SplitWriter:
    """The tars of a split, one open at a time."""

    def __init__(self, folder: Path, split: str, samples_per_shard: int) -> None:
        check_split(split)
        self.folder, self.split, self.samples_per_shard = folder, split, samples_per_shard
        self.tars: list[Path] = []
        self._tar: TarWriter | None = None

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample, in a new tar if the last is full."""
        if self._tar is None or self._tar.samples == self.samples_per_shard:
            self.close()
            self.tars.append(self.folder / tar_name(self.split, len(self.tars)))
            self._tar = TarWriter(self.tars[-1])
        self._tar.add(key, members)

    def close(self) -> None:
        """Finish the open tar."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None


def members(record: Record, description: Description) -> dict[str, bytes]:
    """The files of a sample; each says by itself what its leads and units are."""
    check_key(record.key)
    if record.signal_CT.dtype not in (np.int16, np.float32):
        raise ValueError(f"record {record.key} is {record.signal_CT.dtype}: give int16 with a scale, or float32 in mV")
    meta = {**record.meta, "leads": list(description.leads), "sampling_rate": description.sampling_rate}
    return sample_files({FIELD: encode_npy(record.signal_CT)}, meta, record.text)
