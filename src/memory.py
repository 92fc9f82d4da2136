"""Memory for the arrays that become a batch: the process's own, or where a loader's worker will hand them over.

What is made there needs no copy to reach the rank, and its pages are there already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any] | None]
_allocate: Allocate | None = None
"""What a worker has set, if this process is one."""


def set_allocator(allocate: Allocate | None) -> None:
    """Have this process make its batches where `allocate` says; it returns None for what has no place there."""
    global _allocate
    _allocate = allocate


def empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array with anything in it, as np.empty. It is for one batch alone: the next may be written over it."""
    found = _allocate(shape, np.dtype(np.float32)) if _allocate else None
    return np.empty(shape, np.float32) if found is None else found
