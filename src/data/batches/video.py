"""Videos as a batch: a clip of each, or the clips of several videos of each study."""

# B batch, M videos of a study, N those that the model sees, K clips of a video, C channels, T frames, S side

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.config.transforms import VideoTransformConfig
from src.data.video import Video
from src.randomness import Streams
from src.transforms.plain import frames_and_rate
from src.transforms.video import VideoTransform
from src.transforms.video_time import clip_indices, clip_streams, clips_at


class VideoBatch:
    """Samples to `video` float32 [B, C, T, S, S], or [B, N * K, C, T, S, S] and `keep` [B, N * K] bool.

    The second where the config asks for several videos of a study or several clips of a video: the clips of one video
    follow each other. What a study lacks is zeros, where keep is False.
    """

    def __init__(self, config: VideoTransformConfig) -> None:
        self._config = config
        self._transform = VideoTransform(config)

    def prepare(self, sample: Mapping[str, Any], streams: Streams) -> Mapping[str, Any]:
        """The sample with its `clips`, uint8 [T, H, W, 3] each, and the `numbers` of their videos instead of `videos`.

        `streams` is that of this sample. Frames that the config can't take from a sound video are no fault of the
        sample: `refused` says why, and `__call__` raises it.

        Raises:
            ValueError: a video can't be decoded.
        """
        videos: Sequence[Video] = sample["videos"]
        numbers = self._drawn(len(videos), streams)
        prepared = {name: value for name, value in sample.items() if name != "videos"}
        clips: list[NDArray[np.uint8]] = []
        for number in numbers:
            count, rate = frames_and_rate(videos[number])
            try:
                indices_KT = self._indices(sample["key"], count, rate, _of_video(streams, number))
            except ValueError as error:
                return {**prepared, "refused": str(error)}
            clips += clips_at(videos[number], indices_KT)
        return {**prepared, "clips": clips, "numbers": numbers}

    def __call__(self, step: int, prepared: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch.

        Raises:
            ValueError: a video is too short, or has no rate, for what the config asks of it; its sample is named.
        """
        for sample in prepared:
            if "refused" in sample:
                raise ValueError(sample["refused"])
        clips = [{"key": sample["key"], "video": clip} for sample in prepared for clip in sample["clips"]]
        keys = [
            clip_streams(_of_video(streams[row : row + 1], number), self._config.clip.clips).keys_B
            for row, sample in enumerate(prepared)
            for number in sample["numbers"]
        ]
        video_XCTSS = self._transform(clips, Streams(np.concatenate(keys)))
        if self._config.videos is None and self._config.clip.clips == 1:
            return {"video": torch.from_numpy(video_XCTSS)}
        return self._in_studies(video_XCTSS, [len(sample["clips"]) for sample in prepared])

    def _in_studies(self, video_XCTSS: NDArray[np.float32], counts_B: Sequence[int]) -> dict[str, Tensor]:
        """The clips of all samples, one sample's after the other, at their samples."""
        slots = (self._config.videos or 1) * self._config.clip.clips
        keep_BN = np.arange(slots) < np.array(counts_B)[:, None]
        video_BNCTSS = np.zeros((*keep_BN.shape, *video_XCTSS.shape[1:]), np.float32)
        video_BNCTSS[keep_BN] = video_XCTSS
        return {"video": torch.from_numpy(video_BNCTSS), "keep": torch.from_numpy(keep_BN)}

    def _drawn(self, videos: int, streams: Streams) -> list[int]:
        """The numbers of the videos that the model sees, ascending; each as likely as any other."""
        order = np.argsort(streams.uniform("videos", videos)[0])
        return sorted(order[: self._config.videos or 1].tolist())

    def _indices(self, key: str, count: int, rate: float, streams: Streams) -> NDArray[np.int64]:
        counts, rates = np.array([count], np.int64), np.array([rate], np.float64)
        return clip_indices(counts, rates, self._config.clip, streams.fork("video"), [key])[0]


def _of_video(streams: Streams, number: int) -> Streams:
    """The streams of a video of each sample, the same whichever others are seen beside it."""
    return streams.fork("transform").fork(f"video.{number}")
