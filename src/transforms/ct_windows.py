"""Windows of Hounsfield units: each brings the range that it shows to 0 .. 1, as a channel of its own."""

# C channels of the volume, K windows

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
        Window("mediastinum", 50.0, 350.0),
        Window("bone", 400.0, 1800.0),
    )
}
"""Customary ones (Radiopaedia, "Windowing (CT)"); `wide` is the -1000 to 1000 HU of CT-CLIP (Hamamci et al. 2024)."""


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


def apply_windows(ct_CDHW: NDArray[np.int16] | NDArray[np.float32], windows: tuple[Window, ...]) -> NDArray[np.float32]:
    """[C * K, D, H, W] in 0 .. 1 out of HU: all windows of the first channel, then those of the next."""
    ct = np.asarray(ct_CDHW, np.float32)
    channels = [
        np.clip((channel - np.float32(window.low)) * np.float32(1 / window.width), 0.0, 1.0)
        for channel in ct
        for window in windows
    ]
    return np.stack(channels)
