"""One image file into the member of a shard: its pixels, and nothing else that the file says.

JPEG and PNG go over as they are compressed, less their metadata; everything else is decoded by Pillow and written as
PNG, grey of 8 or 16 bits or RGB of 8.
"""

# H rows, W columns; an image is [H, W] grey or [H, W, 3] RGB

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from src.data.builders.jpeg import START as JPEG_START
from src.data.builders.jpeg import strip_jpeg
from src.data.builders.png import ORIENTATION, START, Strip, chunk, strip_png
from src.data.builders.records import Unusable, refuse_special, told
from src.data.builders.sources import Source

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
"""That Pillow may open: none that starts a program, as EPS does."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".jp2", ".dcm")
LARGEST_FILE = 1 << 30
"""Bytes."""
LARGEST_IMAGE = 89_478_485
"""Pixels, a quarter of a GiB of RGB: Pillow's own limit, where a bomb is suspected."""
ORIENTED = 0x0112
"""EXIF's tag for how the camera was held; 1 is upright."""
PHOTOMETRIC = 262
"""TIFF's tag for what the shades mean; 0 where white is zero."""
QUALITY = 95


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

    def resizes(self, height: int, width: int) -> tuple[int, int] | None:
        """The size to bring an image to; None where it has it already."""
        wanted = (height, width)
        if self.size is not None:
            wanted = self.size
        elif self.shorter_side is not None and min(height, width) > self.shorter_side:
            ratio = self.shorter_side / min(height, width)
            wanted = (max(round(height * ratio), 1), max(round(width * ratio), 1))
        return None if wanted == (height, width) else wanted


@dataclass(frozen=True)
class ImageFiles:
    """Converts a source, an image file or a row of an array of many, into the files of its sample."""

    encoding: Encoding = Encoding()

    def __call__(self, source: Source) -> tuple[Mapping[str, bytes], Mapping[str, Any]]:
        """Members by field, and what the json says of them.

        Raises:
            ValueError: why it can't be used.
        """
        if source.row is not None:
            return self.encode(row_of(source.path, source.row))
        with told(source.path, "an image"):
            data = read_bytes(source.path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tags that are of no interest here
                return self._convert(data)

    def _convert(self, data: bytes) -> tuple[Mapping[str, bytes], Mapping[str, Any]]:
        form, stripped, image_HW = decode(data)
        as_it_is = stripped is not None and self.encoding.form in (None, form)
        if as_it_is and self.encoding.resizes(*image_HW.shape[:2]) is None:
            assert stripped is not None
            return {"jpg" if form == "jpeg" else "png": stripped}, {}
        return self.encode(image_HW)

    def encode(self, image_HW: NDArray[Any]) -> tuple[Mapping[str, bytes], Mapping[str, Any]]:
        """A decoded image in the size and form asked for."""
        height, width = image_HW.shape[:2]
        image, meta = Image.fromarray(image_HW), {}
        if (wanted := self.encoding.resizes(height, width)) is not None:
            image = image.resize(wanted[::-1], Image.Resampling.BICUBIC)
            meta["original_size"] = [height, width]
        content = io.BytesIO()
        if self.encoding.form == "jpeg":
            if image_HW.dtype != np.uint8:
                raise Unusable("it has 16 bits and JPEG has 8: leave out --format jpeg")
            image.save(content, "JPEG", quality=self.encoding.quality, subsampling="4:4:4")
            return {"jpg": content.getvalue()}, meta
        image.save(content, "PNG")
        return {"png": content.getvalue()}, meta


def read_bytes(path: Path) -> bytes:
    """A file that is to be in memory as a whole."""
    refuse_special(path)
    if path.stat().st_size > LARGEST_FILE:
        raise Unusable(f"it has {path.stat().st_size:,} bytes, more than the {LARGEST_FILE:,} of any image")
    data = path.read_bytes()
    if not data:
        raise Unusable("it is empty")
    return data


def decode(data: bytes) -> tuple[str, bytes | None, NDArray[Any]]:
    """What form a file has, its bytes less metadata where it can stay as it is, and its pixels, upright.

    Raises:
        ValueError: it is no image, damaged, too large, of several frames, or of a kind that has no place here.
    """
    if data.startswith(JPEG_START):
        stripped = _stripped(strip_jpeg, data)
        image, turned = _open(stripped), _orientation(data)
        image_HW = pixels(_upright(image, turned))
        return "jpeg", None if turned else stripped, image_HW
    if data.startswith(START):
        strip: Strip = _stripped(strip_png, data)
        if strip.animated:
            raise Unusable("it is animated: clips have their own verb, video")
        if strip.header.bits == 16 and (strip.header.colours or strip.transparent):
            raise Unusable("it has 16 bits and colours or transparency: save it with 8 bits, or as grey alone")
        turned = _orientation(_with_exif(strip)) if strip.orientation else 0
        image_HW = pixels(_upright(_open(strip.data), turned))
        return "png", None if turned or not strip.plain() else strip.data, image_HW
    image = _open(data)
    if getattr(image, "n_frames", 1) > 1:
        raise Unusable(f"it has {image.n_frames} frames or pages: save one of them; clips have their own verb, video")  # type: ignore[attr-defined]
    form, white_is_zero = str(image.format).casefold(), _white_is_zero(image)
    image.load()  # a TIFF turns itself upright
    image_HW = pixels(ImageOps.exif_transpose(image))
    return form, None, np.uint16(65535) - image_HW if white_is_zero else image_HW


def _white_is_zero(image: Image.Image) -> bool:
    """Whether Pillow leaves a TIFF's shades reversed, as it does at 16 bits and not at 8."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return image.mode.startswith("I") and tags.get(PHOTOMETRIC) == 0


def _stripped(strip: Any, data: bytes) -> Any:
    try:
        return strip(data)
    except ValueError as error:
        raise Unusable(str(error)) from error


def _open(data: bytes) -> Image.Image:
    """Look at the header only."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unusable(f"it is no image of these: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"it is too large, or a bomb ({error})") from None
    if image.width * image.height > LARGEST_IMAGE:
        raise Unusable(
            f"it is {image.height:,} x {image.width:,}, more than {LARGEST_IMAGE:,} pixels: a bomb, or to be cut"
        )
    return image


