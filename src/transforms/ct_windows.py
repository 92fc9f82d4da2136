"""Windows of Hounsfield units by their names: each is a range that becomes 0 .. 1, as a channel of its own."""

from __future__ import annotations

import math
from typing import NamedTuple


class Window(NamedTuple):
    """A range of HU, as radiologists give it."""

    name: str
    center: float
    width: float

    @property
    def low(self) -> float:
        """HU that become 0."""
        return self.center - self.width / 2

    @property
    def high(self) -> float:
        """HU that become 1."""
        return self.center + self.width / 2


PRESETS = {
    window.name: window
    for window in (
        Window("wide", 0.0, 2000.0),
        Window("lung", -600.0, 1500.0),
        Window("mediastinum", 40.0, 400.0),
        Window("bone", 400.0, 1800.0),
    )
}
"""Customary ones; `wide` is the -1000 to 1000 HU of CT-CLIP (Hamamci et al. 2024)."""


def parse_window(text: str) -> Window:
    """A preset by its name, CENTER,WIDTH or NAME=CENTER,WIDTH.

    Raises:
        ValueError: it is none of these.
    """
    if text in PRESETS:
        return PRESETS[text]
    name, equals, numbers = text.rpartition("=")
    try:
        center, width = (float(number) for number in numbers.split(","))
    except ValueError:
        center = width = math.nan
    if not (math.isfinite(center) and 0 < width < math.inf) or (equals and not name.strip()):
        raise ValueError(
            f"the window {text} must be {', '.join(PRESETS)}, or NAME=CENTER,WIDTH in HU as in liver=60,160"
        )
    return Window(name.strip() or f"{center:g},{width:g}", center, width)
