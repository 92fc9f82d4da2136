"""Plain WebDataset tars from records: the same records always give the same bytes, on any machine and on any day.

A folder is built beside its place and renamed when it is whole, so that what has an index.json is complete. A build
that was killed leaves a hidden folder `.<name>.<number>.partial`, which may be deleted.
"""

# C leads, T samples of a lead, K labels

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.index import Index, Labels
from src.data.make_index import Progress, make_index
from src.data.sample import ECG_FIELD, META_FIELD, TEXT_FIELD
from src.files import sync

SAMPLES_PER_SHARD = 4096
"""10 MB of beats or 500 MB of 12-lead 10 s records at 500 Hz: few enough files for a cluster's storage, small enough
to copy one."""
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class FolderTaken(ValueError):
    """The output folder is there and is not empty."""


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


@dataclass(frozen=True)
class Description:
    """What all records of a folder share."""

    leads: tuple[str, ...]
    sampling_rate: float
    labels: Labels
    source: dict[str, Any]
    """How the records were made; no dates and no places of this machine, since it is part of the index's identity."""


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
    if samples_per_shard < 1:
        raise ValueError(f"a shard of {samples_per_shard} samples can't be: --samples-per-shard must be at least 1")
    output = output.resolve()
    refuse_taken(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        splits = _write_tars(partial, records, description, samples_per_shard)
        index = index_as_described(partial, splits, description, progress)
        move(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return index


def index_as_described(
    folder: Path,
    splits: Mapping[str, Sequence[Path]],
    description: Description,
    progress: Progress,
    count_duplicates: bool = False,
) -> Index:
    """Index tars that were written with a description."""
    return make_index(
        folder,
        splits,
        leads=description.leads,
        sampling_rate=description.sampling_rate,
        labels=description.labels,
        source=description.source,
        progress=progress,
        count_duplicates=count_duplicates,
    )


def refuse_taken(output: Path) -> None:
    """Refuse an output folder with something in it."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FolderTaken(f"{output} is there and not empty: name another output folder, or delete this one first")


def move(partial: Path, output: Path) -> None:
    """Rename; it replaces an empty folder, and fails if another process has filled it in the meantime."""
    try:
        partial.rename(output)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        refuse_taken(output)
        raise


def _write_tars(
    folder: Path, records: Iterable[Record], description: Description, samples_per_shard: int
) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    writers: dict[str, _SplitWriter] = {}
    try:
        for record in records:
            if record.split not in writers:
                writers[record.split] = _SplitWriter(folder, record.split, samples_per_shard)
                splits[record.split] = writers[record.split].tars
            writers[record.split].add(record.key, members(record, description))
    finally:
        for writer in writers.values():
            writer.close()
    if not splits:
        raise ValueError("there are no records: nothing was written")
    return splits


class TarWriter:
    """A tar whose bytes depend on nothing but its samples."""

    def __init__(self, path: Path) -> None:
        self.path, self.samples = path, 0
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append the files of a sample."""
        for field, data in members.items():
            header = tarfile.TarInfo(f"{key}.{field}")
            header.size, header.mode, header.mtime = len(data), 0o644, 0
            header.uid = header.gid = 0
            self._tar.addfile(header, io.BytesIO(data))
        self.samples += 1

    def close(self) -> None:
        """Write the end of the archive; it is on disk when this returns."""
        self._tar.close()
        sync(self.path)

    def abandon(self) -> None:
        """Remove a tar that can't be finished."""
        with suppress(OSError):  # what was buffered may not fit the disk either
            self._tar.close()
        self.path.unlink(missing_ok=True)


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


def check_split(split: str) -> None:
    """Refuse what can't be part of a file name."""
    if not SPLIT.fullmatch(split):
        raise ValueError(
            f"the split {split} can't be part of a file name: use a letter, then up to 63 letters, digits and _"
        )


def tar_name(split: str, number: int) -> str:
    """The name of a split's tar, counted from 0."""
    return f"{split}-{number:06d}.tar"


def members(record: Record, description: Description) -> dict[str, bytes]:
    """The files of a sample; each says by itself what its leads and units are."""
    if not KEY.fullmatch(record.key):
        raise ValueError(f"the key {record.key} must be 1 to 80 letters, digits, - and _, and start with none of these")
    if record.signal_CT.dtype not in (np.int16, np.float32):
        raise ValueError(f"record {record.key} is {record.signal_CT.dtype}: give int16 with a scale, or float32 in mV")
    array = io.BytesIO()
    signal_CT = np.ascontiguousarray(record.signal_CT, record.signal_CT.dtype.newbyteorder("<"))
    np.lib.format.write_array(array, signal_CT, version=(1, 0), allow_pickle=False)
    meta = {**record.meta, "leads": list(description.leads), "sampling_rate": description.sampling_rate}
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    files = {ECG_FIELD: array.getvalue(), META_FIELD: text.encode()}
    return files if record.text is None else {**files, TEXT_FIELD: record.text.encode()}
