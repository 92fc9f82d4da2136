"""A CT volume as its file holds it: its values, and how its axes lie in the patient."""

# C channels; X, Y, Z the axes in the order in which the file has them

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable

LETTERS = ("LR", "PA", "IS")
"""Of an axis along x, y or z of the patient: what it goes to where its index grows, (against, along) that axis."""
LARGEST_SHEAR = 1.0
"""Degrees that an angle between two axes may miss 90 by: above the noise of headers in float32, below any tilt."""


@dataclass(frozen=True)
class Volume:
    """Values and how they lie in the patient."""

    values_CXYZ: NDArray[Any]
    """With the header's slope and intercept applied; integers where these are whole."""
    spacing: tuple[float, float, float] | None = None
    """mm from voxel to voxel along X, Y, Z; None where the file doesn't say."""
    orientation: str | None = None
    """What X, Y, Z go to, as in RAS; None where the file doesn't say."""
    oblique: float = 0.0
    """Degrees between the axes and those of the patient, at most."""
    scale: tuple[float, float] | None = None
    """Slope and intercept of the header (of the first slice); None where it has none."""


def described(steps_33: NDArray[np.float64]) -> dict[str, Any]:
    """Spacing, orientation and obliqueness of a Volume; each column of `steps_33` is the way of one index in mm (RAS).

    Raises:
        ValueError: the axes are not at right angles, or one has no length.
    """
    spacing = np.linalg.norm(steps_33, axis=0)
    if not np.isfinite(steps_33).all() or not (spacing > 0).all():
        raise Unusable(f"its header gives axes of {', '.join(f'{length:g}' for length in spacing)} mm")
    directions_33 = steps_33 / spacing
    cosines = [abs(directions_33[:, one] @ directions_33[:, other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    shear = math.degrees(math.asin(min(max(cosines), 1.0)))
    if shear > LARGEST_SHEAR:
        raise Unusable(
            f"its axes are {shear:.1f} degrees off a right angle, as of a tilted gantry: resample it to right angles"
        )
    return {"spacing": tuple(spacing.tolist()), **_axes(directions_33)}


def _axes(directions_33: NDArray[np.float64]) -> dict[str, Any]:
    """The letters: each axis of the file takes the nearest of the patient's, the closest pair first."""
    left = np.abs(directions_33)
    letters, furthest = [""] * 3, 0.0
    for _ in range(3):
        patient, axis = np.unravel_index(np.argmax(left), left.shape)
        along = directions_33[patient, axis]
        letters[axis] = LETTERS[patient][int(along > 0)]
        furthest = max(furthest, math.degrees(math.acos(min(abs(along), 1.0))))
        left[patient, :] = left[:, axis] = -1.0
    return {"orientation": "".join(letters), "oblique": furthest}


def is_orientation(letters: str) -> bool:
    """Whether three letters name three different axes, as SPL does."""
    return len(letters) == 3 and {axis(letter) for letter in letters} == {0, 1, 2}


def axis(letter: str) -> int:
    """The patient's axis that a letter is of; -1 for none."""
    return next((number for number, pair in enumerate(LETTERS) if letter in pair), -1)


def rescaled(values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """values * slope + intercept, in integers where both are whole, else in float64."""
    if slope == 1 and intercept == 0:
        return values
    whole = values.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer()
    if whole and values.dtype.itemsize <= 4 and max(abs(slope), abs(intercept)) < 2**20:
        wide = np.int32 if values.dtype.itemsize <= 2 and abs(slope) < 2**14 else np.int64
        whole_values: NDArray[Any] = values.astype(wide) * int(slope) + int(intercept)
        return whole_values
    return values.astype(np.float64) * slope + intercept
