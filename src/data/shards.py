"""Random access to the samples of a split: one pread a sample, checked by its CRC32.

An index beats streaming by more than ten times on small records, and it is what makes the order exact. One process
reads 20,000 to 30,000 beats a second (two leads of a second, JSON and CRC32 included) in random order from a warm
cache. What is kept in memory grows with the list of shards; tables are memory-mapped, files opened on first use.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from src.config.data import CacheConfig, is_address
from src.data.broken import BrokenSample
from src.data.index import Index, ShardEntry
from src.data.load_index import read_index
from src.data.modalities import MODALITIES
from src.data.modality import Modality
from src.data.patience import patiently
from src.data.readahead import Readahead
from src.data.roots import OpenTar, find_root
from src.data.sample import About, Row, Sample, decode_about, decode_sample, decode_text, fields_of, rows

T = TypeVar("T")

OPEN_SHARDS = 128
"""Shards of all readers of a process that are open at a time: two file descriptors each, of usually 1,024."""


class _OpenShard:
    """A tar's file descriptor, table and the members with the content of its samples."""

    def __init__(self, name: str, tar: OpenTar, modality: Modality) -> None:
        self.name = name
        self.path, self.descriptor, self.table, _ = tar
        """It is read by pread alone, which leaves no position behind: forked workers share it."""
        self.fields = fields_of(self.table, modality)

    def read_anew(self, row: Row) -> bytes:
        """The extent of a sample from the storage: all of the file leaves the page cache, since parts of pages would
        stay.
        """
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(self.descriptor, row.size, row.start)

    def member(self, row: Row, place: tuple[int, int]) -> memoryview | None:
        """A member of a sample alone; None where it has no such member."""
        offset, size = place
        return memoryview(os.pread(self.descriptor, size, row.start + offset)) if offset >= 0 else None

    @property
    def evicted(self) -> bool:
        """Whether it has no name any more, so that the disk has its bytes back when it is closed."""
        return os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        os.close(self.descriptor)


