"""Images as a batch."""

# B batch, C channels, S side of the model's input

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.config.transforms import ImageTransformConfig
from src.randomness import Streams
from src.transforms.image import ImageTransform


class ImageBatch:
    """Samples to `image` [B, C, S, S] float32."""

    def __init__(self, config: ImageTransformConfig) -> None:
        self._transform = ImageTransform(config)

    def __call__(self, step: int, samples: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch.

        Raises:
            ValueError: an image is of another kind; its sample is named.
        """
        return {"image": torch.from_numpy(self._transform(samples, streams.fork("transform")))}
