"""What a mask shows of a picture: planes of an image, a video or a CT volume, token by token.

What the encoder sees is clear, what it has to predict is tinted, each block in its own colour, all else is greyed.
"""

# H rows and W columns of pixels, R rows and Q columns of tokens, M target blocks

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from src.report.caption import MM_PER_INCH
from src.report.paper import blank
from src.report.svg import LINE, MUTED, drawing, to_svg

BLOCKS = ("#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9")
"""Of the target blocks, from the first again after the last."""
HIDDEN = "#d0d7de"
TINT, GREYED = 0.4, 0.88
SIDE, GAP, WORDS = 50.0, 3.0, 5.0
"""mm of a plane's longer side, between planes, and of the words below them."""
COARSE, FINE = 200, 320
"""Pixels of a plane's longer side, at least (each is repeated, so that it stays a square) and at most (they are
averaged: a page holds a picture for each mask)."""


class MaskedPlane(NamedTuple):
    """A picture, and what the mask makes of each of its tokens."""

    told: str
    """What stands below it."""
    sides: tuple[int, int]
    """Height and width in pixels."""
    picture_HW: NDArray[np.floating] | None
    """[H, W] grey or [H, W, 3] RGB, 0 .. 1; None is empty paper."""
    context_RQ: NDArray[np.bool_]
    targets_MRQ: NDArray[np.bool_]

    @property
    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where tokens begin and end along height and width, in pixels; the last may be cut short."""
        rows, columns = (
            np.minimum(np.arange(tokens + 1.0) * -(-side // tokens), side)
            for side, tokens in zip(self.sides, self.context_RQ.shape, strict=True)
        )
        return rows, columns


def masked_planes(planes: Sequence[MaskedPlane], title: str) -> Markup:
    """Planes of one picture side by side, as a figure in millimetres."""
    scale = SIDE / max(planes[0].sides)
    height, width = (side * scale for side in planes[0].sides)
    below = WORDS if any(plane.told for plane in planes) else 0.0
    with drawing():
        figure, axes = blank()
        axes.set_axis_off()
        across = len(planes) * (width + GAP) - GAP
        for number, plane in enumerate(planes):
            _draw(axes, plane, number * (width + GAP), scale)
            axes.text(number * (width + GAP), height + 3.8, plane.told, fontsize=8.0, color=MUTED)
        axes.set(xlim=(-0.3, across + 0.3), ylim=(height + below + 0.3, -0.3), aspect="auto")
        figure.set_size_inches((across + 0.6) / MM_PER_INCH, (height + below + 0.6) / MM_PER_INCH)
        drawn = to_svg(figure, title, physical=True)
    return Markup(drawn.replace("image-rendering:crisp-edges;image-rendering:pixelated", "image-rendering:auto"))


def _draw(axes: Axes, plane: MaskedPlane, x: float, scale: float) -> None:
    (height, width), (rows, columns) = (side * scale for side in plane.sides), (at * scale for at in plane.edges)
    columns = columns + x
    if plane.picture_HW is None:
        everywhere = np.ones_like(plane.context_RQ)
        axes.add_patch(_patch(_squares(everywhere, rows, columns), facecolor="white", edgecolor=LINE, linewidth=0.4))
    else:
        box = (x, x + width, height, 0.0)
        axes.imshow(_for_page(plane.picture_HW), cmap="gray", vmin=0.0, vmax=1.0, extent=box, interpolation="none")
    hidden_RQ = ~(plane.context_RQ | plane.targets_MRQ.any(0))
    axes.add_patch(_patch(_squares(hidden_RQ, rows, columns), facecolor=HIDDEN, alpha=GREYED, linewidth=0.0))
    for block, target_RQ in enumerate(plane.targets_MRQ):
        colour = BLOCKS[block % len(BLOCKS)]
        axes.add_patch(_patch(_squares(target_RQ, rows, columns), facecolor=colour, alpha=TINT, linewidth=0.0))
        outline = _outline(target_RQ, rows, columns)
        axes.add_patch(_patch(outline, facecolor="none", edgecolor=colour, linewidth=1.2, capstyle="projecting"))


def _patch(strokes: list[list[tuple[float, float]]], **style: Any) -> PathPatch:
    """One path of many strokes, those of five points closed."""
    points = [point for stroke in strokes for point in stroke]
    codes = [
        code
        for stroke in strokes
        for code in (
            Path.MOVETO,
            *[Path.LINETO] * (len(stroke) - 2),
            Path.CLOSEPOLY if len(stroke) == 5 else Path.LINETO,
        )
    ]
    return PathPatch(Path(np.array(points).reshape(-1, 2), codes), **style)


def _squares(
    chosen_RQ: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> list[list[tuple[float, float]]]:
    """A rectangle around each of the chosen tokens."""
    return [
        [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        for row, column in np.argwhere(chosen_RQ).tolist()
        for top, bottom, left, right in [(*rows[row : row + 2].tolist(), *columns[column : column + 2].tolist())]
    ]


def _outline(
    chosen_RQ: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> list[list[tuple[float, float]]]:
    """A stroke wherever a chosen token lies beside one that is not, or at the edge."""
    around = np.pad(chosen_RQ, 1)
    across = np.argwhere(around[:-1, 1:-1] != around[1:, 1:-1]).tolist()
    down = np.argwhere(around[1:-1, :-1] != around[1:-1, 1:]).tolist()
    return [[(columns[q], rows[r]), (columns[q + 1], rows[r])] for r, q in across] + [
        [(columns[q], rows[r]), (columns[q], rows[r + 1])] for r, q in down
    ]


def _for_page(picture_HW: NDArray[np.floating]) -> NDArray[np.floating]:
    """As fine as a page needs it."""
    longer = max(picture_HW.shape[:2])
    if longer < COARSE // 2:
        times = math.ceil(COARSE / longer)
        return picture_HW.repeat(times, 0).repeat(times, 1)
    every = math.ceil(longer / FINE)
    for axis in (0, 1):
        begins = np.arange(0, picture_HW.shape[axis], every)
        counts = np.diff(np.append(begins, picture_HW.shape[axis]))
        sums = np.add.reduceat(picture_HW, begins, axis)
        picture_HW = sums / counts.reshape(-1, *[1] * (sums.ndim - 1 - axis))
    return picture_HW
