"""Draws what the augmentations of a file like those of configs/transforms/ make of an image, a video or a volume.

Of a file (tools/augment.py) or of a sample of shards (tools/inspect_shards.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config.load import load_transform
from src.config.transforms import CTTransformConfig, ImageTransformConfig, TransformConfig, VideoTransformConfig
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
        raise ValueError(f"sample {key}: its json does not tell the {missing[0]} of its first video: build it anew")
    middle = config.clip.model_copy(update={"where": "center", "clips": 1})
    counts_1, rates_1 = np.array([video.told["frames"]]), np.array([video.told["rate"]])
    (clip,) = read_clips([video], counts_1, rates_1, middle, draws(seed, 1), [key])
    return show_video.examples(config, {"key": key, "video": clip}, seed)


def _volume(config: TransformConfig, sample: Mapping[str, Any], seed: int, window: int) -> Panels:
    assert isinstance(config, CTTransformConfig)
    return show_ct.examples(config, sample, seed, window)


def read_image(path: Path) -> NDArray[Any]:
    """[H, W] or RGB [H, W, 3] of 8 or 16 bits."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise ValueError(f"{path} is no image that OpenCV reads: save it as PNG or JPEG")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class FileVideo:
    """A video file, read from its beginning; like a video of shards it tells its frames and their rate."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rate = float(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS))
        self.told = {"frames": sum(1 for _ in self._read()), "rate": rate}
        if not self.told["frames"]:
            raise ValueError(f"{path} is no video that OpenCV reads: save it as mp4")

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """RGB [len(indices), H, W, 3] at ascending indices."""
        wanted = set(indices)
        found = [frame for index, frame in enumerate(self._read()) if index in wanted]
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in found], dtype=np.uint8)

    def _read(self) -> Any:
        reader = cv2.VideoCapture(str(self.path))
        while (read := reader.read())[0]:
            yield read[1]


def read_volume(path: Path) -> dict[str, Any]:
    """A sample with ct and spacing of a NIfTI file, its axes to superior, posterior and left."""
    import nibabel
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    try:
        image = nibabel.load(path)
        stored = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no NIfTI file that can be read ({error})") from None
    if stored.ndim != 3:
        raise ValueError(f"{path} has shape {stored.shape}: name a volume of three axes")
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("S", "P", "L")))  # type: ignore[attr-defined]
    steps = np.linalg.norm(image.affine[:3, :3], axis=0)  # type: ignore[attr-defined]
    spacing = [0.0] * 3
    for source, (target, _) in enumerate(turn):
        spacing[int(target)] = float(steps[source])
    volume = np.ascontiguousarray(apply_orientation(stored, turn))
    return {"key": path.name, "ct": volume, "meta": {"spacing": spacing}}


READ: dict[str, Callable[[Path], dict[str, Any]]] = {
    "image": lambda path: {"key": path.name, "image": read_image(path)},
    "video": lambda path: {"key": path.name, "videos": (FileVideo(path),)},
    "ct": read_volume,
}
"""A file as the sample that shards would hold of it."""
DRAW: dict[str, Callable[[TransformConfig, Mapping[str, Any], int, int], Panels]] = {
    "image": _image,
    "video": _video,
    "ct": _volume,
}
