"""Draws what the augmentations of a file like those of configs/transforms/ make of an image, a video or a volume.

Of a file (tools/augment.py) or of a sample of shards (tools/inspect_shards.py).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.load import load_transform
from src.config.transforms import CTTransformConfig, ImageTransformConfig, TransformConfig, VideoTransformConfig
from src.data.builders.grid import KEEP, ORIENTATION, Grid, place
from src.data.builders.images import decode, read_bytes
from src.data.builders.nifti import read_nifti
from src.data.builders.records import told
from src.data.video import Video, survey
from src.transforms import show_ct, show_image, show_video
from src.transforms.show_panels import draws, plot
from src.transforms.video_time import read_clips

Panels = Mapping[str, NDArray[np.float32]]
SHOWN: dict[str, str] = {"image": "image", "video": "video", "ct": "volume"}
"""The flag that names a file of each modality."""


def draw_file(words: argparse.Namespace) -> None:
    """The picture for the file that was named.

    Raises:
        ValueError: the flags do not go together, or a file can't be used; it is named.
    """
    config = load_transform(words.transform, words.set)
    given = [flag for flag in SHOWN.values() if getattr(words, flag) is not None]
    wanted = SHOWN[config.modality]
    if given != [wanted]:
        raise ValueError(f"{words.transform} has modality {config.modality}: name one file with --{wanted}")
    path = getattr(words, wanted)
    if not path.is_file():
        raise ValueError(f"--{wanted}: {path} is no file")
    if isinstance(config, CTTransformConfig) and not 0 <= words.window < len(config.windows):
        raise ValueError(f"--window {words.window}: {words.transform} has windows 0 to {len(config.windows) - 1}")
    sample, title = READ[config.modality](path), words.title or path.name
    plot(DRAW[config.modality](config, sample, words.seed, words.window), title, words.output)


def draw_augmented(transform: Path, sample: Mapping[str, Any], modality: str, output: Path, title: str) -> None:
    """The picture of a sample of shards.

    Raises:
        ValueError: the file of transforms is of another modality.
    """
    config = load_transform(transform, [])
    if config.modality != modality:
        raise ValueError(f"{transform} has modality {config.modality}, but {sample['key']} is of modality {modality}")
    plot(DRAW[modality](config, sample, 0, 0), title, output)


def _image(config: TransformConfig, sample: Mapping[str, Any], seed: int, window: int) -> Panels:
    assert isinstance(config, ImageTransformConfig)
    return show_image.examples(config, sample, seed)


def _video(config: TransformConfig, sample: Mapping[str, Any], seed: int, window: int) -> Panels:
    """A clip from the middle of the first video, with the steps of the config."""
    assert isinstance(config, VideoTransformConfig)
    video, key = sample["videos"][0], sample["key"]
    if missing := [name for name in ("frames", "rate") if video.told.get(name) is None]:
        raise ValueError(
            f"sample {key}: nobody knows the {missing[0]} of its first video, a single frame or built by others: take "
            f"another one"
        )
    middle = config.clip.model_copy(update={"where": "center", "clips": 1})
    counts_1, rates_1 = np.array([video.told["frames"]]), np.array([video.told["rate"]])
    (clip,) = read_clips([video], counts_1, rates_1, middle, draws(seed, 1), [key])
    return show_video.examples(config, {"key": key, "video": clip}, seed)


def _volume(config: TransformConfig, sample: Mapping[str, Any], seed: int, window: int) -> Panels:
    assert isinstance(config, CTTransformConfig)
    return show_ct.examples(config, sample, seed, window)


def read_image(path: Path) -> dict[str, Any]:
    """A sample with an image: [H, W] or RGB [H, W, 3] of 8 or 16 bits."""
    with _named(path), told(path, "an image"):
        _, _, image = decode(read_bytes(path))
    return {"key": path.name, "image": image}


def read_video(path: Path) -> dict[str, Any]:
    """A sample with one video, all of which was decoded once."""
    with _named(path):
        data = path.read_bytes()
        facts = survey(io.BytesIO(data))
    return {"key": path.name, "videos": (Video(data, facts._asdict()),)}


def read_volume(path: Path) -> dict[str, Any]:
    """A sample with ct and meta of a NIfTI file, to superior, posterior and left; as stored where it doesn't say."""
    with _named(path):
        volume = read_nifti(path)
        grid = Grid(orientation=ORIENTATION if volume.orientation else KEEP, keep_float=True)
        found = place(volume, volume.values_CXYZ, grid)
    meta = {"spacing": found.spacing, "orientation": found.orientation}
    return {"key": path.name, "ct": found.array_CDHW, "meta": meta}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the builders have against a file, with its path."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


READ: dict[str, Callable[[Path], dict[str, Any]]] = {
    "image": read_image,
    "video": read_video,
    "ct": read_volume,
}
"""A file as the sample that shards would hold of it, through their builders' readers."""
DRAW: dict[str, Callable[[TransformConfig, Mapping[str, Any], int, int], Panels]] = {
    "image": _image,
    "video": _video,
    "ct": _volume,
}
