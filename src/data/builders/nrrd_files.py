"""Reads NRRD through pynrrd; key-values, comments and all other free text of a header are not looked at."""

from __future__ import annotations

import bz2
import io
import math
import os
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable, refuse_special, told
from src.data.builders.volumes import Volume, described
from src.data.modalities.ct import LARGEST_VOLUME

SUFFIXES = (".nrrd", ".nhdr")
LONGEST_HEADER = 1 << 20
TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
"""Signs that bring a space's x, y, z to right, anterior, superior; other spaces are not of a patient."""
MILLIMETRES = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "micron": 0.001}
"""Of a unit of length; where none is named, mm are customary."""
GZIP, BZIP2, PLAIN = ("gzip", "gz"), ("bzip2", "bz2"), ("raw", "ascii", "text", "txt")


def read_nrrd(path: Path) -> Volume:
    """The volume of a `.nrrd`, or of a `.nhdr` whose data lie beside or below it, bit for bit as pynrrd reads it.

    Raises:
        ValueError: a file is missing, damaged, too large, elsewhere, or no volume.
    """
    import nrrd

    with told(path, "NRRD"):
        refuse_special(path)
        with path.open("rb") as file:
            start = file.read(LONGEST_HEADER)
            header, length = _header(start)
            sizes = _sizes(header)
            detached = _data_file(path, header)
            if detached is None:
                file.seek(length)
                data = _whole(file)
            else:
                refuse_special(detached)
                with detached.open("rb") as other:
                    data = _whole(other)
        encoding = str(header.get("encoding", "")).casefold()
        raw = _unpacked(data, encoding, math.prod(sizes) * 8)
        alone = {name: header[name] for name in ("type", "dimension", "sizes", "endian") if name in header}
        alone["encoding"] = encoding if encoding in PLAIN else "raw"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                array = nrrd.read_data(alone, io.BytesIO(raw), None, "F")
            except Exception as error:  # what pynrrd says may quote the header
                raise Unusable(f"its voxels can't be read ({type(error).__name__}): it is damaged") from None
    if array.dtype.kind not in "iuf":
        raise Unusable(f"its voxels are {array.dtype}, expected are numbers")
    return _volume(array, header)


def _header(start: bytes) -> tuple[Any, int]:
    """The header through pynrrd, and its bytes in the file."""
    import nrrd

    if not start.startswith(b"NRRD000"):
        raise Unusable("it is empty" if not start else "it does not begin with NRRD000")
    ends = [place + len(gap) for gap in (b"\n\n", b"\r\n\r\n") if (place := start.find(gap)) >= 0]
    length = min(ends, default=len(start))
    if not ends and len(start) >= LONGEST_HEADER:
        raise Unusable(f"its header does not end within {LONGEST_HEADER:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return nrrd.read_header(io.BytesIO(start[:length])), length
        except Exception as error:  # what pynrrd says may quote the header
            raise Unusable(f"its header can't be read ({type(error).__name__})") from None


def _sizes(header: Any) -> list[int]:
    sizes = [int(size) for size in np.atleast_1d(header.get("sizes", []))]
    if len(sizes) not in (3, 4) or min(sizes) < 1 or math.prod(sizes) != math.prod(sorted(sizes)[-3:]):
        raise Unusable(f"it has the sizes {sizes}, expected is one volume of three axes")
    if math.prod(sizes) > LARGEST_VOLUME:
        raise Unusable(
            f"its header announces {math.prod(sizes):,} voxels, more than the {LARGEST_VOLUME:,} bytes of a volume"
        )
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if int(header.get(name, 0)) != 0:
            raise Unusable(f"its header has a {name}: save it as one .nrrd")
    return sizes


def _data_file(path: Path, header: Any) -> Path | None:
    """The file with the voxels of a detached header; it must not lead out of the header's folder."""
    name = str(header.get("data file", header.get("datafile", ""))).strip()
    if not name:
        return None
    if name.split()[0] == "LIST" or "%" in name:
        raise Unusable("its voxels lie in several files: save it as one .nrrd")
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise Unusable("its data file lies outside of its folder: move it beside the header")
    found = path.parent / name
    if not found.resolve().is_relative_to(path.parent.resolve()):
        raise Unusable("its data file is a link that leads out of its folder: move it beside the header")
    return found


def _whole(file: BinaryIO) -> bytes:
    """The rest of a file."""
    if os.fstat(file.fileno()).st_size > LARGEST_VOLUME:
        raise Unusable(f"it has more than the {LARGEST_VOLUME:,} bytes that a volume may have")
    return file.read()


def _unpacked(data: bytes, encoding: str, most: int) -> bytes:
    """The voxels' bytes, at most `most` and LARGEST_VOLUME of them."""
    if encoding in PLAIN:
        return data
    stream: Any
    if encoding in GZIP:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    elif encoding in BZIP2:
        stream = bz2.BZ2Decompressor()
    else:
        raise Unusable("its encoding is none of raw, ascii, gzip and bzip2")
    try:
        raw: bytes = stream.decompress(data, min(most, LARGEST_VOLUME) + 1)
    except (zlib.error, OSError) as error:
        raise Unusable(f"its voxels can't be unpacked ({error}): it is damaged") from None
    if len(raw) > min(most, LARGEST_VOLUME):
        raise Unusable("it unpacks to more bytes than its header announces")
    if not stream.eof:
        raise Unusable("its voxels end too early: it is cut off")
    return raw


def _volume(array: NDArray[Any], header: Any) -> Volume:
    """Three axes with their geometry; a fourth of length 1 is left out."""
    extra = [number for number, size in enumerate(array.shape) if size == 1][: array.ndim - 3]
    kept = [number for number in range(array.ndim) if number not in extra]
    values_XYZ = array.reshape([array.shape[number] for number in kept], order="F")
    directions = header.get("space directions")
    space = str(header.get("space", "")).strip().casefold()
    if directions is not None and space in TO_RAS:
        rows = np.array([_direction(directions[number]) for number in kept])  # one for each axis of the array
        rows *= _millimetres(header, "space units", 3)
        return Volume(values_XYZ[None], **described(rows.T * np.array(TO_RAS[space])[:, None]))
    lengths = header.get("spacings")
    if directions is not None:
        own = [_direction(row) for row in directions]
        lengths = np.linalg.norm(np.array(own) * _millimetres(header, "space units", 3), axis=1)
    elif lengths is not None:
        lengths = np.asarray(lengths, np.float64) * _millimetres(header, "units", array.ndim)
    spacing = None if lengths is None else tuple(float(lengths[number]) for number in kept)
    if spacing is not None and not all(math.isfinite(length) and length > 0 for length in spacing):
        spacing = None
    return Volume(values_XYZ[None], spacing)  # type: ignore[arg-type]


def _millimetres(header: Any, field: str, number: int) -> NDArray[np.float64]:
    """Of one unit of each axis of the space, or of the array."""
    if field not in header:
        return np.ones(number)
    factors = [MILLIMETRES.get(str(unit).strip().casefold(), math.nan) for unit in header[field]]
    if len(factors) != number or not all(map(math.isfinite, factors)):
        raise Unusable(f"its {field} are not {number} of {', '.join(filter(None, MILLIMETRES))}")
    return np.array(factors)


def _direction(row: Any) -> NDArray[np.float64]:
    direction = np.full(3, np.nan) if row is None else np.asarray(row, np.float64)
    if direction.shape != (3,):
        raise Unusable(f"its header gives an axis of {direction.size} coordinates, expected are 3")
    return direction
