"""A sheet of ECG paper with one record, as a PNG of 10 pixels a millimetre.

The standard twelve leads of 10 s, or the first 10 of up to 12.5 s, stand as a clinic prints them: three rows of four
leads, 2.5 s each, without a break in time from column to column, and lead II below for all of it. Everything else has
its leads one below the other.
"""

# C leads, T samples of a lead

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.report.caption import caption, draw_caption, save_png
from src.report.paper import (
    BIG_BOX,
    GAIN,
    MARGIN,
    SPEED,
    blank,
    draw_calibration,
    draw_lead,
    draw_paper,
    draw_scales,
    fit,
    room,
    up_to_box,
)
from src.report.svg import INK, drawing

COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))
RHYTHM = "II"
COLUMN = 2.5
"""s of a lead."""
LONGEST = 30.0
"""s that are drawn of a longer record: the sheet is 76 cm wide."""
NARROWEST = 120.0
"""mm of paper, so that the title has its place over a single beat."""


class Piece(NamedTuple):
    """A stretch of a lead and where in its row it begins, s."""

    lead: str
    start: float
    signal_T: NDArray[np.floating]


def layout(
    ecg_CT: NDArray[np.floating], keep_C: NDArray[np.bool_], sampling_rate: float, leads: Sequence[str]
) -> list[list[Piece]]:
    """The rows of the sheet; a lead that is not kept says so."""
    seconds = ecg_CT.shape[1] / sampling_rate
    names = [lead if keep else f"{lead} (no signal)" for lead, keep in zip(leads, keep_C.tolist(), strict=True)]
    if {lead for column in COLUMNS for lead in column} != set(leads) or not 4 * COLUMN <= seconds < 5 * COLUMN:
        return [
            [Piece(name, 0.0, lead_T[: round(LONGEST * sampling_rate)])]
            for name, lead_T in zip(names, ecg_CT, strict=True)
        ]
    edges = [round(column * COLUMN * sampling_rate) for column in range(len(COLUMNS) + 1)]
    rows = []
    for row in zip(*COLUMNS, strict=True):
        numbers = [list(leads).index(lead) for lead in row]
        rows.append(
            [
                Piece(names[number], first / sampling_rate, ecg_CT[number, first:stop])
                for number, first, stop in zip(numbers, edges[:-1], edges[1:], strict=True)
            ]
        )
    rhythm = list(leads).index(RHYTHM)
    return [*rows, [Piece(names[rhythm], 0.0, ecg_CT[rhythm, : edges[-1]])]]


def sheet(
    ecg_CT: NDArray[np.floating],
    keep_C: NDArray[np.bool_],
    sampling_rate: float,
    leads: Sequence[str],
    title: str,
    lines: Sequence[str] = (),
    report: str | None = None,
) -> tuple[Figure, Axes]:
    """An ECG [C, T] in mV below its title; to be called inside `drawing`.

    The axes are in mm: x is 0 where the signal begins, y is 0 at the paper's upper edge and grows downwards. A row is
    as high as its trace, at most 5 cm, where it is cut off; the title says so, and what of a long record is not drawn.
    """
    rows = layout(ecg_CT, keep_C, sampling_rate, leads)
    rooms = [room(np.concatenate([piece.signal_T for piece in row])) for row in rows]
    seconds = max(piece.start + len(piece.signal_T) / sampling_rate for row in rows for piece in row)
    width = max(up_to_box(seconds * SPEED), NARROWEST)
    height = up_to_box(BIG_BOX + sum(top + bottom for top, bottom in rooms) + BIG_BOX)  # the last for the scales
    notes = _notes(rows, rooms, seconds, ecg_CT.shape[1] / sampling_rate)
    told = caption(title, [*lines, *notes], report, width + MARGIN)

    figure, axes = blank()
    draw_paper(axes, -MARGIN, width, height)
    upper = BIG_BOX  # room for the first calibration mark
    for row, (top, bottom) in zip(rows, rooms, strict=True):
        for lead, start, signal_T in row:
            x_T = (start + np.arange(len(signal_T)) / sampling_rate) * SPEED
            draw_lead(axes, x_T, signal_T, lead, upper + top, upper, upper + top + bottom)
            if start:
                axes.plot([start * SPEED] * 2, [upper + top - 3.0, upper + top + 3.0], color=INK, linewidth=0.6)
        draw_calibration(axes, upper + top)
        upper += top + bottom
    draw_scales(axes, width, height)

    above = told.height()
    draw_caption(axes, told, 1.0 - MARGIN, above)
    axes.set_ylim(height, -above)
    fit(figure, axes, height + above)
    return figure, axes


def _notes(
    rows: Sequence[Sequence[Piece]], rooms: Sequence[tuple[float, float]], drawn: float, whole: float
) -> list[str]:
    """What the sheet does not show."""
    notes = [f"drawn: the first {drawn:g} of {whole:g} s"] if whole - drawn > 1e-6 else []
    cut = [
        piece.lead
        for row, (top, bottom) in zip(rows, rooms, strict=True)
        for piece in row
        if piece.signal_T.max() * GAIN > top or -piece.signal_T.min() * GAIN > bottom
    ]
    return [*notes, f"cut off at the edge of its row: {', '.join(dict.fromkeys(cut))}"] if cut else notes


def save_sheet(
    path: Path,
    ecg_CT: NDArray[np.floating],
    keep_C: NDArray[np.bool_],
    sampling_rate: float,
    leads: Sequence[str],
    title: str,
    lines: Sequence[str] = (),
    report: str | None = None,
) -> None:
    """The sheet as a PNG."""
    with drawing():
        figure, _ = sheet(ecg_CT, keep_C, sampling_rate, leads, title, lines, report)
        save_png(path, figure)
