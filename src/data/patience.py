"""Reading from storage that fails now and then: tried again after growing pauses, with the file opened anew."""

from __future__ import annotations

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
        ValueError: the storage failed at every try; names the file and the cause.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError:
            close()
            time.sleep(pause)
    try:
        return read()
    except OSError as error:
        close()
        raise ValueError(
            f"{path} can't be read ({error.strerror or error}) at {len(PAUSES) + 1} tries in {sum(PAUSES):.0f} s: see"
            " to the storage, then start the same command again, which goes on from its last checkpoint"
        ) from error
