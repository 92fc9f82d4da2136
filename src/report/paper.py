"""An ECG on its paper: 25 mm a second, 10 mm a millivolt, boxes of 1 and 5 mm; and what a mask shows of it.

Figures are made in millimetres and printed at that size.

Legend: C leads, T samples of a lead, M target blocks, K context tokens, N tokens of a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from src.report.caption import MM_PER_INCH
from src.report.svg import INK, drawing, to_svg

SPEED = 25.0
"""mm a second."""
GAIN = 10.0
"""mm a millivolt."""
BOX, BIG_BOX = 1.0, 5.0
"""mm."""
SMALLEST_ROW, LARGEST_ROW = 15.0, 50.0
"""mm that a lead has at least, and that its trace takes at most."""
MARGIN = 10.0
"""mm to the left of the signal, for the calibration mark."""
PAPER, THIN, THICK = "#fffaf8", "#fbdcd6", "#f3aea3"
CONTEXT, TARGET = "#0072b2", "#e69f00"
STRIP = 2.0
"""mm of a row of tokens below the leads."""


def draw_ecg(
    axes: Axes, ecg_CT: NDArray[np.floating], sampling_rate: float, leads: Sequence[str], below: float = 0.0
) -> float:
    """Draw leads [C, T] in mV one below the other on paper; returns the paper's height in mm.

    The axes are in mm: x is 0 where the signal begins, y is 0 at the upper edge of the paper and grows downwards.
    `below` mm of the height stay free under the last lead. Samples that are not finite leave a gap.
    """
    rows = [room(signal_T) for signal_T in ecg_CT]
    height = up_to_box(BIG_BOX + sum(top + bottom for top, bottom in rows) + below)
    width = up_to_box(ecg_CT.shape[1] / sampling_rate * SPEED)
    draw_paper(axes, -MARGIN, width, height)
    x_T = np.arange(ecg_CT.shape[1]) / sampling_rate * SPEED
    upper = BIG_BOX  # room for the first calibration mark
    for signal_T, lead, (top, bottom) in zip(ecg_CT, leads, rows, strict=True):
        zero = upper + top
        draw_lead(axes, x_T, signal_T, lead, zero, upper, upper + top + bottom)
        draw_calibration(axes, zero)
        upper += top + bottom
    draw_scales(axes, width, height)
    return height


def draw_lead(
    axes: Axes,
    x_T: NDArray[np.floating],
    signal_T: NDArray[np.floating],
    lead: str,
    zero: float,
    upper: float,
    lower: float,
) -> None:
    """A trace in mV about the height `zero`, cut off at `upper` and `lower`, with its name where it begins; mm."""
    y_T = np.clip(zero - signal_T * GAIN, upper, lower)
    axes.plot(x_T, y_T, color="black", linewidth=0.8, solid_joinstyle="round")
    axes.text(float(x_T[0]) + 0.8, upper + 3.4, lead, fontsize=8.5, fontweight="bold", color=INK)


def draw_scales(axes: Axes, width: float, height: float) -> None:
    """What a box stands for, in the lower right corner."""
    axes.text(width - 0.8, height - 0.9, "25 mm/s   10 mm/mV", ha="right", fontsize=7.0, color=INK)


def room(signal_T: NDArray[np.floating]) -> tuple[float, float]:
    """mm above and below the zero line of a lead, in whole big boxes where it fits."""
    finite = signal_T[np.isfinite(signal_T)]
    highest, lowest = (float(finite.max()), float(finite.min())) if len(finite) else (0.0, 0.0)
    top, bottom = up_to_box(max(highest, 0.1) * GAIN + 1.0), up_to_box(max(-lowest, 0.1) * GAIN + 1.0)
    top = max(min(top, LARGEST_ROW - BIG_BOX), SMALLEST_ROW - min(bottom, BIG_BOX))
    return top, max(BIG_BOX, min(bottom, LARGEST_ROW - top))


def up_to_box(length: float) -> float:
    """mm, filled up to whole big boxes."""
    return math.ceil(length / BIG_BOX - 1e-9) * BIG_BOX


def draw_paper(axes: Axes, left: float, right: float, height: float) -> None:
    """The grid as two paths, whatever the number of boxes."""
    axes.set(xlim=(left, right), ylim=(height, 0.0))
    axes.set_axis_off()
    axes.add_patch(Rectangle((left, 0.0), right - left, height, facecolor=PAPER, edgecolor="none", zorder=0))
    for box, colour, width in ((BOX, THIN, 0.35), (BIG_BOX, THICK, 0.55)):
        across, down = np.arange(left, right + box / 2, box), np.arange(0.0, height + box / 2, box)
        x = np.concatenate([_strokes(across, across), _strokes(0 * down + left, 0 * down + right)])
        y = np.concatenate([_strokes(0 * across, 0 * across + height), _strokes(down, down)])
        axes.plot(x, y, color=colour, linewidth=width, zorder=0.5)


def _strokes(begin: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([begin, end, np.full(len(begin), np.nan)], 1).ravel()


def draw_calibration(axes: Axes, zero: float) -> None:
    """1 mV for 0.2 s."""
    x = np.array([-8.0, -7.0, -7.0, -2.0, -2.0, -1.0])
    y = zero - GAIN * np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    axes.plot(x, y, color="black", linewidth=0.8)


def ecg_on_paper(ecg_CT: NDArray[np.floating], sampling_rate: float, leads: Sequence[str]) -> Markup:
    """An ECG as a figure in the size of its paper."""
    with drawing():
        figure, axes = blank()
        height = draw_ecg(axes, ecg_CT, sampling_rate, leads)
        fit(figure, axes, height)
        return to_svg(figure, f"ECG, leads {', '.join(leads)}", physical=True)


def masked_ecg(
    ecg_CT: NDArray[np.floating],
    sampling_rate: float,
    leads: Sequence[str],
    patch: int,
    context_K: NDArray[np.int64],
    targets_MN: NDArray[np.int64],
    title: str,
) -> Markup:
    """The ECG with what is context and what is target, and below it a row for the context and one for each target.

    A token is `patch` samples of all leads; where targets cover each other, the ECG shows one shade and the rows all.
    """
    token = patch / sampling_rate * SPEED
    rows = 1 + len(targets_MN)
    with drawing():
        figure, axes = blank()
        height = draw_ecg(axes, ecg_CT, sampling_rate, leads, below=rows * STRIP + 5.0)
        strip = height - rows * STRIP - 4.5
        for tokens, colour in ((context_K, CONTEXT), (np.unique(targets_MN), TARGET)):
            for first, count in _stretches(tokens):
                axes.add_patch(_block(first * token, 0.0, count * token, strip - 0.5, colour, 0.22))
        for row, tokens in enumerate((context_K, *targets_MN)):
            for first, count in _stretches(np.sort(tokens)):
                colour = TARGET if row else CONTEXT
                axes.add_patch(_block(first * token, strip + row * STRIP, count * token, STRIP - 0.5, colour, 1.0))
        fit(figure, axes, height)
        return to_svg(figure, title, physical=True)


def _stretches(tokens: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First token and length of each stretch of neighbours in an ascending list."""
    if not len(tokens):
        return []
    pieces = np.split(tokens, np.flatnonzero(np.diff(tokens) != 1) + 1)
    return [(int(piece[0]), len(piece)) for piece in pieces]


def _block(x: float, y: float, width: float, height: float, colour: str, alpha: float) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="none", alpha=alpha, zorder=0.8)


def blank() -> tuple[Figure, Axes]:
    """A figure that is all axes."""
    figure = Figure()
    return figure, figure.add_axes((0.0, 0.0, 1.0, 1.0))


def fit(figure: Figure, axes: Axes, height: float) -> None:
    """Make a millimetre of the axes one of the figure."""
    left, right = axes.get_xlim()
    figure.set_size_inches((right - left) / MM_PER_INCH, height / MM_PER_INCH)
