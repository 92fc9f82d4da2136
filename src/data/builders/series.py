"""Reads a series of DICOM slices in the order in which they lie in the patient, through pydicom."""

# N slices, Y rows, X columns

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.dicom import MODALITIES, numbers_of, open_dicom
from src.data.builders.dicom_pixels import stored_slice
from src.data.builders.records import Unusable
from src.data.builders.volumes import Volume, described, rescaled
from src.data.modalities.ct import LARGEST_VOLUME

if TYPE_CHECKING:
    from pydicom import Dataset

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "ImageType")
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
MOST_SLICES = 10_000
OFF = 0.2
"""Slice distances by which a slice may lie off its place; where one is missing it is 1."""
ROUNDED = 0.11
"""mm by which it always may: headers are written with one digit."""
TURNED = 1e-3
"""By which direction cosines may differ within a series."""
STRETCHED = 1e-3
"""mm by which the pixel spacing may."""


@dataclass(frozen=True)
class _Slice:
    """A slice and its place."""

    position_3: NDArray[np.float64]
    """mm, of the middle of the first pixel, LPS as all of DICOM."""
    across_3: NDArray[np.float64]
    """Where columns go, a unit vector."""
    down_3: NDArray[np.float64]
    """Where rows go."""
    spacing: tuple[float, float]
    """mm from row to row and from column to column."""
    stored_YX: NDArray[Any]
    scale: tuple[float, float] | None

    @property
    def normal_3(self) -> NDArray[np.float64]:
        """What is at a right angle to the slice."""
        return np.cross(self.across_3, self.down_3)


def read_series(parts: Sequence[Path]) -> Volume:
    """The volume of the slices of one series, in HU where their headers rescale them.

    They are sorted by their place along the normal of the slices: neither the names of the files nor InstanceNumber
    say it reliably.

    Raises:
        ValueError: a slice can't be read or is none of a CT; slices differ in size, spacing or direction, lie at one
            place, or not at equal distances; the gantry was tilted.
    """
    if len(parts) > MOST_SLICES:
        raise ValueError(f"it has {len(parts):,} slices, more than the {MOST_SLICES:,} that a volume may have")
    if len(parts) < 2:
        raise ValueError("a single slice is no volume")
    slices = [_read(path) for path in parts]
    first = slices[0]
    if sum(found.stored_YX.nbytes for found in slices) > LARGEST_VOLUME:
        raise ValueError(f"its slices hold more than the {LARGEST_VOLUME:,} bytes that a volume may have")
    _refuse_mixed(slices)
    slices.sort(key=lambda found: float(found.position_3 @ first.normal_3))
    step_3 = _step([found.position_3 for found in slices], first.normal_3)
    steps_33 = np.stack([step_3, first.down_3 * first.spacing[0], first.across_3 * first.spacing[1]], axis=1)
    values_NYX = np.stack([rescaled(found.stored_YX, *(found.scale or (1.0, 0.0))) for found in slices])
    return Volume(values_NYX[None], **described(steps_33 * LPS_TO_RAS[:, None]), scale=first.scale)


def _read(path: Path) -> _Slice:
    header = open_dicom(path, GEOMETRY)
    refuse_other_than_ct(header)
    if numbers_of(header, "NumberOfFrames") not in ((), (1.0,)):
        raise Unusable("it is an enhanced CT of many frames in one file: convert it to single slices, or to NIfTI")
    position, orientation = (
        _values(header, "ImagePositionPatient", (3,)),
        _values(header, "ImageOrientationPatient", (6,)),
    )
    spacing = _values(header, "PixelSpacing", (2,))
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    if abs(np.linalg.norm(across) - 1) > 0.01 or abs(np.linalg.norm(down) - 1) > 0.01 or min(spacing) <= 0:
        raise Unusable(f"{path.name} has an impossible ImageOrientationPatient or PixelSpacing")
    return _Slice(
        np.array(position),
        across / np.linalg.norm(across),
        down / np.linalg.norm(down),
        (spacing[0], spacing[1]),
        stored_slice(path, header),
        _scale(header),
    )


def refuse_other_than_ct(header: Dataset) -> None:
    """Refuse other modalities and the scout views of a CT, on which the slices were planned."""
    modality = str(header.get("Modality") or "CT")
    if modality != "CT":
        raise Unusable(f"it is no CT: its Modality is {modality if modality in MODALITIES else 'another'}")
    if "LOCALIZER" in str(header.get("ImageType") or "").upper():
        raise Unusable("it is a localizer, no volume")


def _values(header: Dataset, attribute: str, lengths: tuple[int, ...]) -> tuple[float, ...]:
    found = numbers_of(header, attribute)
    if len(found) not in lengths:
        raise Unusable(f"a slice has no {attribute}: it can't be placed in a volume")
    return found


def _scale(header: Dataset) -> tuple[float, float] | None:
    slope, intercept = numbers_of(header, "RescaleSlope"), numbers_of(header, "RescaleIntercept")
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0:
        return None
    return slope[0], intercept[0]


def _refuse_mixed(slices: Sequence[_Slice]) -> None:
    first = slices[0]
    sizes = {found.stored_YX.shape for found in slices}
    if len(sizes) > 1:
        one, other = (" x ".join(map(str, size)) for size in sorted(sizes)[:2])
        raise Unusable(f"it has slices of {one} and of {other} pixels: keep one series in a folder")
    if len({found.scale is None for found in slices}) > 1:
        raise Unusable("some of its slices have a RescaleSlope and RescaleIntercept, and others none")
    turned = max(
        max(np.abs(found.across_3 - first.across_3).max(), np.abs(found.down_3 - first.down_3).max())
        for found in slices
    )
    if turned > TURNED:
        raise Unusable("its slices lie in different directions: keep one series in a folder")
    if max(abs(found.spacing[side] - first.spacing[side]) for found in slices for side in (0, 1)) > STRETCHED:
        raise Unusable("its slices differ in PixelSpacing: keep one series in a folder")


def _step(positions: Sequence[NDArray[np.float64]], normal_3: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way from one slice to the next, which all of them keep to."""
    positions_N3 = np.stack(positions)
    gaps = np.diff(positions_N3 @ normal_3)
    step_3: NDArray[np.float64] = (positions_N3[-1] - positions_N3[0]) / (len(positions) - 1)
    usual = float(np.median(gaps))
    if (same := int((gaps < OFF * max(usual, 1e-6)).sum())) or usual <= 0:
        raise Unusable(
            f"{same + 1:,} of its {len(positions):,} slices lie where another one lies: it holds a slice twice, or"
            " several series or points in time"
        )
    spare = max(OFF * usual, ROUNDED)
    if np.abs(gaps - usual).max() > spare:
        times = gaps / usual
        if np.abs(times - np.rint(times)).max() < OFF and (missing := int(np.rint(times - 1).sum())) > 0:
            raise Unusable(f"it misses slices, {missing} of {missing + len(positions)}: one lies every {usual:g} mm")
        raise Unusable(f"its slices are not at equal distances: {gaps.min():g} to {gaps.max():g} mm")
    places_N3 = positions_N3[0] + np.arange(len(positions))[:, None] * step_3
    if (off := float(np.linalg.norm(positions_N3 - places_N3, axis=1).max())) > spare:
        raise Unusable(f"its slices don't lie on one line: one is {off:g} mm off")
    return step_3
