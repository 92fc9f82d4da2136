"""The samples of several folders of shards under one numbering."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from src.data.sample import Sample
from src.data.shards import Shards

MAIN = "root"
"""The source that data.root names."""


class Sources:
    """Those of data.root first, then those of data.mixture in the order of their names."""

    def __init__(self, main: Shards, others: Mapping[str, Shards] | None = None) -> None:
        self.parts: dict[str, Shards] = {MAIN: main, **dict(sorted((others or {}).items()))}
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

    def read(self, samples: NDArray[np.int64]) -> list[Sample]:
        """The samples, in the order asked for; keys of others than data.root are `<source>:<key>`. Raises as Shards."""
        numbers = np.searchsorted(self._ends, samples, side="right")
        found: list[Sample | None] = [None] * len(samples)
        for number, (name, part) in enumerate(self.parts.items()):
            places = np.flatnonzero(numbers == number)
            for place, sample in zip(places.tolist(), part.read(samples[places] - self.offsets[number]), strict=True):
                found[place] = sample if number == 0 else {**sample, "key": f"{name}:{sample['key']}"}
        return [sample for sample in found if sample is not None]
