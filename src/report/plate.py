"""A page of pictures in millimetres under its caption; one image on it, pixel for pixel where it is small.

The origin is the upper left corner of the page below the caption; x grows to the right and y downwards.
"""

# H rows, W columns; an image is [H, W] grey or [H, W, 3] RGB

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.report.caption import MM_PER_INCH, PIXELS, caption, draw_caption, save_png
from src.report.paper import blank
from src.report.svg import drawing

EDGE = 4.0
"""mm of white around everything."""
NARROWEST = 100.0
"""mm between the edges, so that words have their place over a small picture."""
LARGEST = 160.0
"""mm of an image's longer side at most."""


def page(
    width: float, height: float, title: str, lines: Sequence[str] = (), report: str | None = None
) -> tuple[Figure, Axes]:
    """A page for pictures of this size; to be called inside `drawing`."""
    width = max(math.ceil(width), NARROWEST)
    told = caption(title, lines, report, width)
    above, below = math.ceil(told.height()), math.ceil(height)
    figure, axes = blank()
    axes.set(xlim=(-EDGE, width + EDGE), ylim=(below + EDGE, -above))
    axes.set_axis_off()
    figure.set_size_inches((width + 2 * EDGE) / MM_PER_INCH, (above + below + EDGE) / MM_PER_INCH)
    draw_caption(axes, told, 0.0, float(above))
    return figure, axes


def draw_image(
    axes: Axes,
    image_HW: NDArray[Any],
    place: tuple[float, float],
    size: tuple[float, float],
    limits: tuple[float, float] = (0.0, 255.0),
) -> None:
    """An image with its upper left corner at `place` (x, y), `size` (height, width) mm; limits are black and white."""
    (x, y), (height, width) = place, size
    axes.imshow(
        image_HW,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=(x, x + width, y + height, y),
        aspect="auto",
        interpolation="antialiased",  # the nearest where a pixel becomes a whole number of pixels
        interpolation_stage="data",
    )


def size_of(height: int, width: int, largest: float = LARGEST) -> tuple[float, float]:
    """mm that an image is drawn at: a whole number of pixels for each of its own, or shrunk."""
    own = largest * PIXELS / max(height, width)
    pixels = math.floor(own) if own >= 1 else own
    return round(height * pixels) / PIXELS or 0.1, round(width * pixels) / PIXELS or 0.1


def save_image(
    path: Path, image_HW: NDArray[Any], title: str, lines: Sequence[str] = (), report: str | None = None
) -> None:
    """One image uint8 [H, W] or [H, W, 3], or uint16 [H, W] from its darkest to its lightest shade, as a PNG."""
    size = size_of(*image_HW.shape[:2])
    limits = (0.0, 255.0)
    if image_HW.dtype != np.uint8:
        limits = (float(image_HW.min()), float(max(image_HW.max(), image_HW.min() + 1.0)))
        lines = [*lines, f"drawn: black is {limits[0]:,.0f}, white is {limits[1]:,.0f}"]
    with drawing():
        figure, axes = page(size[1], size[0], title, lines, report)
        draw_image(axes, image_HW, (0.0, 0.0), size, limits)
        save_png(path, figure)
