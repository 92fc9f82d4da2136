"""A CT in three planes through its middle, in each HU window, as a radiologist looks at it.

The patient's right is at the left of the axial and the coronal plane, the front is up in the axial plane and left in
the sagittal one, the head is up in both that show it. Body millimetres are true to each other in all planes.
"""

# D, H, W the three directions of a volume as stored

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.report.caption import LINE, PIXELS, save_png
from src.report.plate import draw_image, page
from src.report.svg import INK, MUTED, drawing

OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
SHOWN = "IPL"
"""Where the indices of a volume grow to for the planes below: down, back, and to the patient's left."""
PLANES = (("axial", 0), ("coronal", 1), ("sagittal", 2))
"""And the direction that each is perpendicular to."""
WIDTH, TALLEST = 230.0, 100.0
"""mm of a row of planes, and of a plane's height, at most."""
LARGEST_SCALE = 3.0
"""mm on the page for one of the body, at most."""
GUTTER = 5.0
"""mm around a plane, where its letters are."""


class Plane(NamedTuple):
    """A plane of a volume."""

    name: str
    hounsfield: NDArray[Any]
    """[rows, columns]."""
    size: tuple[float, float]
    """mm of the body, (height, width)."""
    letters: tuple[str, str, str, str]
    """What is at the left, the right, the top and the bottom; empty where nobody knows."""


def planes(
    volume_DHW: NDArray[Any], spacing: tuple[float, float, float], orientation: str | None = None
) -> list[Plane]:
    """The three planes through the middle.

    Args:
        volume_DHW: any values.
        spacing: mm between neighbours along D, H and W.
        orientation: where D, H and W grow to, `SPL` for superior, posterior, left; None draws the volume as it is.

    Raises:
        ValueError: an orientation that is none, or another number of directions.
    """
    if volume_DHW.ndim != 3:
        raise ValueError(f"a volume of shape {list(volume_DHW.shape)} is not [D, H, W]")
    steps = list(spacing)
    if orientation is not None:
        order = _order(orientation)
        volume_DHW = volume_DHW.transpose(order)
        steps = [steps[direction] for direction in order]
        flipped = tuple(axis for axis, direction in enumerate(order) if orientation[direction] != SHOWN[axis])
        volume_DHW = np.flip(volume_DHW, flipped)
    found = []
    for name, normal in PLANES:
        rows, columns = (direction for direction in range(3) if direction != normal)
        plane = volume_DHW.take(volume_DHW.shape[normal] // 2, axis=normal)
        size = (plane.shape[0] * steps[rows], plane.shape[1] * steps[columns])
        ends = ("", "", "", "")
        if orientation is not None:
            ends = (OPPOSITE[SHOWN[columns]], SHOWN[columns], OPPOSITE[SHOWN[rows]], SHOWN[rows])
        found.append(Plane(name, plane, size, ends))
    return found


def _order(orientation: str) -> list[int]:
    """Of D, H and W, which are shown down, back and left."""
    names = [letter if letter in SHOWN else OPPOSITE.get(letter, "?") for letter in orientation]
    if sorted(names) != sorted(SHOWN):
        raise ValueError(
            f"the orientation {orientation} must be three letters, one of L and R, one of A and P, one of S and I"
        )
    return [names.index(letter) for letter in SHOWN]


def draw_planes(
    volume_DHW: NDArray[Any],
    spacing: tuple[float, float, float],
    orientation: str | None,
    windows: Mapping[str, tuple[float, float]],
    title: str,
    lines: Sequence[str] = (),
    report: str | None = None,
) -> tuple[Figure, Axes]:
    """A row of planes for each window (centre, width) in HU; to be called inside `drawing`."""
    found = planes(volume_DHW, spacing, orientation)
    across, tallest = sum(plane.size[1] for plane in found), max(plane.size[0] for plane in found)
    scale = min((WIDTH - 6 * GUTTER) / across, TALLEST / tallest, LARGEST_SCALE)
    sizes = [_on_page(plane.size, scale) for plane in found]
    highest = max(size[0] for size in sizes)
    row = highest + 2 * GUTTER + LINE
    notes = [] if orientation else ["the orientation is unknown: drawn as stored"]
    width = sum(size[1] + 2 * GUTTER for size in sizes)
    figure, axes = page(width, len(windows) * row + 6.0, title, [*lines, *notes], report)
    for number, (name, (centre, span)) in enumerate(windows.items()):
        limits = (centre - span / 2, centre + span / 2)
        y, x = number * row, GUTTER
        axes.text(0.0, y + 3.0, f"{name}: {limits[0]:,.0f} to {limits[1]:,.0f} HU", fontsize=8.5, color=INK)
        for plane, size in zip(found, sizes, strict=True):
            place = (x, y + LINE + GUTTER + round((highest - size[0]) / 2, 1))
            draw_image(axes, plane.hounsfield, place, size, limits)
            _draw_letters(axes, plane.letters, place, size)
            x += size[1] + 2 * GUTTER
    _draw_scale(axes, len(windows) * row, scale, found[0].size[1])
    return figure, axes


def _on_page(size: tuple[float, float], scale: float) -> tuple[float, float]:
    """mm of a plane on the page, in whole pixels of it."""
    height, width = (max(round(side * scale * PIXELS), 1) / PIXELS for side in size)
    return height, width


def _draw_letters(
    axes: Axes, letters: tuple[str, str, str, str], place: tuple[float, float], size: tuple[float, float]
) -> None:
    (x, y), (height, width) = place, size
    middle, half = x + width / 2, y + height / 2
    places = ((x - 2.2, half), (x + width + 2.2, half), (middle, y - 2.2), (middle, y + height + 2.2))
    for letter, (across, down) in zip(letters, places, strict=True):
        axes.text(across, down, letter, fontsize=8.5, fontweight="bold", color=MUTED, ha="center", va="center")


def _draw_scale(axes: Axes, y: float, scale: float, width: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten mm, at most a third of the axial plane."""
    power = 10.0 ** math.floor(math.log10(width / 3))
    length = max(step * power for step in (1, 2, 5) if step * power <= width / 3)
    axes.plot([GUTTER, GUTTER + length * scale], [y + 2.0] * 2, color=INK, linewidth=1.2, solid_capstyle="butt")
    axes.text(GUTTER + length * scale + 2.0, y + 2.0, f"{length:g} mm", fontsize=7.0, color=INK, va="center")


def save_planes(
    path: Path,
    volume_DHW: NDArray[Any],
    spacing: tuple[float, float, float],
    orientation: str | None,
    windows: Mapping[str, tuple[float, float]],
    title: str,
    lines: Sequence[str] = (),
    report: str | None = None,
) -> None:
    """The planes as a PNG."""
    with drawing():
        figure, _ = draw_planes(volume_DHW, spacing, orientation, windows, title, lines, report)
        save_png(path, figure)