class Shards:
    """The samples of one split of a shards folder, by their global number 0 .. len - 1.

    `root` is a folder, or an address whose shards are fetched into `cache`. Can be pickled and forked. Not for several
    threads at once, nor are two readers of a process.

    Raises:
        ValueError: no or a damaged index, an unknown split, a missing tar, one that has not the size it was indexed
            with, or a storage that can't be read.
    """

    _open: ClassVar[OrderedDict[tuple[int, int], _OpenShard]] = OrderedDict()
    """Of all readers of the process, by reader and number; the one that was not used for longest comes first."""

    def __init__(self, root: Path | str, split: str, cache: CacheConfig | None = None) -> None:
        self._root, self.split = find_root(root, cache), split
        self.root, self.cache = self._root.name, cache
        self.remote = is_address(str(root))
        self.index, self.sha256 = read_index(self._root)
        self._entries = _entries(self.root, self.index, split)
        self._root.check(self._entries)
        self._labels = len(self.index.labels.names)
        self._modality = MODALITIES[self.index.modality]
        self._ends = np.cumsum([entry.samples for entry in self._entries], dtype=np.int64)
        self._readahead = Readahead()
        self._verified: dict[int, int] = {}
        """The stamp of each shard when it was compared with the index."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """What the K labels of a sample stand for."""
        return self.index.labels.names

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each shard, in the order of their numbers."""
        return tuple(entry.samples for entry in self._entries)

    @property
    def tar_sizes(self) -> tuple[int, ...]:
        """Bytes of each tar."""
        return tuple(entry.bytes for entry in self._entries)

    def numbers(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the shards that hold samples, each once."""
        return np.unique(np.searchsorted(self._ends, samples, side="right"))

    def fetch(self, number: int) -> None:
        """Have a shard of an address in the cache, or see to it that another process does; several threads may ask.

        Raises: as `read`.
        """
        self._root.fetch(self._entries[number])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def keys(self, samples: NDArray[np.int64]) -> list[str]:
        """The keys of samples, without reading the samples."""
        found = [""] * len(samples)
        for number, rows_P, places in self._by_shard(samples):
            for place, key in zip(places, self._patiently(number, partial(self._keys, number, rows_P)), strict=True):
                found[place] = key
        return found

    def read(self, samples: NDArray[np.int64]) -> list[Sample]:
        """The samples, in the order asked for.

        Raises:
            BrokenSample: a sample's bytes are not those that were indexed, or can't be decoded.
            ValueError: the storage fails and goes on failing; names the file.
        """
        read = self.read_each(samples, _unwatched)
        for sample in read:
            if isinstance(sample, BrokenSample):
                raise sample
        return cast(list[Sample], read)

    def read_each(self, samples: NDArray[np.int64], reading: Callable[[str], object]) -> list[Sample | BrokenSample]:
        """As `read`, with what is wrong with a broken sample in its place; tells `reading` which shard it turns to.

        Raises:
            ValueError: as `read`.
        """
        found: list[Any] = [None] * len(samples)
        groups = list(self._by_shard(samples))
        if self._readahead.wanted and len(groups) <= OPEN_SHARDS // 2:
            self._tell(groups, reading)
        for number, rows_P, places in groups:
            reading(self._entries[number].name)
            read = self._patiently(number, partial(self._read_shard, number, rows_P))
            for place, sample in zip(places, read, strict=True):
                found[place] = sample
        self._readahead.end_batch()
        return found

    def _tell(
        self, groups: Sequence[tuple[int, NDArray[np.int64], list[int]]], reading: Callable[[str], object]
    ) -> None:
        """Have the kernel begin to read what the groups name; what fails is left to the reader."""
        for number, rows_P, _ in groups:
            reading(self._entries[number].name)
            try:
                shard = self._shard(number)
                self._readahead.tell(shard.descriptor, rows(shard.table[rows_P], shard.fields))
            except (ValueError, OSError):
                continue

    def shard_of(self, sample: int) -> tuple[str, str]:
        """The name of the tar that holds a sample, and where it is."""
        name = self._entries[int(np.searchsorted(self._ends, sample, side="right"))].name
        return name, f"{self.root}/{name}"

    def batches(self, samples: NDArray[np.int64] | None = None, size: int = 512) -> Iterator[list[Sample]]:
        """Samples, or all of the split, in order and `size` at a time, so that few are in memory."""
        samples = np.arange(len(self)) if samples is None else samples
        for start in range(0, len(samples), size):
            yield self.read(samples[start : start + size])

    def about(self) -> Iterator[About]:
        """Key, labels and metadata of each sample in order, without reading its content.

        Raises:
            ValueError: as `read`.
        """
        for number in range(len(self._entries)):
            yield from self._patiently(number, partial(self._about, number))

    def texts(self) -> Iterator[str | None]:
        """The report of each sample in order, None where it has none, without reading the rest of it.

        Raises:
            ValueError: as `read`.
        """
        for number in range(len(self._entries)):
            yield from self._patiently(number, partial(self._texts, number))

    def _patiently(self, number: int, read: Callable[[], list[T]]) -> list[T]:
        """What is read of a shard, which is opened anew where its storage fails."""
        return patiently(f"{self.root}/{self._entries[number].name}", read, partial(self._forget, number))

    def _keys(self, number: int, rows_P: NDArray[np.int64]) -> list[str]:
        return [key.decode() for key in self._shard(number).table["key"][rows_P].tolist()]

    def _read_shard(self, number: int, rows_P: NDArray[np.int64]) -> list[Sample | BrokenSample]:
        shard, found = self._shard(number), list[Sample | BrokenSample]()
        for row in rows(shard.table[rows_P], shard.fields):
            extent = self._readahead.read(shard.descriptor, row)
            if not _intact(extent, row):
                shard = self._anew(number)
                extent = shard.read_anew(row)
                if not _intact(extent, row):
                    found.append(_damaged(shard, row))
                    continue
            found.append(self._decoded(shard, row, extent))
        return found

    def _about(self, number: int) -> list[About]:
        shard, found = self._shard(number), []
        for row in rows(shard.table, shard.fields):
            told, category = (shard.member(row, place) for place in (row.meta, row.category))
            try:
                found.append(decode_about(row.key.decode(), told, category, self._labels))
            except ValueError as error:
                raise _undecodable(shard, row, error) from error
        return found

    def _texts(self, number: int) -> list[str | None]:
        shard, found = self._shard(number), list[str | None]()
        for row in rows(shard.table, shard.fields):
            text = shard.member(row, row.text)
            try:
                found.append(None if text is None else decode_text(text))
            except ValueError as error:
                raise _undecodable(shard, row, error) from error
        return found

    def _decoded(self, shard: _OpenShard, row: Row, extent: bytes) -> Sample | BrokenSample:
        try:
            return decode_sample(row, extent, self._labels, self._modality, shard.fields)
        except ValueError as error:
            return _undecodable(shard, row, error)

    def _anew(self, number: int) -> _OpenShard:
        """A shard for a second look: memories, networks and caches slip, and what is damaged stays so."""
        self._forget(number)
        self._root.drop(self._entries[number])
        return self._shard(number)

    def _by_shard(self, samples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], list[int]]]:
        """For each shard with some of the samples: its number, their rows in its table, their places in `samples`."""
        samples = np.asarray(samples, np.int64)
        assert samples.size == 0 or (samples.min() >= 0 and samples.max() < len(self)), "no such sample"
        by_number = np.argsort(samples, kind="stable")
        ordered = samples[by_number]
        shards = np.searchsorted(self._ends, ordered, side="right")
        starts = np.flatnonzero(np.diff(shards, prepend=-1)).tolist()
        for start, stop in pairwise([*starts, len(samples)]):
            number = int(shards[start])
            first = self._ends[number] - self._entries[number].samples
            yield number, ordered[start:stop] - first, by_number[start:stop].tolist()

    def _shard(self, number: int) -> _OpenShard:
        """An open shard; the one that was not used for longest is closed for it."""
        key = id(self), number
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        tar = self._root.open(self._entries[number], self._verified.get(number))
        self._verified[number] = tar.stamp
        self._open[key] = _OpenShard(self._entries[number].name, tar, self._modality)
        if self.remote:
            for other in [other for other, shard in self._open.items() if shard.evicted and other != key]:
                self._open.pop(other).close()
        return self._open[key]

    def _forget(self, number: int) -> None:
        """Close a shard if it is open; the next read opens it again."""
        key = id(self), number
        if key in self._open:
            self._open.pop(key).close()

    def close(self) -> None:
        """Close all files; reading opens them again."""
        for reader, number in list(self._open):
            if reader == id(self):
                self._forget(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_verified": {}}


def _unwatched(_: str) -> None:
    """Nobody wants to know which shard is being read."""


def _intact(extent: bytes, row: Row) -> bool:
    return len(extent) == row.size and crc32(extent) == row.crc32


def _damaged(shard: _OpenShard, row: Row) -> BrokenSample:
    key = row.key.decode()
    sentence = (
        f"{shard.path} is damaged at sample {key}: bytes {row.start} to {row.start + row.size} are not those that were"
        " indexed: restore the file from its source or build the shards again"
    )
    return BrokenSample(shard.name, key, sentence)


def _undecodable(shard: _OpenShard, row: Row, error: ValueError) -> BrokenSample:
    key = row.key.decode()
    return BrokenSample(shard.name, key, f"{shard.path}: sample {key}: {error}: build the shards again")


def _entries(root: str, index: Index, split: str) -> tuple[ShardEntry, ...]:
    if split not in index.splits:
        raise ValueError(f"{root} has no split {split}: set data.split to one of {', '.join(index.splits)}")
    return index.splits[split]
