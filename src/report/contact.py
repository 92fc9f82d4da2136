"""The contact sheet of a study: some frames of each of its videos, at even times, with the time of each."""

# N frames, H rows, W columns

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.report.caption import LINE, save_png
from src.report.plate import draw_image, page
from src.report.svg import INK, MUTED, drawing

COLUMNS = 6
TILE, TALLEST = 32.0, 48.0
"""mm of a frame's width and height at most."""
GAP = 2.0
TIME = 4.0
"""mm below a frame."""


class Clip(NamedTuple):
    """What is drawn of a video."""

    heading: str
    frames: NDArray[np.uint8]
    """[N, H, W] or [N, H, W, 3]."""
    captions: Sequence[str]
    """What stands below each: its time."""


def even_frames(frames: int, wanted: int) -> NDArray[np.int64]:
    """The numbers of at most `wanted` of a video's frames, in the middle of stretches of equal length."""
    count = min(frames, wanted)
    return ((2 * np.arange(count) + 1) * frames // (2 * max(count, 1))).astype(np.int64)


def captions(numbers_N: NDArray[np.int64], rate: float | None) -> list[str]:
    """The time of each frame in s, or its number where the rate in Hz is unknown."""
    return [f"frame {number}" if not rate else f"{number / rate:.2f} s" for number in numbers_N.tolist()]


def contact_sheet(
    clips: Sequence[Clip], title: str, lines: Sequence[str] = (), report: str | None = None
) -> tuple[Figure, Axes]:
    """Clip by clip, in rows of six frames; to be called inside `drawing`."""
    columns = min(COLUMNS, max(len(clip.frames) for clip in clips))
    sizes = [_tile(clip.frames) for clip in clips]
    rows = [math.ceil(len(clip.frames) / columns) for clip in clips]
    height = sum(LINE + 1.0 + count * (size[0] + TIME) + GAP for count, size in zip(rows, sizes, strict=True))
    width = max(columns * (size[1] + GAP) - GAP for size in sizes)
    figure, axes = page(width, height, title, lines, report)
    y = 0.0
    for clip, size, count in zip(clips, sizes, rows, strict=True):
        axes.text(0.0, y + 3.2, clip.heading, fontsize=8.5, color=INK)
        y += LINE + 1.0
        for number, (frame, told) in enumerate(zip(clip.frames, clip.captions, strict=True)):
            row, column = divmod(number, columns)
            place = (column * (size[1] + GAP), y + row * (size[0] + TIME))
            draw_image(axes, frame, place, size)
            axes.text(place[0], place[1] + size[0] + 2.8, told, fontsize=7.0, color=MUTED)
        y += count * (size[0] + TIME) + GAP
    return figure, axes


def _tile(frames: NDArray[Any]) -> tuple[float, float]:
    """mm of a frame, its aspect kept."""
    height, width = frames.shape[1:3]
    scale = min(TILE / width, TALLEST / height)
    return round(height * scale, 1), round(width * scale, 1)


def save_contact_sheet(
    path: Path, clips: Sequence[Clip], title: str, lines: Sequence[str] = (), report: str | None = None
) -> None:
    """The contact sheet as a PNG."""
    with drawing():
        figure, _ = contact_sheet(clips, title, lines, report)
        save_png(path, figure)
