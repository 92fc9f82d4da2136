"""Brings a volume onto the grid of the shards: its orientation, spacing and size, and how its values are stored."""

# C channels; X, Y, Z the axes in the order of the file; D, H, W those of the shards

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable
from src.data.builders.volumes import Volume, axis
from src.data.modalities.ct import LARGEST_VOLUME

ORIENTATION = "SPL"
"""D to superior, H to posterior, W to left: each slice as a radiologist looks at it."""
KEEP = "keep"
SAME = 1e-3
"""mm that two spacings may differ by without a resampling."""
THINNEST, THICKEST = 0.01, 50.0
"""mm that a voxel may have: less or more is a header in another unit, and would make a resampled volume huge."""
NPY_HEADER = 128
"""Bytes of it before the voxels in a shard."""
AIR = -1024.0
"""HU around a volume that is smaller than the size: the least that 12 bits with the customary intercept hold."""
LARGEST_INT16 = (-32768, 32767)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """What each volume is brought to."""

    orientation: str = ORIENTATION
    """What D, H, W go to; KEEP leaves the axes as the file has them."""
    spacing: Triple | None = None
    """mm along D, H, W; None leaves it."""
    size: tuple[int, int, int] | None = None
    """Voxels along D, H, W, cropped and padded around the middle; None leaves it."""
    crop: Literal["center", "never"] = "center"
    """`never` refuses what is larger than the size."""
    pad_value: float = AIR
    keep_float: bool = False
    """Store float32 where int16 would round; else whole HU."""


@dataclass(frozen=True)
class Placed:
    """A volume on the grid."""

    array_CDHW: NDArray[np.int16] | NDArray[np.float32]
    """HU."""
    spacing: Triple | None
    orientation: str | None
    source_shape: tuple[int, ...]
    source_spacing: Triple | None
    """Of the file along D, H, W."""
    stored: Literal["exact", "rounded", "float"]
    """Whether the values are those of the file, or within 0.5 HU of the resampled or fractional ones, or float32."""


def place(volume: Volume, values_CXYZ: NDArray[Any], grid: Grid) -> Placed:
    """The values, in HU, on the grid.

    Raises:
        ValueError: the file says too little for what is asked for, or the volume is too flat, too large, or too bright,
            or its voxels are.
    """
    values, source_spacing, orientation = _turned(values_CXYZ, volume, grid.orientation)
    spacing = source_spacing
    if 1 in values.shape[1:]:
        raise Unusable(f"it has the shape {list(values.shape[1:])}: a single slice is no volume")
    if source_spacing is not None and not all(THINNEST <= length <= THICKEST for length in source_spacing):
        told = ", ".join(f"{length:g}" for length in source_spacing)
        raise Unusable(
            f"its voxels would have {told} mm, expected is {THINNEST:g} to {THICKEST:g}: is it another unit?"
        )
    resampled = values
    if grid.spacing is not None:
        if spacing is None:
            raise Unusable("its file has no spacing, so that it can't be resampled: state it with --source-spacing")
        lengths = map(_length, values.shape[1:], spacing, grid.spacing)
        _refuse_large((len(values), *lengths))
        resampled = resample(values, spacing, grid.spacing)
        spacing = grid.spacing
    if grid.size is not None:
        _refuse_large((len(values), *grid.size))
        resampled = _sized(resampled, grid)
    stored, how = _stored(resampled, grid.keep_float)
    _refuse_large(stored.shape, stored.itemsize)
    return Placed(stored, spacing, orientation, values.shape[1:], source_spacing, how)


def _refuse_large(shape: Sequence[int], itemsize: int = 2) -> None:
    """Refuse what no reader of the shards would unpack; two bytes a voxel are the least."""
    if (size := NPY_HEADER + math.prod(shape) * itemsize) > LARGEST_VOLUME:
        raise Unusable(
            f"it would have {list(shape)} voxels and {size:,} bytes, more than the {LARGEST_VOLUME:,} of a volume:"
            " take a coarser --spacing or a smaller --size"
        )


def _turned(values: NDArray[Any], volume: Volume, wanted: str) -> tuple[NDArray[Any], Triple | None, str | None]:
    """A view of the values with the axes in the wanted order and direction, its spacing and orientation."""
    if wanted == KEEP:
        return values, volume.spacing, volume.orientation
    if volume.orientation is None:
        raise Unusable(
            "its file does not say how it lies in the patient: state it with --source-orientation, as in RAS, or leave"
            f" it with --orientation {KEEP}"
        )
    order = [[axis(letter) for letter in volume.orientation].index(axis(letter)) for letter in wanted]
    turned = values.transpose(0, *(number + 1 for number in order))
    for number, (source, letter) in enumerate(zip(order, wanted, strict=True)):
        if volume.orientation[source] != letter:
            turned = np.flip(turned, number + 1)
    spacing = None if volume.spacing is None else tuple(volume.spacing[number] for number in order)
    return turned, spacing, wanted  # type: ignore[return-value]


