"""What `tools.benchmark augmentations` runs: batches of made-up samples, and the pipelines that they go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.config.data import STANDARD_LEADS
from src.config.ecg_transforms import ECGTransformConfig
from src.config.load import load_transform
from src.config.transforms import CTTransformConfig, ImageTransformConfig, VideoTransformConfig
from src.transforms import show_ct, show_ecg, show_image, show_video
from src.transforms.ct import CTTransform
from src.transforms.ecg import ECGTransform
from src.transforms.image import ImageTransform
from src.transforms.preprocessing import Preprocessing
from src.transforms.video import VideoTransform
from src.transforms.views import Transform

SHIPPED = Path("configs/transforms")


@dataclass(frozen=True)
class Bench:
    """A batch, and by its name in the table each pipeline that it is timed through."""

    what: str
    unit: str
    samples: Sequence[Mapping[str, Any]]
    rows: Mapping[str, Transform]


def ecgs(batch: int, rate: float) -> Bench:
    """ECGs of 10 s."""
    shape = (batch, len(STANDARD_LEADS), round(10 * rate))
    ecg_BCT = np.random.default_rng(0).normal(0.0, 0.3, shape).astype(np.float32)
    samples = [{"key": "k", "ecg": ecg_CT, "lead_keep": np.ones(shape[1], np.bool_)} for ecg_CT in ecg_BCT]
    preprocessing = Preprocessing(leads=STANDARD_LEADS, sampling_rate=rate, length=shape[2], normalize="none", clip=5.0)
    published = {"resized_crop and time_out": ("resized_crop", "time_out")}
    rows: dict[str, Transform] = {
        name: ECGTransform(ECGTransformConfig.model_validate(section), preprocessing)
        for name, section in _sections(show_ecg.AUGMENTATIONS, published).items()
    }
    return Bench(f"ECGs of 10 s at {rate:g} Hz in batches {list(shape)}", "samples", samples, rows)


def images(batch: int, size: int) -> Bench:
    """Images twice as high and wide as the model's."""
    pictures = np.random.default_rng(0).integers(0, 256, (batch, 2 * size, 2 * size, 3), dtype=np.uint8)
    samples = [{"key": "k", "image": picture} for picture in pictures]
    rows: dict[str, Transform] = {
        name: ImageTransform(ImageTransformConfig.model_validate({"modality": "image", "size": size, **section}))
        for name, section in _sections(show_image.AUGMENTATIONS).items()
    }
    for name in ("image_ijepa", "image_simclr"):
        config = load_transform(SHIPPED / f"{name}.yaml", [f"size={size}"])
        assert isinstance(config, ImageTransformConfig)
        rows[f"{name}.yaml"] = ImageTransform(config)
    return Bench(
        f"Images of {_squares(2 * size)} in colours to {_squares(size)}, in batches of {batch}", "images", samples, rows
    )


def clips(batch: int, size: int) -> Bench:
    """Decoded clips of 16 frames twice as high and wide as the model's."""
    videos = np.random.default_rng(0).integers(0, 256, (batch, 16, 2 * size, 2 * size, 3), dtype=np.uint8)
    samples = [{"key": "k", "video": video} for video in videos]
    rows: dict[str, Transform] = {
        name: VideoTransform(VideoTransformConfig.model_validate({"modality": "video", "size": size, **section}))
        for name, section in _sections(show_video.AUGMENTATIONS).items()
    }
    config = load_transform(SHIPPED / "video_randaugment.yaml", [f"size={size}"])
    assert isinstance(config, VideoTransformConfig)
    rows["video_randaugment.yaml"] = VideoTransform(config)
    what = f"16 frames of {_squares(2 * size)} in colours to {_squares(size)}, in batches of {batch}"
    return Bench(what, "clips", samples, rows)


def volumes(batch: int, size: int) -> Bench:
    """Volumes somewhat larger than the part that the model sees, which is half as deep as it is wide."""
    seen, whole = (size // 2, size, size), (5 * size // 8, 5 * size // 4, 5 * size // 4)
    hu = np.random.default_rng(0).integers(-1000, 1000, (batch, 1, *whole), dtype=np.int16)
    samples = [{"key": "k", "ct": volume, "meta": {"spacing": (2.0, 1.0, 1.0)}} for volume in hu]
    rows: dict[str, Transform] = {
        name: CTTransform(CTTransformConfig.model_validate({"modality": "ct", "size": seen, **section}))
        for name, section in _sections(show_ct.AUGMENTATIONS).items()
    }
    config = load_transform(SHIPPED / "ct_chest.yaml", [f"size={list(seen)}"])
    assert isinstance(config, CTTransformConfig)
    rows["ct_chest.yaml"] = CTTransform(config)
    what = f"Volumes {list(whole)} to {list(seen)} in two windows, in batches of {batch}"
    return Bench(what, "volumes", samples, rows)


def _squares(side: int) -> str:
    return f"{side} x {side}"


def _sections(names: Sequence[str], published: Mapping[str, Sequence[str]] | None = None) -> dict[str, dict[str, Any]]:
    """Rows of the table with the sections that are on: none, published ones, all, each alone."""
    on = {"none": (), **(published or {}), "all": tuple(names), **{name: (name,) for name in names}}
    return {row: {name: {"probability": 1.0} for name in which} for row, which in on.items()}


BENCHES: dict[str, tuple[Callable[[int, int], Bench], int, int]] = {
    "image": (images, 8, 224),
    "video": (clips, 4, 112),
    "ct": (volumes, 2, 128),
}
"""Of each modality but the ECG's: the bench, its usual batch and size."""
