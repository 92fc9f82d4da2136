"""The plots of a page: lines over steps, a forest of intervals, a map of embeddings."""

# N records, F features, S steps

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from src.report.measures import CHANCE, score_title
from src.report.read import Series, Values
from src.report.svg import INK, LINE, MUTED, RUN_COLOURS, drawing, to_svg

BUCKETS = 240
"""Points of a line; longer ones are drawn as the mean and the range of so many stretches."""
FEW = 40
"""Up to so many points are marked one by one."""
ROUND = (1, 2, 2.5, 5, 10)
"""Steps between the ticks, times a power of ten."""
PANEL = (3.7, 2.05)
"""Inches."""
PLACE = (0.155, 0.205, 0.8, 0.685)
"""Of the axes in a panel: left, bottom, width, height. Equal for all, and twice as fast as a layout that is solved."""
MAP = 2.15
"""Inches of a side of a map."""
DOTS = 1000
"""Records of a map that are drawn at most in one colour."""
GREY, POSITIVE = "#c4ccd4", "#d55e00"


class Envelope(NamedTuple):
    """A long line in few points: mean, lowest and highest value of each stretch; NaN where it has none."""

    steps: Values
    mean: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Line:
    """A line of a panel."""

    series: Series
    colour: str
    style: str = "-"
    label: str = ""
    """For the panel's own legend; without one the page tells what the colour stands for."""


class Interval(NamedTuple):
    """A score of a forest plot."""

    value: float
    low: float
    high: float


class Panel(NamedTuple):
    """A plot with what there is to say about it."""

    figure: Markup
    caption: str = ""


def run_colour(place: int) -> str:
    """The colour of a run on the page; the eighth has that of the first."""
    return RUN_COLOURS[place % len(RUN_COLOURS)]


def is_long(series: Series, buckets: int = BUCKETS) -> bool:
    """Whether a series is drawn as an envelope."""
    return len(series.steps) > 2 * buckets


def envelope(series: Series, buckets: int = BUCKETS) -> Envelope:
    """The series in at most `buckets` points, cut into stretches of equally many lines.

    A spike of a single line stays visible as the range of its stretch, however long the run is.
    """
    steps_S, values_S = series
    if not is_long(series, buckets):
        return Envelope(steps_S, values_S, values_S, values_S)
    starts = np.linspace(0, len(steps_S), buckets, endpoint=False).astype(np.int64)
    known_S = np.isfinite(values_S)
    counts = np.add.reduceat(known_S.astype(np.float64), starts)
    sums = np.add.reduceat(np.where(known_S, values_S, 0.0), starts)
    mean = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    low, high = (ufunc.reduceat(np.where(known_S, values_S, np.nan), starts) for ufunc in (np.fmin, np.fmax))
    lengths = np.diff(np.append(starts, len(steps_S)))
    return Envelope(np.add.reduceat(steps_S, starts) / lengths, mean, low, high)


def curves(title: str, lines: Sequence[Line], low: float | None = None, high: float | None = None) -> Markup:
    """Lines over steps; the axis reaches at least from `low` to `high`."""
    with drawing():
        figure = Figure(figsize=PANEL)
        axes = figure.add_axes(PLACE)
        for line in lines:
            _draw_line(axes, line)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=ROUND))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        axes.xaxis.set_major_formatter(FuncFormatter(_step))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0.02)
        _reach(axes, low, high)
        if any(line.label for line in lines):
            axes.legend(handlelength=1.6, borderaxespad=0.2)
        return to_svg(figure, f"{title} over steps")


def _reach(axes: Axes, low: float | None, high: float | None) -> None:
    """Widen the axis; a line that lies on its end stays visible."""
    least, most = axes.dataLim.intervaly
    if low is None or not math.isfinite(least):
        return
    bottom, top = min(low, least), most if high is None else max(high, most)
    room = 0.04 * (top - bottom or 1.0)
    axes.set_ylim(bottom - room, top + room)


def _draw_line(axes: Axes, line: Line) -> None:
    points = envelope(line.series)
    measured = line.style == "-"
    (drawn,) = axes.plot(points.steps, points.mean, line.style, color=line.colour, label=line.label)
    drawn.set_zorder(3 if measured else 2.5)
    if line.style in "-:" and len(points.steps) <= FEW:
        drawn.set_marker("o")
        drawn.set_markersize(5.0 if len(points.steps) == 1 else 2.5)
        drawn.set_markerfacecolor(line.colour if measured else "white")
    if points.low is not points.mean:
        axes.fill_between(points.steps, points.low, points.high, color=line.colour, alpha=0.2, linewidth=0)


