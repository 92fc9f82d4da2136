"""Figures as inline SVG: text stays text, nothing refers to anything outside, and a figure is a few kilobytes."""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe & Ito's set less its yellow, which is invisible on white; told apart by colour-blind readers."""
INK, MUTED, LINE = "#24292f", "#57606a", "#d0d7de"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medssl",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"

_LONG_DECIMALS = re.compile(r"-?\d*\.\d{3,}(?:e-?\d+)?")
_GEOMETRY = re.compile(r'\b(?:d|x|y|width|height|transform)="[^"]*"')
_DOT = re.compile(r"M (\S+) (\S+) \s*L \1 \2 ")


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, figures are made in the report's style; text is never read as mathematics."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # the reader's browser has it
        yield


def to_svg(figure: Figure, title: str, physical: bool = False) -> Markup:
    """The figure for a page, to be called inside `drawing`; `title` is what a screen reader says.

    It takes the width of its place, or, if `physical`, is as large on paper as in matplotlib.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    body = _inside(text)
    body = _GEOMETRY.sub(lambda match: _LONG_DECIMALS.sub(_rounded, match[0]), body)
    body = _DOT.sub(r"M\1 \2h0", body).replace(" \n", " ").replace("\nL ", "L")
    body = re.sub(r"font: ([^;\"]*?)'?DejaVu Sans'?[^;\"]*", rf"font: \1{FONTS}", body)
    body = _own_names(body, hashlib.sha256((title + body).encode()).hexdigest()[:8])
    width, height = (72.0 * side for side in figure.get_size_inches())
    size = f' width="{width / 72 * 25.4:.1f}mm" height="{height / 72 * 25.4:.1f}mm"' if physical else ""
    head = f'<svg viewBox="0 0 {width:g} {height:g}"{size} role="img" aria-label="{html.escape(title)}">'
    return Markup(head + body + "</svg>")  # matplotlib escapes text, and the title is escaped here


def _inside(text: str) -> str:
    """What the svg element holds, less comments, metadata, style rules and namespaces, which a page has once."""
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    for pattern in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>"):
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "\n", body.replace("xlink:href", "href")).strip()


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _own_names(body: str, name: str) -> str:
    """Keeps only the ids that something refers to, under names that no other figure of a page has."""
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    return re.sub(r'(url\(|href=")#', rf"\1#{name}-", body)
