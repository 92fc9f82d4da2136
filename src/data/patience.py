"""Reading from storage that fails now and then: tried again after growing pauses, with the file opened anew."""

from __future__ import annotations

import errno
import resource
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSES = (1.0, 3.0, 9.0)
"""Seconds before each further try: a server that restarts or a mount that moves is back by then, and a run whose
storage is gone ends within half a minute."""


def patiently(path: str, read: Callable[[], T], close: Callable[[], object]) -> T:
    """What `read` returns, which opens the file at `path` if need be; it is closed after each failure.

    Raises:
        ValueError: the storage failed at every try, or the process has too many files open; names the file and the
            cause.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            close()
            _refuse_too_many_files(path, error)
            time.sleep(pause)
    try:
        return read()
    except OSError as error:
        close()
        _refuse_too_many_files(path, error)
        raise ValueError(
            f"{path} can't be read ({error.strerror or error}) at {len(PAUSES) + 1} tries in {sum(PAUSES):.0f} s: see"
            " to the storage, then start the same command again, which goes on from its last checkpoint"
        ) from error


def _refuse_too_many_files(path: str, error: OSError) -> None:
    """That is no fault of the storage, and does not mend itself."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise ValueError(
            f"{path} can't be opened ({error.strerror}, this process may have {allowed:,}): raise the limit with"
            " `ulimit -n`, then start the same command again, which goes on from its last checkpoint"
        ) from error
