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
