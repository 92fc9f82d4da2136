"""Pictures of coverage: lines along an ECG, maps of an image's grid, maps tubelet by tubelet of a video's.

Legend: L tokens of the grid, R rows of examples, T tubelets of a video, H, W rows and columns of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from src.masks.counts import CONTEXT, NEITHER, TARGET, Coverage

COLOURS = ("#e3e3e3", "#0072b2", "#e69f00")  # of Okabe & Ito's set, told apart by colour-blind readers and in grey
SHARES = "share of samples in which\na token is "
SHOWN = 4  # masks of an image
SHADES: dict[str, Any] = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}


def ecg_picture(coverages: Mapping[str, Coverage], examples: Mapping[str, NDArray[np.int8]], seconds: float) -> Figure:
    """For each style the coverage along an ECG of so many seconds and, below, a row for each example [R, L]."""
    figure = Figure(figsize=(3.6 * len(coverages), 5.4), layout="constrained")
    panels = figure.subplots(2, len(coverages), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    for (style, found), lines, strip in zip(coverages.items(), *panels, strict=True):
        edges = np.linspace(0.0, seconds, len(found.context_L) + 1)
        lines.stairs(found.context_L, edges, baseline=None, color=COLOURS[CONTEXT], linewidth=2)
        lines.stairs(found.target_L, edges, baseline=None, color=COLOURS[TARGET], linewidth=2)
        lines.set_title(_title(style, found), fontsize=10.5)
        lines.set(ylim=(0.0, 1.0), xlim=(0.0, seconds))
        lines.grid(alpha=0.3)
        rows = len(examples[style])
        strip.pcolormesh(edges, np.arange(rows + 1), examples[style], cmap=ListedColormap(COLOURS), vmin=0, vmax=2)
        strip.hlines(np.arange(1, rows), 0.0, seconds, color="white", linewidth=1.5)
        strip.set(ylim=(rows, 0), yticks=[], xlabel="time in the ECG (s)")
    panels[0, 0].set_ylabel(f"{SHARES}context, target")
    panels[1, 0].set_ylabel(f"{rows} example masks")
    tokens = len(next(iter(coverages.values())).context_L)
    figure.suptitle(
        f"What is shown and what is predicted, along an ECG of {seconds:g} s in {tokens} tokens", fontsize=13
    )
    _legend(figure)
    return figure


def image_picture(
    coverages: Mapping[str, Coverage], examples: Mapping[str, NDArray[np.int8]], grid: tuple[int, int]
) -> Figure:
    """For each style a map of the context, one of the targets, and below them four of the examples [R, L]."""
    figure = Figure(figsize=(11, 9.2), layout="constrained")
    places = figure.add_gridspec(3, SHOWN * len(coverages), height_ratios=(3.4, 3.4, 1))
    for number, (style, found) in enumerate(coverages.items()):
        columns = slice(number * SHOWN, (number + 1) * SHOWN)
        for row, (role, frequency_L) in enumerate((("context", found.context_L), ("target", found.target_L))):
            axes = figure.add_subplot(places[row, columns])
            drawn = axes.imshow(frequency_L.reshape(grid), **SHADES)
            axes.set(xticks=[0, grid[1] - 1], yticks=[0, grid[0] - 1])
            axes.set_ylabel("" if number else f"{SHARES}{role}")
            axes.set_title("" if row else _title(style, found), fontsize=10.5)
        for column, example_L in zip(range(columns.start, columns.stop), examples[style], strict=False):
            axes = figure.add_subplot(places[2, column])
            _mask(axes, example_L.reshape(grid))
            axes.set_ylabel("" if column else "example\nmasks")
    figure.colorbar(drawn, ax=figure.axes, shrink=0.5, ticks=[0.0, 0.5, 1.0])
    figure.suptitle(f"What is shown and what is predicted of an image in {grid[0]} x {grid[1]} tokens", fontsize=13)
    _legend(figure)
    return figure


def video_picture(
    coverages: Mapping[str, Coverage], examples: Mapping[str, NDArray[np.int8]], grid: tuple[int, int, int]
) -> Figure:
    """For each kind of masks a row of maps of the context, tubelet by tubelet, and below it one example."""
    tubelets = grid[0]
    figure = Figure(figsize=(1.15 * tubelets + 3.2, 2.75 * len(coverages) + 1.1), layout="constrained")
    for number, (part, (name, found)) in enumerate(
        zip(figure.subfigures(len(coverages), 1, squeeze=False)[:, 0], coverages.items(), strict=True)
    ):
        panels = part.subplots(2, tubelets)
        part.suptitle(_title(name, found).replace("\n", ": "), fontsize=10.5)
        shares_THW, example_THW = found.context_L.reshape(grid), examples[name][0].reshape(grid)
        for place, (above, below) in enumerate(panels.T):
            drawn = above.imshow(shares_THW[place], **SHADES)
            above.set(xticks=[], yticks=[])
            above.set_title(f"mean {shares_THW[place].mean():.2f}", fontsize=9)
            _mask(below, example_THW[place])
            if number == len(coverages) - 1:
                below.set_xlabel(f"tubelet {place + 1}")
        panels[0, 0].set_ylabel("share as\ncontext")
        panels[1, 0].set_ylabel("one\nexample")
        part.colorbar(drawn, ax=panels, shrink=0.6, ticks=[0.0, 0.5, 1.0])
    figure.suptitle(
        f"What is shown and what is predicted of a video in {' x '.join(map(str, grid))} tokens\n", fontsize=13
    )
    _legend(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """The figure as a PNG, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _title(name: str, found: Coverage) -> str:
    return f"{name}\n{found.context_tokens:.1f} context tokens on average"


def _mask(axes: Axes, labels_HW: NDArray[np.int8]) -> None:
    axes.imshow(labels_HW, cmap=ListedColormap(COLOURS), vmin=0, vmax=2)
    axes.set(xticks=[], yticks=[])


def _legend(figure: Figure) -> None:
    patches = [Patch(color=COLOURS[kind]) for kind in (CONTEXT, TARGET, NEITHER)]
    figure.legend(patches, ["context", "target", "neither"], loc="outside lower center", ncols=3, frameon=False)
