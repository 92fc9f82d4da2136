"""The data of the verbs `data` and `memory` of benchmark: public records as shards, and the batch that they make."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from src.config.ecg_transforms import ECGTransformConfig
from src.config.transforms import CTTransformConfig, ImageTransformConfig, VideoTransformConfig
from src.data.batches.ct import CTBatch
from src.data.batches.ecg import ECGBatch
from src.data.batches.image import ImageBatch
from src.data.batches.video import VideoBatch
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from src.data.modalities.ecg import ECGIndex
from src.data.shards import Shards
from src.randomness import Streams
from tools.benchmark_build import ARCHIVES, FROM, build, repeated

SEED = 0
TARS = 8
"""At least, so that the workers of a loader that shares tars out all have some."""


class Whole:
    """A batch straight from samples as they were read: what each loader is given to do with them."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> dict[str, Tensor]:
        """The batch."""
        if hasattr(self.collate, "prepare"):
            samples = [self.collate.prepare(sample, streams[row : row + 1]) for row, sample in enumerate(samples)]
        batch: dict[str, Tensor] = self.collate(step, samples, streams)
        return batch


@dataclass(frozen=True)
class Bench:
    """A data set and what is made of it."""

    what: str
    records: int
    """Unless the command line says otherwise."""
    batch: int
    many_times: float
    """How many times as fast as webdataset's pipeline is the goal."""
    make: Callable[[Path, Path, int], None]
    """Writes shards: (public records, folder, records)."""
    collate: Callable[[Shards], Any]


def _from_archive(modality: str, *flags: str) -> Callable[[Path, Path, int], None]:
    def make(data: Path, folder: Path, records: int) -> None:
        files = ARCHIVES[modality].files(data)
        if not files:
            raise ValueError(f"{data} holds no public records of {modality}: name their folder by MEDSSL_DATA")
        table = repeated(folder / "in", files, records)
        workers = str(len(os.sched_getaffinity(0)))
        per_tar = str(max(records // TARS, 1))
        build(modality, table, folder / "shards", (*flags, "--workers", workers, "--samples-per-shard", per_tar))

    return make


def _beats(data: Path, folder: Path, records: int) -> None:
    """Beats of the training patients, from all of them alike."""
    path = data / "ecg" / "mitdb" / "beats.npz"
    if not path.is_file():
        raise ValueError(f"there is no {path}: name the folder of the public records by MEDSSL_DATA")
    with np.load(path) as arrays:
        (train,) = np.nonzero(arrays["split"] == 0)
        taken = train[np.linspace(0, len(train) - 1, min(records, len(train))).astype(np.int64)]
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "beats.npz", **{name: arrays[name][taken] for name in arrays.files})
    words = ["--input", str(folder / "beats.npz"), "--output", str(folder / "shards")]
    command = [sys.executable, "-m", "tools.build_shards", "ecg", *words]
    per_tar = ["--samples-per-shard", str(max(records // TARS, 1))]
    done = subprocess.run([*command, *per_tar], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"build_shards ecg failed: {done.stderr.strip().splitlines()[-1]}")


def _ecg_batch(shards: Shards) -> ECGBatch:
    """Random crops of three quarters of the shortest record, normalised."""
    assert isinstance(shards, ECGShards)
    config = ECGTransformConfig()
    return ECGBatch(config, shards.preprocessing(config, 3 * shards.lengths[0] // 4), SEED)


def _video_batch(_: Shards) -> VideoBatch:
    """Sixteen frames, every second one, at a random start; a random part of them at 112 x 112."""
    clip = {"frames": 16, "stride": 2}
    settings = {"size": 112, "clip": clip, "resized_crop": {"probability": 1.0}}
    return VideoBatch(VideoTransformConfig.model_validate({"modality": "video", **settings}))


def _ct_batch(_: Shards) -> CTBatch:
    """A random part of 64 x 128 x 128 voxels in two windows, mirrored at random."""
    return CTBatch(CTTransformConfig.model_validate({"modality": "ct", "flip_width": {"probability": 0.5}}))


def _image_batch(_: Shards) -> ImageBatch:
    """A random part at 224 x 224, mirrored at random."""
    settings = {"resized_crop": {"probability": 1.0}, "flip_horizontal": {"probability": 0.5}}
    return ImageBatch(ImageTransformConfig.model_validate({"modality": "image", **settings}))


HU = ("--units", "hu", "--path-column", "path")
RESAMPLED = ("--spacing", "2", "1.5", "1.5", "--size", "96", "160", "160")
BENCHES: Mapping[str, Bench] = {
    "ecg": Bench(
        "ECG, twelve leads, 10 s at 100 Hz", 4000, 64, 3.0, _from_archive("ecg", "--sampling-rate", "100"), _ecg_batch
    ),
    "beats": Bench("beats, two leads, 1 s at 128 Hz", 10000, 64, 3.0, _beats, _ecg_batch),
    "video": Bench(
        "video, H.264 of 224 x 224", 76, 4, 1.2, _from_archive("video", "--size", "224", "224"), _video_batch
    ),
    "ct": Bench("CT, 96 x 160 x 160", 48, 2, 1.2, _from_archive("ct", *HU, *RESAMPLED), _ct_batch),
    "image": Bench("images, JPEG and PNG of 0.1 to 0.8 megapixels", 304, 8, 1.2, _from_archive("image"), _image_batch),
}


def public_records() -> Path:
    """The folder that MEDSSL_DATA names."""
    return Path(os.environ.get("MEDSSL_DATA", FROM))


def opened(folder: Path) -> Shards:
    """The training split of a folder of shards."""
    index, _ = load_index(folder)
    return ECGShards(folder, "train", index.leads) if isinstance(index, ECGIndex) else Shards(folder, "train")
