"""What an image goes through between shard and model, in order; each draw is addressed by its sample.

The steps are plain functions: image_space.py (parts, squares, mirrors), image_color.py (values).
Legend: B batch, H height, W width, C channels, S side of the model's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import ImageTransformConfig
from src.randomness import Streams
from src.transforms.draws import hit
from src.transforms.image_color import blur, color_jitter, grayscale, normalized, solarize, unit_interval
from src.transforms.image_space import boxes, check_picture, cut, in_channels, named


class ImageTransform:
    """The settings of a transform section with modality image: I-JEPA's, SimCLR's, BYOL's or one's own."""

    def __init__(self, config: ImageTransformConfig) -> None:
        self.config = config

    def __call__(self, samples: Sequence[Mapping[str, Any]], streams: Streams) -> NDArray[np.float32]:
        """The batch [B, C, S, S] of samples that have key and image, uint8 or uint16, [H, W] or [H, W, 3].

        The images stay untouched.

        Raises:
            ValueError: an image is of another kind; its sample is named.
        """
        assert len(samples) == len(streams)
        config, streams = self.config, streams.fork("image")
        self._check(samples)
        sizes_B2 = np.array([sample["image"].shape[:2] for sample in samples], np.int64).reshape(-1, 2)
        image_BSSC = self._squares(samples, boxes(sizes_B2, config.resized_crop, streams))
        for row in hit(streams, "flip_horizontal", config.flip_horizontal.probability):
            image_BSSC[row] = image_BSSC[row, :, ::-1].copy()
        for row in hit(streams, "flip_vertical", config.flip_vertical.probability):
            image_BSSC[row] = image_BSSC[row, ::-1].copy()
        color_jitter(image_BSSC, config.color_jitter, streams)
        grayscale(image_BSSC, config.grayscale, streams)
        blur(image_BSSC, config.blur, streams)
        solarize(image_BSSC, config.solarize, streams)
        return normalized(image_BSSC, config.mean, config.std)

    def plain(self, samples: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """The batch [B, C, S, S] as evaluation sees it: nothing is random, each image shows its middle."""
        self._check(samples)
        return normalized(self._squares(samples, [None] * len(samples)), self.config.mean, self.config.std)

    def _check(self, samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in samples:
            check_picture(sample["key"], "image", sample["image"], "H, W")

    def _squares(
        self, samples: Sequence[Mapping[str, Any]], places: Sequence[tuple[int, int, int, int] | None]
    ) -> NDArray[np.float32]:
        config, squares = self.config, []
        for sample, place in zip(samples, places, strict=True):
            with named(sample["key"], "image", sample["image"]):
                picture = in_channels(sample["image"], config.channels)
                squares.append(cut(picture, place, config.size, config.shorter_side))
        return unit_interval(squares, 2, config.channels)
