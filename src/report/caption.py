"""The words of a picture that stands alone: a bold title, lines, and a few of the report; all of it on the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.report.svg import INK

LINE, LINES = 4.2, 5
"""mm of a line of the title, and lines of the report."""
LETTER, BOLD_LETTER = 2.1, 2.8
"""mm of a capital letter, on average, below the title and in it."""
PIXELS = 10
"""A millimetre."""
MM_PER_INCH = 25.4


class Caption(NamedTuple):
    """Words, cut into lines of the page's width."""

    titles: list[str]
    words: list[str]

    def height(self) -> float:
        """mm that they take."""
        return LINE * (len(self.titles) + len(self.words) + 0.6)


def caption(title: str, lines: Sequence[str], report: str | None, width: float) -> Caption:
    """The words of a page that is `width` mm wide."""
    letters = int(width / LETTER)
    words = [part for line in lines for part in textwrap.wrap(line, letters)]
    words += textwrap.wrap(report or "", letters, break_on_hyphens=False, max_lines=LINES, placeholder=" ...")
    return Caption(textwrap.wrap(title, int(width / BOLD_LETTER)), words)


def draw_caption(axes: Axes, told: Caption, left: float, above: float) -> None:
    """Write them from `above` mm over the picture's upper edge downwards."""
    titles = len(told.titles)
    heights = np.arange(1.2, titles + len(told.words) + 1) * LINE - above
    for y, line in zip(heights[:titles], told.titles, strict=True):
        axes.text(left, y, line, fontsize=11, fontweight="bold", color=INK)
    for y, line in zip(heights[titles:], told.words, strict=True):
        axes.text(left, y, line, fontsize=8.5, color=INK)


def save_png(path: Path, figure: Figure) -> None:
    """The figure as a PNG of 10 pixels a millimetre, the same bytes every time; to be called inside `drawing`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=PIXELS * MM_PER_INCH, facecolor="white", metadata={"Software": None})
