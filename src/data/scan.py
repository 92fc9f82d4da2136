"""One pass over a tar: which samples it holds, and where. The same for our own tars and for those that others wrote.

What groups members into samples is WebDataset's rule: the key is the path up to the first dot of the file's name, the
rest is the field. tarfile ends quietly at a header that it can't read, so that a damaged or cut tar looks like a short
one: here a tar must end with its end-of-archive mark.
"""

from __future__ import annotations

import mmap
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from src.data.index import table_type

BLOCK = tarfile.BLOCKSIZE
MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""Key and field; a name that does not match (no dot, hidden) is of no sample."""


@dataclass
class _Extent:
    """The bytes of a sample in the tar and the places of its fields, counted from the tar's first byte."""

    key: str
    start: int
    stop: int
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)


def scan_tar(path: Path) -> NDArray[np.void]:
    """The offset table of a tar, a row a sample in the tar's order.

    Raises:
        ValueError: no plain tar, damaged or cut off, a key that comes twice or whose members are apart, links.
    """
    extents = list(_extents(path))
    if not extents:
        raise ValueError(f"{path.name} holds no samples: take it out of the folder")
    fields = sorted({name for extent in extents for name in extent.fields})
    keys = [extent.key.encode() for extent in extents]
    table = np.zeros(len(extents), table_type(max(map(len, keys)), fields))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        table["crc32"] = [crc32(memoryview(data)[extent.start : extent.stop]) for extent in extents]
    table["key"] = keys
    table["start"] = [extent.start for extent in extents]
    table["size"] = [extent.stop - extent.start for extent in extents]
    for name in fields:
        places = [extent.fields.get(name) for extent in extents]
        table[name]["offset"] = [place[0] - e.start if place else -1 for place, e in zip(places, extents, strict=True)]
        table[name]["size"] = [place[1] if place else -1 for place in places]
    return table


def _extents(path: Path) -> Iterator[_Extent]:
    """The samples of a tar, each with its contiguous extent."""
    current: _Extent | None = None
    seen: dict[str, set[str]] = {}
    for key, name, start, data, size in _members(path):
        if current is None or key != current.key:
            if current is not None:
                yield current
            if key in seen:
                raise ValueError(_comes_again(path, key, name in seen[key]))
            current, seen[key] = _Extent(key, start, start), set()
        if name in current.fields:
            raise ValueError(_comes_again(path, key, True))
        current.fields[name] = (data, size)
        current.stop = data + _padded(size)
        seen[key].add(name)
    if current is not None:
        yield current


def _comes_again(path: Path, key: str, twice: bool) -> str:
    if twice:
        return f"{path.name} holds the key {key} twice: give each sample a key of its own and write the tar again"
    return f"{path.name} holds other members between those of sample {key}: write a sample's members one after another"


def _members(path: Path) -> Iterator[tuple[str, str, int, int, int]]:
    """(key, field, start of the header, start of the data, size) of each member that belongs to a sample."""
    stop, size = 0, path.stat().st_size
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="strict") as tar:
            for member in tar:
                stop = member.offset_data + (0 if member.isdir() else _padded(member.size))
                if stop > size:
                    break
                if member.isdir():
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                    raise ValueError(f"{path.name}: {member.name} is a link or a sparse file: write it as a plain file")
                if match := MEMBER.fullmatch(member.name):
                    yield match[1], match[2], member.offset, member.offset_data, member.size
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path.name} is no plain tar with names in UTF-8, or is damaged ({error}): restore it or write it"
            " again as such"
        ) from error
    if not _ends_here(path, stop):
        raise ValueError(
            f"{path.name} is cut off or damaged at byte {min(stop, size):,}, where the next member or the end of the"
            " archive should be: restore it or write it again"
        )


def _ends_here(path: Path, stop: int) -> bool:
    """Whether there is at least one block after `stop`, and zeros only."""
    with path.open("rb") as file:
        file.seek(stop)
        found = False
        while chunk := file.read(1 << 20):
            if any(chunk):
                return False
            found = found or len(chunk) >= BLOCK
    return found


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
