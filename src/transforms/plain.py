"""What images, videos and CT volumes go through between shard and encoder when nothing is random.

ECGs have preprocessing.py. encoder/preprocessing.json keeps it beside the weights; `modality` tells which it is.
Training draws what it does beyond that (src/transforms/{image,video,ct}.py).
"""

# W windows of a sample, C channels, T frames, D, H, W voxels, S side, K clips

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, TypeAdapter

from src.config.section import Probability, Section
from src.config.transforms import (
    ClipConfig,
    CTTransformConfig,
    Deviation,
    ImageTransformConfig,
    Side,
    TransformConfig,
    VideoTransformConfig,
    WindowConfig,
)
from src.randomness import Streams
from src.transforms.preprocessing import Preprocessing
from src.transforms.video_time import clip_indices, clips_at

if TYPE_CHECKING:
    from src.transforms.ct import CTTransform
    from src.transforms.image import ImageTransform
    from src.transforms.video import VideoTransform


class _Picture(Section):
    """What images and videos have in common; the keys are those of the training transform."""

    size: Side
    """Height and width of the encoder's input in pixels."""
    channels: Literal[1, 3]
    """1: gray; 3: red, green and blue."""
    shorter_side: Side | None
    """The shorter side is resized to so many pixels, then the middle is cut out; null is `size`."""
    mean: tuple[Probability, ...]
    """Of each channel, subtracted from values in 0 .. 1."""
    std: tuple[Deviation, ...]
    """Of each channel; values are divided by it."""

    def _squares(self, sides: tuple[int, ...]) -> dict[str, int | None]:
        if sides[-1] != sides[-2]:
            raise ValueError(f"pictures are squares for an encoder, and {sides[-2]} x {sides[-1]} is none")
        margin = self.shorter_side
        return {"size": sides[-1], "shorter_side": None if margin is None else round(margin * sides[-1] / self.size)}


class ImagePreprocessing(_Picture):
    """How an encoder wants its images."""

    modality: Literal["image"]

    def windows_of(self, sample: Mapping[str, Any], count: int | None) -> NDArray[np.float32]:
        """The one window [1, C, S, S] of a sample's image: its middle, or all of it where it is a square.

        Raises:
            ValueError: the image is of another kind, or more windows are asked for.
        """
        if count not in (None, 1):
            raise ValueError(f"sample {sample['key']}: an image is one window, not {count}: set windows to 1 or null")
        return _image_transform(self).plain([sample])

    def of_sides(self, sides: tuple[int, ...]) -> Self:
        """The same for inputs [H, W] of another size; what is cut off at the rim stays the same share.

        Raises:
            ValueError: they are no squares.
        """
        return self.model_copy(update=self._squares(sides))


class VideoPreprocessing(_Picture):
    """How an encoder wants its videos."""

    modality: Literal["video"]
    clip: ClipConfig
    """Frames of a clip and the step between them."""

    def windows_of(self, sample: Mapping[str, Any], count: int | None) -> NDArray[np.float32]:
        """`count` evenly spaced clips [W, C, T, S, S] of each of a sample's videos, one video's after the other.

        One is the middle; without a count so many as cover the video.

        Raises:
            ValueError: a video can't be decoded, or is too short or without a rate for such clips.
        """
        clips: list[NDArray[np.uint8]] = []
        for video in sample["videos"]:
            frames, rate = frames_and_rate(video)
            clips += clips_at(video, self._indices(sample["key"], frames, rate, count))
        return _video_transform(self).plain([{"key": sample["key"], "video": clip} for clip in clips])

    def of_sides(self, sides: tuple[int, ...]) -> Self:
        """The same for clips [T, H, W] of another size or number of frames.

        Raises:
            ValueError: their frames are no squares.
        """
        clip = self.clip.model_copy(update={"frames": sides[0]})
        return self.model_copy(update={"clip": clip, **self._squares(sides)})

    def _indices(self, key: str, frames: int, rate: float, count: int | None) -> NDArray[np.int64]:
        nothing = Streams(np.zeros(1, np.uint64))
        spaced = self.clip.model_copy(update={"where": "uniform", "clips": 1})
        told = np.array([frames], np.int64), np.array([rate], np.float64)
        if count is None:
            middle = clip_indices(*told, spaced, nothing, [key])[0, 0]
            count = math.ceil(frames / (middle.max() - middle.min() + 1))
        return clip_indices(*told, spaced.model_copy(update={"clips": count}), nothing, [key])[0]


