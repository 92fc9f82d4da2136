"""CT volumes as a batch: one part of each, or several from one read."""

# B batch, P patches of a volume, K channels times windows, D, H, W voxels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config.transforms import CTTransformConfig
from src.randomness import Streams
from src.transforms.ct import CTTransform, checked


class CTBatch:
    """Samples to `ct` float32: [B, K, D, H, W], or [B, P, K, D, H, W] where the config has patches."""

    def __init__(self, config: CTTransformConfig) -> None:
        self._patches = config.patches
        self._transform = CTTransform(config)

    def prepare(self, sample: Mapping[str, Any], streams: Streams) -> Mapping[str, Any]:
        """The sample as it is.

        Raises:
            ValueError: its volume is of another kind, or not finite.
        """
        return {**sample, "ct": checked(sample)}

    def __call__(self, step: int, prepared: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch; a patch depends on its place among those of its volume, not on how many there are.

        Raises:
            ValueError: volumes have other numbers of channels, or no spacing where the transform asks for one; the
                sample is named.
        """
        streams = streams.fork("transform")
        if self._patches is None:
            return {"ct": torch.from_numpy(self._transform(prepared, streams))}
        drawn = [self._transform(prepared, streams.fork(f"patch.{number}")) for number in range(self._patches)]
        return {"ct": torch.from_numpy(np.stack(drawn, axis=1))}
