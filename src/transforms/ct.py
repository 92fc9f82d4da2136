"""What a CT volume goes through between shard and model, in order; each draw is addressed by its sample.

Lengths are in mm, values in HU until the windows. The steps are plain functions: ct_space.py, ct_values.py.
Legend: B batch, C channels of the volumes, K channels times windows, D, H, W voxels, X the axes D, H, W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import CTTransformConfig, WindowJitterConfig
from src.randomness import Streams
from src.transforms.ct_space import maps, part, resampled, starts
from src.transforms.ct_values import add_noise, change_attenuation, standardize, window_bounds, windowed
from src.transforms.draws import hit


class CTTransform:
    """The settings of a transform section with modality ct.

    Part, rotation, scale and translation are one interpolation; voxels of a sample that none of the three hits are
    copied. Then mirrors, then values in HU, then windows.
    """

    def __init__(self, config: CTTransformConfig) -> None:
        self.config = config

    def __call__(self, samples: Sequence[Mapping[str, Any]], streams: Streams) -> NDArray[np.float32]:
        """The batch [B, K, *size] of samples that have key, ct and meta; these stay untouched.

        `ct` is int16 or float32 in HU, [C, D, H, W] or [D, H, W]; meta["spacing"] is mm along D, H and W, which only
        rotation, scale and translation ask for. All windows of the first channel come first.

        Raises:
            ValueError: a volume is of another kind, has other channels than the first, or its spacing is not known; its
                sample is named.
        """
        assert len(samples) == len(streams)
        config, streams = self.config, streams.fork("ct")
        hu_BCDHW = self._place(samples, streams)
        for axis, section in enumerate((config.flip_depth, config.flip_height, config.flip_width)):
            for row in hit(streams, f"flip.{axis}", section.probability):
                hu_BCDHW[row] = np.flip(hu_BCDHW[row], axis + 1).copy()
        change_attenuation(hu_BCDHW, config.attenuation, streams)
        add_noise(hu_BCDHW, config.noise, streams)
        values_BKDHW = windowed(hu_BCDHW, window_bounds(config.windows, config.window_jitter, streams))
        return standardize(values_BKDHW, config.windows)

    def plain(self, samples: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """The batch [B, K, *size] as evaluation sees it: the middle of each volume in the windows as they are."""
        volumes, nothing = alike(samples), Streams(np.zeros(len(samples), np.uint64))
        begin_BX = starts(_shapes(volumes), self.config.size, "center", nothing)
        parts = [part(volume, begin, self.config.size) for volume, begin in zip(volumes, begin_BX, strict=True)]
        windows = self.config.windows
        return standardize(windowed(np.stack(parts), window_bounds(windows, WindowJitterConfig(), nothing)), windows)

    def _place(self, samples: Sequence[Mapping[str, Any]], streams: Streams) -> NDArray[np.float32]:
        """The part of each body that the model sees, in HU."""
        config, volumes = self.config, alike(samples)
        begin_BX = starts(_shapes(volumes), config.size, config.crop, streams)
        changed_B, matrix_BXX, shift_BX = maps(config.rotation, config.scale, config.translation, streams)
        hu_BCDHW = np.empty((len(samples), len(volumes[0]), *config.size), np.float32)
        for row, volume in enumerate(volumes):
            if changed_B[row]:
                spacing = spacing_of(samples[row])
                hu_BCDHW[row] = resampled(volume, begin_BX[row], config.size, spacing, matrix_BXX[row], shift_BX[row])
            else:
                hu_BCDHW[row] = part(volume, begin_BX[row], config.size)
        return hu_BCDHW


def _shapes(volumes: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    return np.array([volume.shape[1:] for volume in volumes], np.int64).reshape(-1, 3)


def alike(samples: Sequence[Mapping[str, Any]]) -> list[NDArray[np.generic]]:
    """The volumes [C, D, H, W] of a batch, whose C is one."""
    volumes = [checked(sample) for sample in samples]
    for sample, volume in zip(samples, volumes, strict=True):
        if len(volume) != len(volumes[0]):
            raise ValueError(
                f"sample {sample['key']}: its ct has {len(volume)} channels, but {samples[0]['key']} of the same batch "
                f"has {len(volumes[0])}: keep volumes of one number of channels"
            )
    return volumes


def checked(sample: Mapping[str, Any]) -> NDArray[np.generic]:
    """The volume [C, D, H, W] of a sample."""
    key, volume = sample["key"], sample["ct"]
    if volume.ndim == 3:
        volume = volume[None]
    if volume.ndim != 4 or not volume.size or volume.dtype not in (np.int16, np.float32):
        raise ValueError(
            f"sample {key}: its ct is {sample['ct'].dtype} of shape {sample['ct'].shape}: give int16 or float32 in HU, "
            f"[C, D, H, W] or [D, H, W]"
        )
    if volume.dtype == np.float32 and not np.isfinite(volume).all():
        raise ValueError(f"sample {key}: its ct holds NaN or infinite values: repair the volume or leave it out")
    return volume


def spacing_of(sample: Mapping[str, Any]) -> NDArray[np.float64]:
    """mm between voxels along D, H and W."""
    spacing = sample["meta"].get("spacing")
    if spacing is None or np.shape(spacing) != (3,) or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"sample {sample['key']}: its meta has the spacing {spacing}, not three lengths in mm, which rotation, "
            f"scale and translation need: set their probability to 0"
        )
    return np.array(spacing, np.float64)
