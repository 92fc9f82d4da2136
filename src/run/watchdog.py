"""A rank that hangs ends, and leaves where it hung: in a collective that another rank never comes to, in a driver.

Python's own timer writes the stacks (faulthandler): a thread in C, which needs no interpreter, so that it also speaks
where a call that never returns holds the interpreter's lock.
"""

from __future__ import annotations

import faulthandler
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from src.distributed.variables import FAILURES
from src.run.failure import STACKS_HEADER

STDERR = 2
REARM_SECONDS = 1.0
"""The timer is set at most so often: it costs 0.1 ms, a thread."""
REARM_SHARE = 0.1
"""And as often as this share of the time allows."""


class Watchdog:
    """Ends this rank when it has given no sign of life for `seconds` (engine.timeout), from the first sign on.

    The stacks of all its threads go into rank-N.stacks in the folder that who started the rank has named, else to
    stderr.
    """

    def __init__(self, seconds: float, rank: int) -> None:
        self._seconds = seconds
        self._set, self._limit = -math.inf, seconds
        folder = os.environ.get(FAILURES)
        self._file = None if folder is None else (Path(folder) / f"rank-{rank}.stacks").open("wb", buffering=0)
        if self._file is not None:
            self._file.seek(STACKS_HEADER)

    def beat(self, at: str = "", at_least: float = 0.0) -> None:
        """Something got done; `at` says where the rank goes on, if that is new: `in step 12`.

        The next sign may take `at_least` so many seconds, where that is more.
        """
        limit = max(self._seconds, at_least)
        if at and self._file is not None:
            where = f"{at}: no sign of life for {limit:g} s{' (engine.timeout)' * (limit == self._seconds)}"
            with suppress(OSError):  # a full disk ends runs that have something to lose there
                os.pwrite(self._file.fileno(), where[: STACKS_HEADER - 1].ljust(STACKS_HEADER - 1).encode() + b"\n", 0)
        now = time.monotonic()
        if limit != self._limit or now - self._set >= min(REARM_SECONDS, REARM_SHARE * limit):
            faulthandler.dump_traceback_later(limit, exit=True, file=self._file or STDERR)
            self._set, self._limit = now, limit

    def rest(self) -> None:
        """Nothing is waited for any more."""
        faulthandler.cancel_dump_traceback_later()
        self._set = -math.inf
