"""The samples of several folders of shards under one numbering."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.broken import BrokenSample
from src.data.sample import Sample
from src.data.shards import Shards

MAIN = "root"
"""The source that data.root names."""


class Sources:
    """Those of data.root first, then those of data.mixture in the order of their names."""

    def __init__(self, main: Shards, others: Mapping[str, Shards] | None = None) -> None:
        self.parts: dict[str, Shards] = {MAIN: main, **dict(sorted((others or {}).items()))}
        self._columns = {name: _columns(part, main) for name, part in self.parts.items()}
        self._ends = np.cumsum([len(part) for part in self.parts.values()], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def sha256(self) -> str:
        """Stands for the data: that of the index, or of all names and indexes."""
        main, *others = self.parts.items()
        if not others:
            return main[1].sha256
        lines = "\n".join(f"{name} {part.sha256}" for name, part in self.parts.items())
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def offsets(self) -> list[int]:
        """The number of each source's first sample."""
        return [0, *self._ends[:-1].tolist()]

    @property
    def remote(self) -> list[Shards]:
        """The sources behind an address."""
        return [part for part in self.parts.values() if part.remote]

    @property
    def tar_sizes(self) -> list[int]:
        """Bytes that each tar of all sources takes in the cache, none where it lies on this machine."""
        return [size if part.remote else 0 for part in self.parts.values() for size in part.tar_sizes]

    def numbers(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the shards that hold samples, each once; those of a source follow those of the one before."""
        found, first = [], 0
        for (start, end), part in zip(pairwise([0, *self._ends.tolist()]), self.parts.values(), strict=True):
            own = samples[(samples >= start) & (samples < end)]
            found.append(part.numbers(own - start) + first)
            first += len(part.sizes)
        return np.concatenate(found)

    def fetch(self, number: int) -> None:
        """As `Shards.fetch`."""
        for part in self.parts.values():
            if number < len(part.sizes):
                return part.fetch(number)
            number -= len(part.sizes)
        raise AssertionError("no such shard")

    def read_each(self, samples: NDArray[np.int64], reading: Callable[[str], object]) -> list[Sample | BrokenSample]:
        """As `Shards.read_each`, with the labels of data.root, NaN where a source has none of that name.

        Keys and shards of others than data.root are `<source>:<name>`.
        """
        numbers = np.searchsorted(self._ends, samples, side="right")
        found: list[Any] = [None] * len(samples)
        for number, (name, part) in enumerate(self.parts.items()):
            places = np.flatnonzero(numbers == number)
            read = part.read_each(samples[places] - self.offsets[number], reading)
            for place, sample in zip(places.tolist(), read, strict=True):
                found[place] = sample if number == 0 else _named(name, self._columns[name], sample)
        return found

    def shard_of(self, sample: int) -> tuple[str, str]:
        """The name of the tar that holds a sample, and where it is."""
        number = int(np.searchsorted(self._ends, sample, side="right"))
        name, part = list(self.parts.items())[number]
        shard, place = part.shard_of(sample - self.offsets[number])
        return shard if number == 0 else f"{name}:{shard}", place


def _named(source: str, columns_K: NDArray[np.int64] | None, sample: Sample | BrokenSample) -> Sample | BrokenSample:
    if isinstance(sample, BrokenSample):
        return BrokenSample(f"{source}:{sample.shard}", f"{source}:{sample.key}", str(sample))
    labels_K = sample["labels"] if columns_K is None else np.append(sample["labels"], np.float32(np.nan))[columns_K]
    return {**sample, "key": f"{source}:{sample['key']}", "labels": labels_K}


def _columns(part: Shards, main: Shards) -> NDArray[np.int64] | None:
    """Where in a sample's labels those of data.root stand, -1 where it has no such label; None if they are the same."""
    own = {name: number for number, name in enumerate(part.label_names)}
    if part.label_names == main.label_names:
        return None
    return np.array([own.get(name, -1) for name in main.label_names], np.int64)
