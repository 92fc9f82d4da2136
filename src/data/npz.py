"""One array in an .npz: bytes that depend on nothing but the array, read back without pickle and never past a bound."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from src.data.arrays import decode_npy, encode_npy

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold."""
LEVEL = 6
LOCAL_HEADER = struct.Struct("<26xHH")
"""Of an entry, up to the lengths of the name and the extra field that follow it."""


def pack_npz(name: str, array: NDArray[Any], compress: bool = False) -> bytes:
    """An .npz with one array, as `np.load` reads it; `compress` deflates it."""
    entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, encode_npy(array), compresslevel=LEVEL if compress else None)
    return packed.getvalue()


def unpack_npz(file: Path | memoryview, name: str | None, most: int) -> NDArray[Any]:
    """An array of an .npz: the one of this name, or the only one; at most `most` bytes are unpacked.

    Of bytes in memory that are not deflated it is a read-only view.

    Raises:
        ValueError: it is no .npz, damaged, lacks the array, or holds Python objects or more than `most` bytes.
    """
    try:
        with zipfile.ZipFile(file if isinstance(file, Path) else io.BufferedReader(_Bytes(file), 4096)) as archive:
            entry = _entry(archive, name)
            if entry.file_size > most:
                raise ValueError(f"its array {entry.filename} unpacks to {entry.file_size:,} bytes, more than {most:,}")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
                raise ValueError("it is packed in another way than numpy packs: save it again with numpy.savez")
            if isinstance(file, Path) or entry.compress_type != zipfile.ZIP_STORED:
                return decode_npy(memoryview(archive.read(entry)))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"it is no .npz or damaged ({error})") from None
    array = decode_npy(_stored(file, entry))
    return array if array.flags.aligned else array.copy()


class _Bytes(io.RawIOBase):
    """Bytes as a file, of which no copy is made as io.BytesIO makes one."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._place = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, len(self._data))[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        found = self._data[self._place : self._place + len(buffer)]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


def _stored(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry that is not deflated, behind its local header."""
    header = data[entry.header_offset : entry.header_offset + LOCAL_HEADER.size]
    if len(header) < LOCAL_HEADER.size:
        raise ValueError("it is no .npz or damaged (an entry lies behind its end)")
    name, extra = LOCAL_HEADER.unpack(header)
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    stored = data[start : start + entry.file_size]
    if len(stored) != entry.file_size or crc32(stored) != entry.CRC:
        raise ValueError(f"it is no .npz or damaged (Bad CRC-32 for file {entry.filename!r})")
    return stored


def _entry(archive: zipfile.ZipFile, name: str | None) -> zipfile.ZipInfo:
    found = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None or name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(
            f"it holds no array {name}: it holds {known}" if name else f"it holds several arrays ({known}): name one"
        )
    return found[name]
