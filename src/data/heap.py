"""Memory of a process that makes batches: what they are made in stays with it, and is trimmed now and then.

glibc returns the end of the heap, and what is large, to the kernel each time it is freed. The next batch then faults
in every page of it anew, which the kernel has to clear, up to a third of the time of a batch of images. So a process
keeps what it has, up to the largest array that the heap takes.

Arrays of a clip, freed in another order than they were made in, leave such a heap full of holes: a worker that decodes
videos would grow by half in some hundred clips were its heap not trimmed now and then (`tools.benchmark memory`).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h: parameters of mallopt."""
LARGEST = 32 << 20
"""Bytes of an array at most that glibc takes from the heap."""
KEPT = 1 << 30
"""Free bytes at the end of the heap."""

_library = ctypes.CDLL(None)
_trim = getattr(_library, "malloc_trim", None)
_set = getattr(_library, "mallopt", None)


def keep() -> None:
    """Let this process keep what it frees; nothing where the C library can't trim it (it is not glibc)."""
    if _trim is not None and _set is not None:
        _set(M_MMAP_THRESHOLD, LARGEST)
        _set(M_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Return what the heap holds and does not use; nothing where the C library can't."""
    if _trim is not None:
        _trim(0)
