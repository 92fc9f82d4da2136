"""What a clip of a video goes through between shard and model, in order; each draw is addressed by its clip.

Which frames a clip has is video_time.py. The steps are plain functions: image_space.py (parts, squares, mirrors),
randaugment.py, video_values.py. Space is drawn once for a clip: nothing moves that did not move before.
Legend: B batch (clips), T frames, H height, W width, C channels, S side of the model's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import VideoTransformConfig
from src.randomness import Streams
from src.transforms.draws import hit
from src.transforms.image_color import normalized, unit_interval
from src.transforms.image_space import boxes, check_picture, cut, in_channels, named
from src.transforms.randaugment import randaugment
from src.transforms.video_values import (
    add_noise,
    add_speckle,
    blur_frames,
    change_brightness,
    change_contrast,
    change_gamma,
)


class VideoTransform:
    """The settings of a transform section with modality video, on clips that are decoded already."""

    def __init__(self, config: VideoTransformConfig) -> None:
        self.config = config

    def __call__(self, samples: Sequence[Mapping[str, Any]], streams: Streams) -> NDArray[np.float32]:
        """The batch [B, C, T, S, S] of clips that have key and video, uint8 [T, H, W] or [T, H, W, 3].

        The clips stay untouched. Several of one video are several samples, with `clip_streams` of its stream.

        Raises:
            ValueError: a clip is of another kind; its sample is named.
        """
        assert len(samples) == len(streams)
        config, streams = self.config, streams.fork("video")
        self._check(samples)
        sizes_B2 = np.array([sample["video"].shape[1:3] for sample in samples], np.int64).reshape(-1, 2)
        squares = self._squares(samples, boxes(sizes_B2, config.resized_crop, streams))
        for row in hit(streams, "flip_horizontal", config.flip_horizontal.probability):
            squares[row] = np.ascontiguousarray(squares[row][:, :, ::-1])
        for row in hit(streams, "flip_vertical", config.flip_vertical.probability):
            squares[row] = np.ascontiguousarray(squares[row][:, ::-1])
        randaugment(squares, config.randaugment, streams)
        video_BTSSC = unit_interval(squares, 3, config.channels)
        change_gamma(video_BTSSC, config.gamma, streams)
        change_contrast(video_BTSSC, config.contrast, streams)
        change_brightness(video_BTSSC, config.brightness, streams)
        blur_frames(video_BTSSC, config.blur, streams)
        add_speckle(video_BTSSC, config.speckle, streams)
        add_noise(video_BTSSC, config.noise, streams)
        return normalized(video_BTSSC, config.mean, config.std)

    def plain(self, samples: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """The batch [B, C, T, S, S] as evaluation sees it: nothing is random, each frame shows its middle."""
        self._check(samples)
        squares = self._squares(samples, [None] * len(samples))
        return normalized(unit_interval(squares, 3, self.config.channels), self.config.mean, self.config.std)

    def _check(self, samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in samples:
            if sample["video"].dtype != np.uint8:
                raise ValueError(f"sample {sample['key']}: its video is {sample['video'].dtype}: give uint8")
            check_picture(sample["key"], "video", sample["video"], "T, H, W")
            if len(sample["video"]) != self.config.clip.frames:
                raise ValueError(
                    f"sample {sample['key']}: its clip has {len(sample['video'])} frames, but clip.frames is "
                    f"{self.config.clip.frames}: take them with read_clips of src/transforms/video_time.py"
                )

    def _squares(
        self, samples: Sequence[Mapping[str, Any]], places: Sequence[tuple[int, int, int, int] | None]
    ) -> list[NDArray[np.uint8]]:
        """Clips [T, S, S, 1] of gray frames and, unless the model's input is gray, [T, S, S, 3] of coloured ones."""
        config, found = self.config, []
        for sample, place in zip(samples, places, strict=True):
            with named(sample["key"], "video", sample["video"]):
                frames = [in_channels(frame, config.channels) for frame in sample["video"]]
                squares = [cut(frame, place, config.size, config.shorter_side) for frame in frames]
            square = np.stack(squares, dtype=np.uint8)
            found.append(square if square.ndim == 4 else square[..., None])
        return found
