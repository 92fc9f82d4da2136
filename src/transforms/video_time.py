"""Which frames of a video a model sees: clips of a number of frames, in steps of frames or of seconds.

Legend: B videos, K clips of each, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from src.config.transforms import ClipConfig
from src.randomness import Streams


class Video(Protocol):
    """An encoded video that decodes what it is asked for."""

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """The frames at ascending indices, [len(indices), H, W, 3] or [len(indices), H, W]."""


def clip_indices(
    counts_B: NDArray[np.int64],
    rates_B: NDArray[np.float64],
    config: ClipConfig,
    streams: Streams,
    names: Sequence[str],
) -> NDArray[np.int64]:
    """The frames [B, K, T] of the clips of videos with so many frames at so many a second; none is beyond the end.

    A clip begins at a frame and goes on in steps of config.stride frames, or of 1 / config.rate seconds to the nearest
    frame (where a video has fewer frames a second some are there twice). Each start from which the clip fits is equally
    likely, the last one too. What happens to a shorter video is config.short.

    Raises:
        ValueError: a video has no frames, no rate where one is needed, or is shorter than a clip where config.short is
            refuse; it is named.
    """
    offsets_BT = _offsets(counts_B, rates_B, config, names)
    room_B = counts_B - 1 - offsets_BT[:, -1]
    if config.short == "refuse" and (room_B < 0).any():
        row = int((room_B < 0).argmax())
        raise ValueError(
            f"sample {names[row]} has {counts_B[row]} frames, but a clip takes {offsets_BT[row, -1] + 1}: lower "
            f"clip.frames or the step between them, or set clip.short to repeat or loop"
        )
    indices_BKT = _starts(np.maximum(room_B, 0), config, streams)[:, :, None] + offsets_BT[:, None, :]
    if config.short == "loop":
        return indices_BKT % counts_B[:, None, None]
    return np.minimum(indices_BKT, counts_B[:, None, None] - 1)


def _offsets(
    counts_B: NDArray[np.int64], rates_B: NDArray[np.float64], config: ClipConfig, names: Sequence[str]
) -> NDArray[np.int64]:
    """The frames [B, T] of clips that begin at frame 0."""
    for name, count, rate in zip(names, counts_B, rates_B, strict=True):
        if count < 1:
            raise ValueError(f"sample {name} has no frames: leave it out")
        if config.rate is not None and not (np.isfinite(rate) and rate > 0):
            raise ValueError(
                f"sample {name} has a rate of {rate} frames a second: set clip.stride instead of clip.rate"
            )
    step_B = np.full(len(counts_B), float(config.stride or 1)) if config.rate is None else rates_B / config.rate
    return np.floor(np.arange(config.frames) * step_B[:, None] + 0.5).astype(np.int64)


def _starts(room_B: NDArray[np.int64], config: ClipConfig, streams: Streams) -> NDArray[np.int64]:
    """The first frames [B, K], each from 0 to the room."""
    if config.where == "random":
        return streams.integers("clip.start", room_B + 1, config.clips)
    if config.where == "center" or config.clips == 1:
        return room_B[:, None] // 2
    share_K = np.arange(config.clips) / (config.clips - 1)
    return np.floor(room_B[:, None] * share_K + 0.5).astype(np.int64)


def read_clips(
    videos: Sequence[Video],
    counts_B: NDArray[np.int64],
    rates_B: NDArray[np.float64],
    config: ClipConfig,
    streams: Streams,
    names: Sequence[str],
) -> list[NDArray[np.uint8]]:
    """The B * K clips of the videos, one video's after the other, uint8 [T, H, W, 3] (gray ones maybe [T, H, W]).

    The other arguments are those of `clip_indices`. Each frame that is needed is decoded once, in its order.
    """
    indices_BKT = clip_indices(counts_B, rates_B, config, streams.fork("video"), names)
    return [clip for video, indices_KT in zip(videos, indices_BKT, strict=True) for clip in clips_at(video, indices_KT)]


def clips_at(video: Video, indices_KT: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """The K clips of a video that have these frames; each frame that is needed is decoded once, in its order."""
    needed, places_KT = np.unique(indices_KT, return_inverse=True)
    frames = video.frames(needed.tolist())
    if len(indices_KT) == 1 and len(needed) == indices_KT.size:
        return [frames]
    return [frames[places_T] for places_T in places_KT.reshape(indices_KT.shape)]


def clip_streams(streams: Streams, clips: int) -> Streams:
    """The streams of the B * K clips, in the order of `read_clips`."""
    keys_BK = np.stack([streams.fork(f"clip.{number}").keys_B for number in range(clips)], axis=1)
    return Streams(keys_BK.reshape(-1))
