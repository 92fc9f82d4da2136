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
from src.transforms.image_space import Picture, boxes, check_picture, cut, in_channels


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
        pictures = self._pictures(samples)
        sizes_B2 = np.array([picture.shape[:2] for picture in pictures], np.int64).reshape(-1, 2)
        places = boxes(sizes_B2, config.resized_crop, streams)
        image_BSSC = self._squares(pictures, places)
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
        pictures = self._pictures(samples)
        return normalized(self._squares(pictures, [None] * len(pictures)), self.config.mean, self.config.std)

    def _pictures(self, samples: Sequence[Mapping[str, Any]]) -> list[Picture]:
        for sample in samples:
            check_picture(sample["key"], "image", sample["image"], "H, W")
        return [in_channels(sample["image"], self.config.channels) for sample in samples]

    def _squares(
        self, pictures: Sequence[Picture], places: Sequence[tuple[int, int, int, int] | None]
    ) -> NDArray[np.float32]:
        config = self.config
        squares = [
            cut(picture, place, config.size, config.shorter_side)
            for picture, place in zip(pictures, places, strict=True)
        ]
        return unit_interval(squares, 2, config.channels)
