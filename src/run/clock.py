"""How fast a run goes, and how much of that time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Samples per second and the share of the time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._begun = time.perf_counter()
        self._waited = 0.0
        self._samples = 0

    def next(self, batches: Iterator[T]) -> T:
        """The next batch, with the time that it took counted as waiting."""
        begun = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - begun
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside does not count as time of training."""
        begun = time.perf_counter()
        yield
        self._begun += time.perf_counter() - begun

    def count(self, samples: int) -> None:
        """So many samples were trained on."""
        self._samples += samples

    def read(self) -> tuple[float, float]:
        """Samples per second and waiting share; the count starts anew."""
        elapsed = max(time.perf_counter() - self._begun, 1e-9)
        rate, share = self._samples / elapsed, self._waited / elapsed
        self._restart()
        return rate, share
