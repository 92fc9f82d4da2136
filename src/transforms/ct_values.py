"""What happens to the Hounsfield units of a volume: attenuation, noise, windows.

Legend: B batch, N volumes that a transform hits, C windows, D, H, W voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import AttenuationConfig, CTNoiseConfig, WindowConfig, WindowJitterConfig
from src.randomness import Streams
from src.transforms.ct_space import AIR
from src.transforms.draws import between, hit, signed


def change_attenuation(hu_BDHW: NDArray[np.float32], config: AttenuationConfig, streams: Streams) -> None:
    """(HU + 1000) * factor - 1000 in place, the factor uniform."""
    hit_N = hit(streams, "attenuation", config.probability)
    factor_N = between(streams[hit_N], "attenuation.factor", config.factor).astype(np.float32)
    for row, factor in zip(hit_N, factor_N, strict=True):
        hu_BDHW[row] = (hu_BDHW[row] - np.float32(AIR)) * factor + np.float32(AIR)


def add_noise(hu_BDHW: NDArray[np.float32], config: CTNoiseConfig, streams: Streams) -> None:
    """White noise of standard deviation config.std HU in place."""
    for row in hit(streams, "noise", config.probability):  # one by one: a batch's draws would not fit the cache
        noise_DHW = streams[np.array([row])].normal("noise.value", *hu_BDHW.shape[1:])[0].astype(np.float32)
        hu_BDHW[row] += np.float32(config.std) * noise_DHW


def window_bounds(windows: Sequence[WindowConfig], config: WindowJitterConfig, streams: Streams) -> NDArray[np.float64]:
    """The lower end and the width of each window of each sample in HU, [B, C, 2], jittered where it hits."""
    bounds_C2 = np.array([(window.center - window.width / 2, window.width) for window in windows])
    bounds_BC2 = np.tile(bounds_C2, (len(streams), 1, 1))
    hit_N = hit(streams, "window_jitter", config.probability)
    center_NC = config.center * signed(streams[hit_N], "window_jitter.center", len(windows))
    width_NC = config.width * signed(streams[hit_N], "window_jitter.width", len(windows))
    bounds_BC2[hit_N] += np.stack([center_NC - width_NC / 2, width_NC], axis=2)
    return bounds_BC2


def windowed(hu_BDHW: NDArray[np.float32], bounds_BC2: NDArray[np.float64]) -> NDArray[np.float32]:
    """The volumes in their windows, [B, C, D, H, W]: 0 at the lower end and below, 1 at the upper end and above."""
    batch, channels = bounds_BC2.shape[:2]
    values_BCDHW = np.empty((batch, channels, *hu_BDHW.shape[1:]), np.float32)
    for into_CDHW, hu_DHW, bounds_C2 in zip(values_BCDHW, hu_BDHW, bounds_BC2.astype(np.float32), strict=True):
        for into_DHW, (lowest, width) in zip(into_CDHW, bounds_C2, strict=True):
            np.subtract(hu_DHW, lowest, out=into_DHW)
            into_DHW /= width
    return np.clip(values_BCDHW, 0.0, 1.0, out=values_BCDHW)
