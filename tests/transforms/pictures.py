"""Pictures, clips and volumes for the tests of transforms."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

SIZES = (32, 96)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 [H, W] or [H, W, 3]: photographs have no white noise either."""
    rough = np.random.default_rng(seed).normal(0.0, 1.0, (height, width, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), max(1.0, min(height, width) / 16)).reshape(rough.shape)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(255 * smooth).astype(np.uint8)[..., 0 if channels == 1 else slice(None)]


def image_samples(count: int, channels: tuple[int, ...] = (3, 1)) -> list[dict[str, Any]]:
    """Images of unequal sizes, coloured and gray by turns."""
    return [
        {"key": f"i{n}", "image": picture(40 + 7 * n, 90 - 5 * n, channels[n % len(channels)], n)} for n in range(count)
    ]


def clip_samples(
    count: int, frames: int = 5, channels: tuple[int, ...] = (3, 1), still: bool = False
) -> list[dict[str, Any]]:
    """Clips of unequal sizes, coloured and gray by turns, moving to the side or still."""
    found = []
    for n in range(count):
        wide = picture(40 + 7 * n, 90 - 5 * n + frames, channels[n % len(channels)], n)
        steps = [0 if still else step for step in range(frames)]
        found.append({"key": f"v{n}", "video": np.stack([wide[:, step : step + 90 - 5 * n] for step in steps])})
    return found


SPACINGS = ((1.0, 1.0, 1.0), (2.5, 0.7, 0.8))
"""mm along D, H and W: cubes, and a usual chest CT."""


def volume_samples(count: int) -> list[dict[str, Any]]:
    """Volumes of unequal sizes and spacings, int16 and float32 by turns, with and without an axis for channels."""
    found = []
    for n in range(count):
        shape = (10 + 3 * n, 24 - n, 15 + 2 * n)
        hu = (
            np.random.default_rng(n)
            .normal(-300.0, 400.0, shape)
            .clip(-1024, 3000)
            .astype((np.int16, np.float32)[n % 2])
        )
        found.append({"key": f"c{n}", "ct": hu if n % 3 else hu[None], "meta": {"spacing": list(SPACINGS[n % 2])}})
    return found