def resample(values_CDHW: NDArray[Any], spacing: Triple, wanted: Triple) -> NDArray[Any]:
    """Linear interpolation onto another spacing around the same middle, [C, D, H, W]; the same array where none is due.

    Where the grid becomes coarser, the triangle of the interpolation is as wide as the new voxels, so that nothing
    folds (as in Pillow's BILINEAR). An axis of n voxels gets round(n * spacing / wanted) of them; those at the rim that
    reach beyond the volume take what of it they cover.
    """
    axes = [number for number in range(3) if abs(spacing[number] - wanted[number]) > SAME]
    found: NDArray[Any] = values_CDHW
    for number in sorted(axes, key=lambda number: spacing[number] / wanted[number]):  # what shrinks most comes first
        weights = _weights(values_CDHW.shape[number + 1], spacing[number], wanted[number])
        moved = np.moveaxis(found, number + 1, 0)
        flat = np.ascontiguousarray(moved, np.float32).reshape(len(moved), -1)
        found = np.moveaxis((weights @ flat).reshape(-1, *moved.shape[1:]), 0, number + 1)
    return found


def _length(old: int, spacing: float, wanted: float) -> int:
    """Voxels of an axis after the resampling."""
    return max(round(old * spacing / wanted), 1)


def _weights(old: int, spacing: float, wanted: float) -> Any:
    """A sparse matrix [new, old]: what each new voxel takes from each old one."""
    from scipy.sparse import csr_array

    new = _length(old, spacing, wanted)
    ratio = wanted / spacing
    width = max(ratio, 1.0)
    middle_N1 = ((old - 1) / 2 + (np.arange(new) - (new - 1) / 2) * ratio)[:, None]
    reach = math.ceil(width)
    near_NK = np.floor(middle_N1).astype(np.int64) + np.arange(-reach, reach + 2)
    weights_NK = np.maximum(1 - np.abs(near_NK - middle_N1) / width, 0)
    weights_NK[(near_NK < 0) | (near_NK >= old)] = 0
    weights_NK /= weights_NK.sum(1, keepdims=True)
    row, column = np.nonzero(weights_NK)
    entries = weights_NK[row, column].astype(np.float32)
    return csr_array((entries, (row, near_NK[row, column])), shape=(new, old))


def _sized(values: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Cropped and padded around the middle; of an odd rest the larger part is at the end."""
    assert grid.size is not None
    shape = values.shape[1:]
    if grid.crop == "never" and any(have > want for have, want in zip(shape, grid.size, strict=True)):
        raise Unusable(f"it has {list(shape)} voxels on the grid, more than the {list(grid.size)} of --size")
    found = np.full((len(values), *grid.size), grid.pad_value, _holding(values.dtype, grid.pad_value))
    here, there = [slice(None)], [slice(None)]
    for have, want in zip(shape, grid.size, strict=True):
        common = min(have, want)
        here.append(slice((have - common) // 2, (have - common) // 2 + common))
        there.append(slice((want - common) // 2, (want - common) // 2 + common))
    found[tuple(there)] = values[tuple(here)]
    return found


def _holding(kind: np.dtype[Any], value: float) -> np.dtype[Any]:
    """A type that holds values of `kind` and one more."""
    if kind.kind == "f" or not float(value).is_integer():
        return np.dtype(np.float64) if kind.kind != "f" else kind
    return np.promote_types(kind, np.min_scalar_type(int(value)))


def _stored(values: NDArray[Any], keep_float: bool) -> tuple[Any, Literal["exact", "rounded", "float"]]:
    """In the type of the shard; int16 where every value is a whole number that it holds, or is to be rounded."""
    lowest, highest = float(values.min()), float(values.max())
    fits = lowest >= LARGEST_INT16[0] - 0.5 and highest < LARGEST_INT16[1] + 0.5
    whole = values.dtype.kind != "f" or np.array_equal(values, np.rint(values))
    if whole and fits:
        return np.ascontiguousarray(values, np.int16), "exact"
    if keep_float:
        return np.ascontiguousarray(values, np.float32), "float"
    if not fits:
        raise Unusable(f"it goes from {lowest:g} to {highest:g} HU, more than 16 bits hold: --keep-float keeps it")
    return np.rint(values).astype(np.int16, order="C"), "rounded"
