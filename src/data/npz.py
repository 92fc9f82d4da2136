"""One array in an .npz: bytes that depend on nothing but the array, read back without pickle and never past a bound."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from src.data.arrays import decode_npy, encode_npy

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold."""
LEVEL = 6


def pack_npz(name: str, array: NDArray[Any], compress: bool = False) -> bytes:
    """An .npz with one array, as `np.load` reads it; `compress` deflates it."""
    entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, encode_npy(array), compresslevel=LEVEL if compress else None)
    return packed.getvalue()


def unpack_npz(file: Path | BinaryIO, name: str | None, most: int) -> NDArray[Any]:
    """An array of an .npz: the one of this name, or the only one; at most `most` bytes are unpacked.

    Raises:
        ValueError: it is no .npz, damaged, lacks the array, or holds Python objects or more than `most` bytes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entry = _entry(archive, name)
            if entry.file_size > most:
                raise ValueError(f"its array {entry.filename} unpacks to {entry.file_size:,} bytes, more than {most:,}")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
                raise ValueError("it is packed in another way than numpy packs: save it again with numpy.savez")
            data = archive.read(entry)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"it is no .npz or damaged ({error})") from None
    return decode_npy(memoryview(data))


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
