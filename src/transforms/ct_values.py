"""What happens to the Hounsfield units of a volume: attenuation, noise, windows and their mean and deviation.

Legend: B batch, N volumes that a transform hits, C channels, V windows, K = C * V, D, H, W voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import AttenuationConfig, CTNoiseConfig, WindowConfig, WindowJitterConfig
from src.memory import empty
from src.randomness import Streams
from src.transforms.ct_space import AIR
from src.transforms.draws import between, hit, signed


def change_attenuation(hu_BCDHW: NDArray[np.float32], config: AttenuationConfig, streams: Streams) -> None:
    """(HU + 1000) * factor - 1000 in place, the factor uniform."""
    hit_N = hit(streams, "attenuation", config.probability)
    factor_N = between(streams[hit_N], "attenuation.factor", config.factor).astype(np.float32)
    for row, factor in zip(hit_N, factor_N, strict=True):
        hu_BCDHW[row] = (hu_BCDHW[row] - np.float32(AIR)) * factor + np.float32(AIR)


def add_noise(hu_BCDHW: NDArray[np.float32], config: CTNoiseConfig, streams: Streams) -> None:
    """White noise of standard deviation config.std HU in place."""
    for row in hit(streams, "noise", config.probability):  # one by one: a batch's draws would not fit the cache
        noise_CDHW = streams[np.array([row])].normal("noise.value", *hu_BCDHW.shape[1:])[0].astype(np.float32)
        hu_BCDHW[row] += np.float32(config.std) * noise_CDHW


def window_bounds(windows: Sequence[WindowConfig], config: WindowJitterConfig, streams: Streams) -> NDArray[np.float64]:
    """The lower end and the width of each window of each sample in HU, [B, V, 2], jittered where it hits."""
    bounds_V2 = np.array([(window.center - window.width / 2, window.width) for window in windows])
    bounds_BV2 = np.tile(bounds_V2, (len(streams), 1, 1))
    hit_N = hit(streams, "window_jitter", config.probability)
    center_NV = config.center * signed(streams[hit_N], "window_jitter.center", len(windows))
    width_NV = config.width * signed(streams[hit_N], "window_jitter.width", len(windows))
    bounds_BV2[hit_N] += np.stack([center_NV - width_NV / 2, width_NV], axis=2)
    return bounds_BV2


def windowed(hu_BCDHW: NDArray[np.float32], bounds_BV2: NDArray[np.float64]) -> NDArray[np.float32]:
    """The volumes in their windows, [B, C * V, D, H, W], all windows of the first channel first.

    0 at the lower end of a window and below, 1 at the upper end and above.
    """
    low_BVDHW, width_BVDHW = np.moveaxis(bounds_BV2.astype(np.float32)[..., None, None, None], 2, 0)
    (batch, channels, *size), windows = hu_BCDHW.shape, bounds_BV2.shape[1]
    values_BCVDHW = empty((batch, channels, windows, *size))
    for values_CVDHW, hu_CDHW, low, width in zip(values_BCVDHW, hu_BCDHW, low_BVDHW, width_BVDHW, strict=True):
        np.subtract(hu_CDHW[:, None], low, out=values_CVDHW)
        values_CVDHW /= width
        np.clip(values_CVDHW, 0.0, 1.0, out=values_CVDHW)
    return values_BCVDHW.reshape(batch, -1, *size)


def standardize(values_BKDHW: NDArray[np.float32], windows: Sequence[WindowConfig]) -> NDArray[np.float32]:
    """The values with each window's mean taken away and divided by its standard deviation, in place."""
    for number, window in enumerate(windows):
        if (window.mean, window.std) != (0.0, 1.0):
            values_BKDHW[:, number :: len(windows)] -= np.float32(window.mean)
            values_BKDHW[:, number :: len(windows)] /= np.float32(window.std)
    return values_BKDHW
