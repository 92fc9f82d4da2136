"""Image files as pixels, upright, and as their own bytes less metadata where these can stay as they are."""

# H rows, W columns; an image is [H, W] grey or [H, W, 3] RGB

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from src.data.builders.dicom import begins_as_dicom
from src.data.builders.jpeg import START as JPEG_START
from src.data.builders.jpeg import strip_jpeg
from src.data.builders.jpeg_damage import refuse_damaged
from src.data.builders.png import ORIENTATION, START, Strip, chunk, strip_png
from src.data.builders.records import Unusable, refuse_special

T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
"""That Pillow may open: none that starts a program, as EPS does."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".jp2", ".dcm", ".dicom")
DICOM_SUFFIXES = (".dcm", ".dicom")
LARGEST_FILE = 1 << 30
"""Bytes."""
LARGEST_IMAGE = 89_478_485
"""Pixels, a quarter of a GiB of RGB: Pillow's own limit, where a bomb is suspected."""
ORIENTED = 0x0112
"""EXIF's tag for how the camera was held; 1 is upright."""
BITS = 258
"""TIFF's tag for the bits of each channel."""
PHOTOMETRIC = 262
"""TIFF's tag for what the shades mean; 0 where white is zero."""


def read_bytes(path: Path) -> bytes:
    """A file that is to be in memory as a whole."""
    refuse_special(path)
    if path.stat().st_size > LARGEST_FILE:
        raise Unusable(f"it has {path.stat().st_size:,} bytes, more than the {LARGEST_FILE:,} of any image")
    data = path.read_bytes()
    if not data:
        raise Unusable("it is empty")
    return data


def named_or_begins_as_dicom(path: Path) -> bool:
    """Whether a file is DICOM; files that other formats name are not opened."""
    others = path.suffix.casefold() in SUFFIXES and path.suffix.casefold() not in DICOM_SUFFIXES
    return not others and begins_as_dicom(path)


def decode(data: bytes) -> tuple[str, bytes | None, NDArray[Any]]:
    """What form a file has, its bytes less metadata where it can stay as it is, and its pixels, upright.

    Raises:
        ValueError: it is no image, damaged, too large, of several frames, or of a kind that has no place here.
    """
    if data.startswith(JPEG_START):
        stripped = _stripped(strip_jpeg, data)
        image, turned = _open(stripped), _orientation(data)
        refuse_damaged(stripped)
        image_HW = pixels(_upright(image, turned))
        return "jpeg", None if turned else stripped, image_HW
    if data.startswith(START):
        strip = _stripped(strip_png, data)
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
    if len(image.getbands()) > 1 and _bits(image, data) > 8:
        raise Unusable(
            "it has colours of more than 8 bits, of which 8 would stay: save it with 8 bits, or as grey alone"
        )
    form, white_is_zero = str(image.format).casefold(), _white_is_zero(image)
    image.load()  # a TIFF turns itself upright
    image_HW = pixels(ImageOps.exif_transpose(image))
    return form, None, np.uint16(65535) - image_HW if white_is_zero else image_HW


def _bits(image: Image.Image, data: bytes) -> int:
    """Of a channel in the file; Pillow makes 8 of all colours, without a word."""
    if image.format == "TIFF":
        tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
        return max(np.atleast_1d(tags.get(BITS, 1)).tolist())
    if image.format == "PPM":
        of_decoder = image.tile[0].args  # type: ignore[attr-defined]  # its mode, or that and the value of white
        return int(of_decoder[1]).bit_length() if isinstance(of_decoder, tuple) else 8
    if image.format == "JPEG2000" and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:  # T.800, A.5.1
        depths = data[start + 42 : start + 42 + 3 * len(image.getbands()) : 3]
        return max((depth & 0x7F) + 1 for depth in depths) if depths else 8
    return 8


def _white_is_zero(image: Image.Image) -> bool:
    """Whether Pillow leaves a TIFF's shades reversed, as it does at 16 bits and not at 8."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return image.mode.startswith("I") and tags.get(PHOTOMETRIC) == 0


def _stripped(strip: Callable[[bytes], T], data: bytes) -> T:
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
