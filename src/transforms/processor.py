"""The preprocessing of an encoder as transformers' processors say it, and back.

The aspect of a picture is always kept here: a processor that squeezes pictures into a square (size: height and width)
becomes one that cuts out the middle, which is the same for squares.
"""

# S side of the encoder's input

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.config.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipConfig
from src.models.config import EncoderSection
from src.transforms.plain import ImagePreprocessing, VideoPreprocessing

IMAGE_FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
GRAY_MEAN, GRAY_STD = (0.449,), (0.226,)
"""The means over ImageNet's colours."""
LEVELS = 1 / 255
BILINEAR, BICUBIC = 2, 3
"""As Pillow numbers them."""


def read_processor(folder: str) -> dict[str, Any]:
    """What the processor's file of a folder, or of a name on the hub, says; nothing where there is none.

    Raises:
        ValueError: it is no JSON.
    """
    from transformers.utils import cached_file

    for name in (VIDEO_FILE, IMAGE_FILE):
        path = cached_file(
            folder, name, local_files_only=Path(folder).is_dir(), _raise_exceptions_for_missing_entries=False
        )
        if path is not None:
            try:
                said: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON ({error}): repair or remove it") from None
            return said
    return {}


def side_of(said: Mapping[str, Any]) -> int | None:
    """The side of the square that a processor makes, where it says so."""
    cut = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    side = cut.get("height") if isinstance(cut, Mapping) else cut
    return side if isinstance(side, int) else None


def from_processor(
    said: Mapping[str, Any], encoder: EncoderSection, clip: ClipConfig
) -> ImagePreprocessing | VideoPreprocessing:
    """The preprocessing that a processor stands for; what it does not say is ImageNet's. `clip` is that of videos.

    Raises:
        ValueError: the encoder's input is no square picture or clip, or the values are scaled otherwise.
    """
    sides, channels = encoder.sides, encoder.channels
    if len(sides) not in (2, 3) or sides[-1] != sides[-2] or channels not in (1, 3):
        raise ValueError(
            f"an encoder of {channels} channels of {list(sides)} has no preprocessing here: pictures are squares of 1 "
            "or 3 channels"
        )
    if not said.get("do_rescale", True) or abs(said.get("rescale_factor", LEVELS) - LEVELS) > 1e-9:
        raise ValueError(f"{IMAGE_FILE}: values are scaled to 0 .. 1 here: set do_rescale, and rescale_factor to 1/255")
    mean, std = _statistics(said, channels)
    picture: dict[str, Any] = {
        "size": sides[-1],
        "channels": channels,
        "shorter_side": _shorter_side(said, sides[-1]),
        "mean": mean,
        "std": std,
    }
    if len(sides) == 2:
        return ImagePreprocessing(modality="image", **picture)
    return VideoPreprocessing(modality="video", clip=clip.model_copy(update={"frames": sides[0]}), **picture)


def _statistics(said: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not said.get("do_normalize", True):
        return (0.0,) * channels, (1.0,) * channels
    usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (GRAY_MEAN, GRAY_STD)
    mean, std = (
        tuple(map(float, said.get(key) or default))
        for key, default in zip(("image_mean", "image_std"), usual, strict=True)
    )
    if not len(mean) == len(std) == channels:
        raise ValueError(f"{IMAGE_FILE}: image_mean and image_std must be {channels} numbers, one for each channel")
    return mean, std


def _shorter_side(said: Mapping[str, Any], side: int) -> int | None:
    """Larger than the side that is cut out of it, or None."""
    size = said.get("size")
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else size
    return shorter if said.get("do_center_crop") and isinstance(shorter, int) and shorter > side else None


def to_processor(preprocessing: ImagePreprocessing | VideoPreprocessing) -> tuple[str, dict[str, Any]]:
    """The file, and what it says, with which transformers makes the same input (interpolated its own way).

    `VJEPA2VideoProcessor` sets its own shorter side, the crop's times 256 / 224, whatever its file says.
    """
    side = preprocessing.size
    said = {
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.shorter_side or side},
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": LEVELS,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    colored = preprocessing.channels == 3
    if isinstance(preprocessing, ImagePreprocessing):
        kind = {"image_processor_type": "CLIPImageProcessor", "resample": BICUBIC, "do_convert_rgb": colored}
        return IMAGE_FILE, kind | said
    return VIDEO_FILE, {"video_processor_type": "VJEPA2VideoProcessor", "resample": BILINEAR} | said