class CTPreprocessing(Section):
    """How an encoder wants its CT volumes."""

    modality: Literal["ct"]
    size: tuple[Side, Side, Side]
    """Voxels of the encoder's input along D, H and W; what a volume lacks is air."""
    windows: Annotated[tuple[WindowConfig, ...], Field(min_length=1)]
    """One channel each."""

    def windows_of(self, sample: Mapping[str, Any], count: int | None) -> NDArray[np.float32]:
        """One part [1, C, D, H, W] of a sample's volume, its middle, or without a count so many [W, C, D, H, W] as
        cover it, evenly spaced along each axis.

        Raises:
            ValueError: the volume is of another kind, or another count is asked for.
        """
        from src.transforms.ct import checked  # scipy

        if count not in (None, 1):
            raise ValueError(
                f"sample {sample['key']}: a CT volume is one window, its middle, or is covered, not {count}: set "
                "windows to 1 or null"
            )
        transform = _ct_transform(self)
        if count == 1:
            return transform.plain([sample])
        volume_CDHW = checked(sample)
        starts = itertools.product(*map(_spaced, volume_CDHW.shape[1:], self.size))
        parts = [
            volume_CDHW[(slice(None), *(slice(low, low + side) for low, side in zip(start, self.size, strict=True)))]
            for start in starts
        ]
        return transform.plain([{**sample, "ct": part} for part in parts])

    def of_sides(self, sides: tuple[int, ...]) -> Self:
        """The same for parts [D, H, W] of another size."""
        return self.model_copy(update={"size": sides})


def _spaced(length: int, side: int) -> Sequence[int]:
    """Where the fewest parts of an axis begin that cover it, evenly spaced."""
    room = max(length - side, 0)
    starts: list[int] = np.linspace(0, room, math.ceil(length / side)).round().astype(int).tolist()
    return starts if room else [0]


# A transform for all samples of an encoder. OpenCV and scipy: few runs look at pictures.


@lru_cache(maxsize=8)
def _image_transform(preprocessing: ImagePreprocessing) -> ImageTransform:
    from src.transforms.image import ImageTransform

    return ImageTransform(ImageTransformConfig.model_validate(preprocessing.model_dump()))


@lru_cache(maxsize=8)
def _video_transform(preprocessing: VideoPreprocessing) -> VideoTransform:
    from src.transforms.video import VideoTransform

    return VideoTransform(VideoTransformConfig.model_validate(preprocessing.model_dump()))


@lru_cache(maxsize=8)
def _ct_transform(preprocessing: CTPreprocessing) -> CTTransform:
    from src.transforms.ct import CTTransform

    return CTTransform(CTTransformConfig.model_validate(preprocessing.model_dump()))


def frames_and_rate(video: Any) -> tuple[int, float]:
    """Frames and rate in Hz (NaN where there is none), by the json of the sample; by the video where that is silent."""
    told: Mapping[str, Any] = video.told
    if "frames" not in told:
        told = video.facts()._asdict()
    rate = told.get("rate")
    return told["frames"], math.nan if rate is None else rate


AnyPreprocessing = Preprocessing | ImagePreprocessing | VideoPreprocessing | CTPreprocessing
_KINDS: dict[str, type[ImagePreprocessing] | type[VideoPreprocessing] | type[CTPreprocessing]] = {
    "image": ImagePreprocessing,
    "video": VideoPreprocessing,
    "ct": CTPreprocessing,
}


def _modality(told: Any) -> str:
    return str(told.get("modality", "ecg") if isinstance(told, dict) else told.modality)


_SECTIONS: TypeAdapter[AnyPreprocessing] = TypeAdapter(
    Annotated[
        Annotated[Preprocessing, Tag("ecg")]
        | Annotated[ImagePreprocessing, Tag("image")]
        | Annotated[VideoPreprocessing, Tag("video")]
        | Annotated[CTPreprocessing, Tag("ct")],
        Discriminator(_modality),
    ]
)


def read_preprocessing(text: bytes | str) -> AnyPreprocessing:
    """The section out of its JSON, such as encoder/preprocessing.json; an ECG's may be without a modality.

    Raises:
        ValueError: it is none; pydantic's, with its errors.
    """
    return _SECTIONS.validate_json(text)


def plain_part(config: TransformConfig) -> ImagePreprocessing | VideoPreprocessing | CTPreprocessing:
    """What of a training transform is not random."""
    kind = _KINDS[config.modality]
    return kind.model_validate({name: getattr(config, name) for name in kind.model_fields})
