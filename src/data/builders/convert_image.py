"""An image of an archive, whatever its format, into the file of its sample: its pixels, and nothing else that it says.

JPEG and PNG go over as they are compressed, less their metadata; everything else is written as PNG, grey of 8 or 16
bits or RGB of 8.
"""

# H rows, W columns; an image is [H, W] grey or [H, W, 3] RGB

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from src.data.builders.dicom import burned_in, is_dicom, meta_of
from src.data.builders.dicom_pixels import all_bits, open_frames
from src.data.builders.images import decode, read_bytes
from src.data.builders.records import Unusable, told
from src.data.builders.sources import Source

QUALITY = 95
LEVEL = 3
"""Of a PNG's compression: 150 ms for 1024 x 1024 of a CT in 16 bits, 9 % larger than by zlib's 6, which takes 580."""
SPACINGS = ("pixel_spacing", "imager_pixel_spacing")


@dataclass(frozen=True)
class Encoding:
    """How images are stored; the defaults leave them as they are."""

    size: tuple[int, int] | None = None
    """[H, W] that each is brought to, whatever its aspect."""
    shorter_side: int | None = None
    """What larger images are shrunk to, with their aspect."""
    form: str | None = None
    """png or jpeg; None keeps JPEG and PNG and makes PNG of all else."""
    quality: int = QUALITY
    """Of a JPEG that is written here."""

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """What an image of this size is brought to."""
        if self.size is not None:
            return self.size
        shorter = min(height, width)
        if self.shorter_side is None or shorter <= self.shorter_side:
            return height, width
        ratio = self.shorter_side / shorter
        return max(round(height * ratio), 1), max(round(width * ratio), 1)

    def changes(self, form: str, height: int, width: int) -> bool:
        """Whether an image of this form and size has to be written anew."""
        return self.form not in (None, form) or self.size_of(height, width) != (height, width)


@dataclass(frozen=True)
class ConvertImage:
    """Reads an image file, or a row of an array of many."""

    at_a_time: ClassVar[int] = 16
    encoding: Encoding = Encoding()
    windowed: bool = False
    """DICOM through its own window to 8 bits, as a viewer shows it; else all bits that it has."""
    burned_in: bool = False
    """Take DICOM files whose header says that words are drawn into their pixels."""

    def __call__(self, source: Source) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The image by its field, and what the json tells of it; raises ValueError for what can't be used."""
        if source.row is not None:
            return encode(row_of(source.path, source.row), self.encoding)
        with told(source.path, "an image"):
            data = read_bytes(source.path)
        if is_dicom(data):
            return self._from_dicom(source.path)
        with told(source.path, "an image"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that are of no interest here
            form, stripped, image_HW = decode(data)
            if stripped is None or self.encoding.changes(form, *image_HW.shape[:2]):
                return encode(image_HW, self.encoding)
            return {"jpg" if form == "jpeg" else "png": stripped}, {}

    def _from_dicom(self, path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        frames = open_frames(path)
        if frames.frames > 1:
            raise ValueError(f"it has {frames.frames} frames: clips have their own verb, video")
        if burned_in(frames.dataset) and not self.burned_in:
            raise ValueError(
                "its header says that words are drawn into its pixels: look at it, and take it with --burned-in"
            )
        image_HW = all_bits(frames) if frames.gray and not self.windowed else list(frames)[0]
        files, meta = encode(image_HW, self.encoding)
        known = meta_of(frames.dataset)
        old = (frames.height, frames.width)
        new = self.encoding.size_of(*old)
        for name in set(SPACINGS) & set(known):
            known[name] = [step * (before / after) for step, before, after in zip(known[name], old, new, strict=True)]
        return files, {**known, **meta}


def encode(image_HW: NDArray[Any], encoding: Encoding) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A decoded image in the size and form asked for, by its field, and its size before.

    Raises:
        ValueError: 16 bits are to be a JPEG.
    """
    height, width = image_HW.shape[:2]
    image, meta = Image.fromarray(image_HW), {}
    if (size := encoding.size_of(height, width)) != (height, width):
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)  # Pillow's takes in all pixels that it shrinks
        meta["original_size"] = [height, width]
    content = io.BytesIO()
    if encoding.form != "jpeg":
        image.save(content, "PNG", compress_level=LEVEL)
        return {"png": content.getvalue()}, meta
    if image_HW.dtype != np.uint8:
        raise Unusable("it has 16 bits and JPEG has 8: leave out --format jpeg, or take DICOM with --windowed")
    image.save(content, "JPEG", quality=encoding.quality, subsampling="4:4:4")
    return {"jpg": content.getvalue()}, meta


def row_of(path: Path, row: int) -> NDArray[Any]:
    """An image out of a .npy of many, [N, H, W] or [N, H, W, 3]."""
    with told(path, "a .npy of numbers"):
        image_HW = np.array(_mapped(path)[row])
    return np.ascontiguousarray(image_HW, image_HW.dtype.newbyteorder("="))


@lru_cache(maxsize=8)
def _mapped(path: Path) -> NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)