def _orientation(data: bytes) -> int:
    """EXIF's number where the picture has to be turned; 0 where not, or where the EXIF can't be read."""
    try:
        found = _open(data).getexif().get(ORIENTED)
    except Unusable:
        raise
    except Exception:  # damaged EXIF raises whatever it causes; the picture has none then
        return 0
    return found if isinstance(found, int) and 2 <= found <= 8 else 0


def _with_exif(strip: Strip) -> bytes:
    """The PNG with its EXIF back in place, before its pixels."""
    begin = strip.data.index(b"IDAT") - 4
    return strip.data[:begin] + chunk(ORIENTATION, strip.orientation) + strip.data[begin:]


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    image.load()
    if not orientation:
        return image
    turns = Image.Transpose
    return image.transpose(
        {
            2: turns.FLIP_LEFT_RIGHT,
            3: turns.ROTATE_180,
            4: turns.FLIP_TOP_BOTTOM,
            5: turns.TRANSPOSE,
            6: turns.ROTATE_270,
            7: turns.TRANSVERSE,
            8: turns.ROTATE_90,
        }[orientation]
    )


def pixels(image: Image.Image) -> NDArray[Any]:
    """[H, W] uint8 or uint16, or [H, W, 3] uint8; what is transparent becomes black, as far as it is.

    Raises:
        ValueError: colours for print, floating point, or integers beyond 16 bits.
    """
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return _sixteen_bits(np.array(image))
    if image.mode == "F":
        raise Unusable("it holds floating point numbers: save it with 8 or 16 bits")
    if image.mode in ("CMYK", "LAB", "HSV"):
        raise Unusable(f"its colours are {image.mode}, for print: save it as RGB or grey")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    return np.array(image.convert("L" if grey else "RGB"))


def _sixteen_bits(image_HW: NDArray[Any]) -> NDArray[np.uint16]:
    lowest, highest = int(image_HW.min()), int(image_HW.max())
    if lowest < 0 or highest > 65535:
        raise Unusable(f"its values run from {lowest:,} to {highest:,}: grey has 0 to 65,535, in 8 or 16 bits")
    return image_HW.astype(np.uint16)


def row_of(path: Path, row: int) -> NDArray[Any]:
    """An image out of a .npy of many, [N, H, W] or [N, H, W, 3]."""
    with told(path, "a .npy of numbers"):
        image_HW = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[row])
    return np.ascontiguousarray(image_HW, image_HW.dtype.newbyteorder("="))
