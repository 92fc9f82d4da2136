"""What a batch is about to read is told to the kernel, which then reads it all at a time, where storage is slow.

From memory that would be a call for nothing, so that it is done while reads are slower than memory, and tried without
now and then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from src.data.sample import Row

READ_SECONDS, BYTE_SECONDS = 20e-6, 1e-9
"""Of a read from memory at most: 1.3 us and 0.25 ns on two cores of an AMD EPYC."""
BATCHES = 16
"""That are told once reads were slow."""


class Readahead:
    """Reads samples, and knows whether the next batch should be told."""

    def __init__(self) -> None:
        self._left = 0
        self._reads, self._bytes, self._seconds = 0, 0, 0.0

    @property
    def wanted(self) -> bool:
        """Whether reading has been slow."""
        return self._left > 0

    def tell(self, descriptor: int, rows: Iterable[Row]) -> None:
        """Have the kernel begin to read."""
        for row in rows:
            os.posix_fadvise(descriptor, row.start, row.size, os.POSIX_FADV_WILLNEED)

    def read(self, descriptor: int, row: Row) -> bytes:
        """The extent of a sample."""
        begun = time.perf_counter()
        extent = os.pread(descriptor, row.size, row.start)
        self._seconds += time.perf_counter() - begun
        self._reads += 1
        self._bytes += row.size
        return extent

    def end_batch(self) -> None:
        """See how fast it was."""
        slow = self._seconds > READ_SECONDS * self._reads + BYTE_SECONDS * self._bytes
        self._left = BATCHES if slow else max(self._left - 1, 0)
        self._reads, self._bytes, self._seconds = 0, 0, 0.0