def _step(value: float, _: int | None) -> str:
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= 10 * size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def forest(metric: str, labels: Sequence[str], rows: Mapping[str, Sequence[Interval]]) -> Markup:
    """A metric of each label with its interval, one colour and height for each row of the probe."""
    step = 0.8 / max(len(rows), 1)
    with drawing():
        height = 0.75 + len(labels) * (0.12 + 0.13 * len(rows))
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.subplots()
        for place, (name, intervals) in enumerate(rows.items()):
            heights = np.arange(len(labels)) + (place - (len(rows) - 1) / 2) * step
            _intervals(axes, heights, intervals, run_colour(place), MARKERS[place % len(MARKERS)], name)
        for edge in range(1, len(labels)):
            axes.axhline(edge - 0.5, color=LINE, linewidth=0.6)
        if metric in CHANCE:
            axes.axvline(CHANCE[metric], color=MUTED, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(score_title(metric))
        figure.legend(loc="outside upper left", ncols=4, handletextpad=0.2)
        return to_svg(figure, f"{score_title(metric)} of each label with its interval")


MARKERS = "osD^vP*"


def _intervals(
    axes: Axes, heights: NDArray[np.floating], intervals: Sequence[Interval], colour: str, marker: str, name: str
) -> None:
    low, value, high = (np.array([getattr(one, part) for one in intervals]) for part in ("low", "value", "high"))
    axes.hlines(heights, low, high, color=colour, linewidth=1.4)
    axes.plot(value, heights, marker, color=colour, markersize=4.0, label=name)


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


class Plane(NamedTuple):
    """Records along the first two principal components of their features."""

    points_N2: NDArray[np.float64]
    shares: tuple[float, float]
    """Of the variance of the standardised features."""


def principal_plane(features_NF: NDArray[np.float32]) -> Plane | None:
    """First two principal components of the standardised features; None where there is nothing to draw.

    Deterministic: an axis points to where its largest weight is positive. Features without spread are left out.
    """
    if len(features_NF) < 3:
        return None
    features = features_NF.astype(np.float64)
    features = features[:, np.isfinite(features).all(0)]
    std_F = features.std(0)
    varied = std_F > 1e-6 * np.abs(features.mean(0))
    if varied.sum() < 2:
        return None
    standard_NF = ((features - features.mean(0)) / np.where(varied, std_F, 1.0))[:, varied]
    left, singular, axes = np.linalg.svd(standard_NF, full_matrices=False)
    largest = np.abs(axes[:2]).argmax(1)
    signs = np.where(axes[[0, 1], largest] < 0.0, -1.0, 1.0)
    shares = singular**2 / (singular**2).sum()
    return Plane(left[:, :2] * singular[:2] * signs, (float(shares[0]), float(shares[1])))


def embedding_map(title: str, planes: dict[str, Plane], positive_N: NDArray[np.bool_]) -> Markup:
    """The records of each plane side by side, in grey, and over them those with the label in colour."""
    with drawing():
        width, height, side = MAP * len(planes), MAP + 0.2, MAP - 0.25
        figure = Figure(figsize=(width, height))
        for place, (name, plane) in enumerate(planes.items()):
            axes = figure.add_axes(((place * MAP + 0.22) / width, 0.2 / height, side / width, side / height))
            _dots(axes, plane.points_N2[~positive_N], GREY)
            _dots(axes, plane.points_N2[positive_N], POSITIVE)
            axes.set_title(name, fontweight="normal", fontsize=8.5)
            axes.set_xlabel(f"component 1 ({plane.shares[0]:.0%})")
            axes.set_ylabel(f"component 2 ({plane.shares[1]:.0%})")
            axes.set_xticks([])
            axes.set_yticks([])
        return to_svg(figure, f"Map of the embeddings: {title}")


def _dots(axes: Axes, points_M2: NDArray[np.float64], colour: str) -> None:
    """Points as one path of strokes without length, a tenth of the size of as many markers."""
    if len(points_M2) > DOTS:
        points_M2 = points_M2[np.linspace(0, len(points_M2) - 1, DOTS).astype(np.int64)]
    gap = np.full(len(points_M2), np.nan)
    x, y = (np.stack([column, column, gap], 1).ravel() for column in points_M2.T)
    (line,) = axes.plot(x, y, color=colour, linewidth=3.0, solid_capstyle="round", alpha=0.75)
    line.get_path().should_simplify = False
