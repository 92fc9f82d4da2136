"""Reads NIfTI through nibabel; descrip, aux_file, intent_name and extensions are not looked at."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable, refuse_special, told
from src.data.builders.volumes import Volume, described, rescaled
from src.data.modalities.ct import LARGEST_VOLUME

SUFFIXES = (".nii", ".nii.gz")
HEADER_1, HEADER_2 = 348, 540
"""Bytes of a NIfTI-1 and a NIfTI-2 header, which say so themselves in their first four."""
FURTHEST = 16 << 20
"""Bytes before the voxels: header and extensions."""
PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Volume:
    """The volume of a `.nii` or `.nii.gz`, bit for bit as nibabel reads it.

    Without sform and qform the orientation is not known. Nothing is unpacked beyond what the header announces, and a
    header that announces more than LARGEST_VOLUME is refused.

    Raises:
        ValueError: the file is missing, damaged, too large, or no volume in time and space alone.
    """
    with told(path, "NIfTI"):
        refuse_special(path)
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            header = _header(stream.read(HEADER_2))
            shape, start = _shape(header), _start(header)
            size = math.prod(shape) * header.get_data_dtype().itemsize
            data = _exactly(cast(BinaryIO, stream), start + size)
        array = np.ndarray(shape, header.get_data_dtype(), data, start, order="F")
        return _volume(header, array)


def _header(start: bytes) -> Any:
    """The header alone: extensions, which may hold anything, are not parsed."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    if HEADER_1 in sizes and len(start) >= HEADER_1:
        return Nifti1Header(start[:HEADER_1], check=False)
    if HEADER_2 in sizes and len(start) >= HEADER_2:
        return Nifti2Header(start[:HEADER_2], check=False)
    raise Unusable("it is empty" if not start else "it does not begin with a NIfTI header")


def _shape(header: Any) -> tuple[int, ...]:
    """X, Y, Z, behind which only ones may follow."""
    shape = tuple(int(size) for size in header.get_data_shape())
    kind = header.get_data_dtype()
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise Unusable(f"its voxels are {kind if kind.names is None else 'colours'}, expected are numbers")
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[3:]) != 1:
        raise Unusable(f"it has the shape {list(shape)}, expected is one volume of three axes")
    if math.prod(shape) * kind.itemsize > LARGEST_VOLUME:
        raise Unusable(
            f"its header announces {math.prod(shape) * kind.itemsize:,} bytes, more than the {LARGEST_VOLUME:,}"
            " that a volume may have"
        )
    return shape[:3]


def _start(header: Any) -> int:
    start = float(header["vox_offset"])
    magic = bytes(header["magic"].tobytes())
    if not magic.startswith((b"n+", b"ni")):
        raise Unusable("its header lacks the mark of a NIfTI, as that of Analyze does: save it as NIfTI")
    if start == 0 or magic.startswith(b"ni"):
        raise Unusable("its voxels lie in another file (.hdr and .img): save it as one .nii")
    if not int(header["sizeof_hdr"]) <= start <= FURTHEST:
        raise Unusable(f"its header says that the voxels begin at byte {start:g}")
    return int(start)


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    """The first `size` bytes, piece by piece: a file that has fewer takes no more memory than it has."""
    stream.seek(0)
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(size - len(data), FURTHEST))):
        data += piece
    if len(data) < size:
        raise Unusable(f"it ends after {len(data):,} of {size:,} bytes: it is cut off")
    if len(stream.read(FURTHEST)) == FURTHEST:  # at the end of it gzip has compared the checksum
        raise Unusable(f"it goes on for more than {FURTHEST:,} bytes behind the voxels that its header announces")
    return data


def _volume(header: Any, array_XYZ: NDArray[Any]) -> Volume:
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    stated = math.isfinite(slope) and slope != 0
    if stated and not math.isfinite(intercept):
        raise Unusable(f"its header has the slope {slope:g} and an intercept that is no number")
    values_XYZ = rescaled(array_XYZ, slope, intercept) if stated else array_XYZ
    return Volume(
        values_XYZ[None],
        **_geometry(header),
        scale=(slope, intercept) if stated and (slope, intercept) != (1.0, 0.0) else None,
    )


def _geometry(header: Any) -> dict[str, Any]:
    """Spacing and orientation out of sform, else qform, as nibabel has it; spacing alone where there is neither."""
    factor = PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    if int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0:
        return described(header.get_best_affine()[:3, :3].astype(np.float64) * factor)
    spacing = tuple(float(length) * factor for length in header.get_zooms()[:3])
    if not all(math.isfinite(length) and length > 0 for length in spacing):
        raise Unusable(f"its header gives voxels of {', '.join(f'{length:g}' for length in spacing)} mm")
    return {"spacing": spacing}
