"""The frames of a DICOM file as 8-bit gray or RGB, whatever its transfer syntax: each by one named decoder.

The decoder is fixed for each syntax, so that the same file gives the same bytes wherever it is built: pydicom for what
is not compressed and for RLE, Pillow for JPEG of 8 bits (6 ms for a colour frame of 800 x 600, and 2.4 to find that it
is whole; GDCM takes 55), and GDCM (BSD) for the other JPEGs, JPEG-LS and JPEG 2000.
"""

# T frames, H rows, W columns

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.dicom import IMAGE, function_of, numbers_of, open_dicom, quiet, shared, times_of
from src.data.builders.jpeg_damage import refuse_damaged
from src.data.builders.records import LARGEST_RECORD, Unusable, told

if TYPE_CHECKING:
    from pydicom import Dataset

GDCM = "gdcm"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Implicit, explicit, explicit big endian."""
RLE = "1.2.840.10008.1.2.5"
BASELINE = "1.2.840.10008.1.2.4.50"
OF_PILLOW = {"MONOCHROME1", "MONOCHROME2", "YBR_FULL", "YBR_FULL_422"}
COMPRESSED = {
    BASELINE: "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first-order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}
VIDEO = {f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109)} | {
    f"1.2.840.10008.1.2.4.{number}.1" for number in range(100, 107)
}
"""MPEG-2, H.264 and HEVC streams: no frames of their own."""
GRAY = {"MONOCHROME1", "MONOCHROME2"}
COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
PIXELS = (*IMAGE, "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
MOST_PIXELS = 1 << 26
"""Of a frame: 8192 x 8192."""
MOST_BYTES = 1 << 34
"""That a file's frames may unpack to: an hour of 640 x 480 gray at 15 Hz."""
SLACK = 1 << 16
"""A compressed frame of more than twice its raw size and this is no frame."""


@dataclass(frozen=True)
class Frames:
    """A file whose frames are still to be decoded."""

    path: Path
    dataset: Dataset
    frames: int
    height: int
    width: int
    times_T: NDArray[np.float64] | None
    """Seconds, None where the header tells none."""
    gray: bool

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """[H, W] or [H, W, 3], one by one.

        Raises:
            ValueError: a frame can't be decoded, is missing, or is of another size than the header's.
        """
        with told(self.path, "DICOM pixels"), quiet():
            found = 0
            for values in _decoded(self.path, self.dataset):
                if values.shape[:2] != (self.height, self.width):
                    raise Unusable(
                        f"its frame {found} is {values.shape[0]} x {values.shape[1]}, the header says"
                        f" {self.height} x {self.width}"
                    )
                found += 1
                yield _to_gray(values, self.dataset) if self.gray else _to_rgb(values, self.dataset)
            if found != self.frames:
                raise Unusable(f"it holds {found} frames and its header says {self.frames}")


def open_frames(path: Path) -> Frames:
    """The frames of a file with pixels.

    Raises:
        ValueError: no DICOM, no pixels, a syntax or a kind of pixel that is not read, values that don't begin at bit
            0, or absurd sizes.
    """
    dataset = open_dicom(path)
    syntax = syntax_of(dataset)
    if syntax not in NATIVE and syntax != RLE and syntax not in COMPRESSED:
        raise ValueError(f"its transfer syntax {syntax[:64]} is none that is read here")
    height, width = (_whole(dataset, name) for name in ("Rows", "Columns"))
    frames = _whole(dataset, "NumberOfFrames", 1)
    samples = _whole(dataset, "SamplesPerPixel", 1)
    bits = _whole(dataset, "BitsAllocated")
    if height * width > MOST_PIXELS or height * width * frames * samples * -(-bits // 8) > MOST_BYTES:
        raise ValueError(
            f"its header says {frames:,} frames of {height} x {width}: more than a file may unpack to"
            f" ({MOST_PIXELS:,} pixels a frame, {MOST_BYTES:,} bytes in all)"
        )
    interpretation = _interpretation(dataset)
    if (samples, bits) not in ((1, 8), (1, 16), (1, 32), (3, 8)):
        raise ValueError(f"it has {samples} values of {bits} bits for each pixel, which is not read here")
    if samples == 1 and interpretation not in (*GRAY, "PALETTE COLOR"):
        raise ValueError(f"its photometric interpretation {interpretation[:16]} is not read here")
    if samples == 3 and interpretation not in COLOURS:
        raise ValueError(f"its photometric interpretation {interpretation[:16]} is not read here")
    stored = _whole(dataset, "BitsStored", bits)
    highest = _whole(dataset, "HighBit", stored - 1, least=0)
    if stored > bits or highest != stored - 1:
        raise ValueError(
            f"its header says that {stored} of {bits} bits are stored, of which the highest is bit {highest}: only"
            f" values that begin at bit 0 are read here"
        )
    gray = samples == 1 and interpretation in GRAY
    return Frames(path, dataset, frames, height, width, times_of(dataset, frames), gray)


def stored_slice(path: Path, dataset: Dataset) -> NDArray[Any]:
    """The one frame of a gray file as its integers are stored, [H, W]: no window, no slope, no 8 bits.

    pydicom has cleared the bits above BitsStored, in which old files keep overlays.

    Raises:
        ValueError: it has colours or several frames, a syntax that is not read, or can't be decoded.
    """
    frames = open_frames(path)
    if not frames.gray or frames.frames != 1 or _interpretation(dataset) != "MONOCHROME2":
        raise ValueError(f"{path.name} is not one gray image (MONOCHROME2)")
    with told(path, "DICOM pixels"), quiet():
        try:
            values_HW = next(_decoded(path, dataset))
        except Unusable:
            raise
        except Exception as error:  # its words may be those of the header
            if isinstance(error, OSError) and error.errno is not None:  # of the path or of the storage
                raise
            raise Unusable(f"the pixels of {path.name} can't be decoded ({type(error).__name__})") from None
    if values_HW.shape != (frames.height, frames.width):
        raise ValueError(f"{path.name} holds {list(values_HW.shape)} pixels, not those that its header says")
    return values_HW


def syntax_of(dataset: Dataset) -> str:
    """The transfer syntax."""
    return str(dataset.file_meta.get("TransferSyntaxUID", ""))


def is_video(dataset: Dataset) -> bool:
    """Whether its pixels are one stream of MPEG-2, H.264 or HEVC."""
    return syntax_of(dataset) in VIDEO


def encapsulated_video(path: Path) -> bytes:
    """The MPEG-2, H.264 or HEVC stream of a file whose transfer syntax is a video's.

    Raises:
        ValueError: it can't be read, or is too large.
    """
    import pydicom
    from pydicom.encaps import generate_fragments

    with told(path, "DICOM"), quiet():
        _refuse_large(path)
        dataset = pydicom.dcmread(path, force=False, specific_tags=["PixelData"])
        fragments = list(generate_fragments(dataset.PixelData))
        return b"".join(fragments[1:])  # the first is the offset table


def blank_outside(regions: list[tuple[int, int, int, int]], frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame with zeros where no region is: what an ultrasound device writes around its scans is gone."""
    kept = np.zeros_like(frame)
    for top, left, bottom, right in regions:
        kept[top:bottom, left:right] = frame[top:bottom, left:right]
    return kept


def _decoded(path: Path, dataset: Dataset) -> Iterator[NDArray[Any]]:
    """Each frame: gray and palette indices [H, W] as stored, colours as RGB [H, W, 3]."""
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.pixels import iter_pixels

    _refuse_large(path)
    syntax = syntax_of(dataset)
    whole = pydicom.dcmread(path, force=False, specific_tags=list(PIXELS))
    if "PixelData" not in whole:
        raise Unusable("it holds no pixels")
    if syntax not in NATIVE:
        _refuse_bombs(whole, dataset)
    if syntax == BASELINE:
        frames = generate_frames(whole.PixelData, number_of_frames=_whole(dataset, "NumberOfFrames", 1))
        if _interpretation(dataset) in OF_PILLOW:
            yield from map(_decode_jpeg, frames)
            return
        for frame in frames:
            refuse_damaged(frame)
    yield from iter_pixels(whole, decoding_plugin=GDCM if syntax in COMPRESSED else "pydicom" if syntax == RLE else "")


def _refuse_large(path: Path) -> None:
    if path.stat().st_size > LARGEST_RECORD:
        raise Unusable(f"{path.name} has more than the {LARGEST_RECORD:,} bytes that a file may have")


def _decode_jpeg(frame: bytes) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3]; raises where the stream is cut off or damaged, which readers fill up with gray."""
    from PIL import Image

    refuse_damaged(frame)
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _refuse_bombs(whole: Dataset, dataset: Dataset) -> None:
    """Refuse frames that would unpack to another size than the header's, before any decoder sees one.

    Raises:
        ValueError: so, or there are more or fewer of them than the header says.
    """
    from pydicom.encaps import generate_frames

    height, width, frames = _whole(dataset, "Rows"), _whole(dataset, "Columns"), _whole(dataset, "NumberOfFrames", 1)
    raw = height * width * _whole(dataset, "SamplesPerPixel") * -(-_whole(dataset, "BitsAllocated") // 8)
    found = 0
    for frame in generate_frames(whole.PixelData, number_of_frames=frames):
        if len(frame) > 2 * raw + SLACK:
            raise Unusable(f"its frame {found} has {len(frame):,} bytes, more than it would have uncompressed")
        size = _size_in(frame)
        if syntax_of(dataset) != RLE and size != (height, width):
            told_size = "no size" if size is None else f"{size[0]} x {size[1]}"
            raise Unusable(f"its frame {found} is compressed as {told_size}, the header says {height} x {width}")
        found += 1
    if found != frames:
        raise Unusable(f"it holds {found} frames and its header says {frames}")


def _size_in(frame: bytes) -> tuple[int, int] | None:
    """(H, W) as a JPEG, JPEG-LS or JPEG 2000 stream states it (ITU T.81 B.2.2, T.87 C.2.2, T.800 A.5.1)."""
    if frame.startswith(b"\xff\x4f\xff\x51") and len(frame) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        return bottom - top, right - left
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = struct.unpack_from(">xBH", frame, place)
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return height, width
        place += 2 + length
    return None


def _to_gray(values_HW: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """8 bits: as stored where 8 are, else through the file's own window, without one from its least to its most.

    What is stored is turned over by a negative slope, as a window turns it.
    """
    gray_HW = _eight_bits(values_HW, dataset)
    return 255 - gray_HW if _interpretation(dataset) == "MONOCHROME1" else gray_HW


def _eight_bits(values_HW: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    stored = _whole(dataset, "BitsStored")
    signed = _whole(dataset, "PixelRepresentation", 0, least=0) == 1
    falling = _slope(dataset) < 0
    if stored <= 8:
        values_HW = values_HW.astype(np.int16) + (1 << (stored - 1) if signed else 0)
        gray_HW = (values_HW << (8 - stored)).astype(np.uint8)
        return 255 - gray_HW if falling else gray_HW
    low = -(1 << (stored - 1)) if signed else 0
    window, values = shared(dataset, "FrameVOILUTSequence"), shared(dataset, "PixelValueTransformationSequence")
    centers, widths = numbers_of(window, "WindowCenter"), numbers_of(window, "WindowWidth")
    if not centers or not widths or widths[0] <= 0:
        share_HW = (values_HW - np.float64(low)) / ((1 << stored) - 1)
        share_HW = 1.0 - share_HW if falling else share_HW
    else:
        intercept = numbers_of(values, "RescaleIntercept") or (0.0,)
        share_HW = _windowed(values_HW * _slope(dataset) + intercept[0], centers[0], widths[0], function_of(window))
    return np.rint(np.clip(share_HW, 0.0, 1.0) * 255.0).astype(np.uint8)


def _slope(dataset: Dataset) -> float:
    """By which stored values become those that a window is of; below 0 where the largest is the darkest."""
    return (numbers_of(shared(dataset, "PixelValueTransformationSequence"), "RescaleSlope") or (1.0,))[0]


def _windowed(values_HW: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """The share of the brightest, in 0 .. 1 once clipped: PS3.3 C.11.2.1.2."""
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values_HW - center) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return (values_HW - center) / width + 0.5
    if width <= 1.0:  # a threshold
        return (values_HW > center - 0.5).astype(np.float64)
    return (values_HW - (center - 0.5)) / (width - 1.0) + 0.5


def _to_rgb(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Colours as they are, and those of a palette looked up.

    Raises:
        ValueError: the palette is of 16 bits as its header says, and of 8 by its values: all would be black.
    """
    if values.ndim == 3:
        return values.astype(np.uint8, copy=False)
    from pydicom.pixels import apply_color_lut

    rgb_HW3 = apply_color_lut(values, dataset)
    entries, first, bits = numbers_of(dataset, "RedPaletteColorLookupTableDescriptor")
    indices = int(first) + np.arange(int(entries) or 1 << 16)
    if bits == 16 and apply_color_lut(indices, dataset).max() < 256:
        raise Unusable("its palette is of 16 bits by its header and of 8 by its values, with which all is black")
    return (rgb_HW3 >> 8 if bits == 16 else rgb_HW3).astype(np.uint8)


def _interpretation(dataset: Dataset) -> str:
    return str(dataset.get("PhotometricInterpretation", "")).strip()


def _whole(dataset: Dataset, attribute: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of the header.

    Raises:
        ValueError: it is missing, or below `least`.
    """
    values = numbers_of(dataset, attribute)
    if not values and default is not None and attribute not in dataset:
        return default
    if len(values) != 1 or values[0] != int(values[0]) or values[0] < least:
        raise Unusable(f"its header states no usable {attribute}")
    return int(values[0])


def all_bits(frames: Frames) -> NDArray[Any]:
    """The one frame of a gray file without a window, [H, W]: 0 is black, up to 8 bits are uint8, up to 16 uint16.

    The highest bit that is stored becomes the highest of 8 or 16, so that files of 10 and of 14 bits are alike; the
    shift loses nothing.

    Raises:
        ValueError: more than 16 bits, or as for iterating.
    """
    stored = _whole(frames.dataset, "BitsStored")
    if stored > 16:
        raise ValueError(f"it has {stored} bits a pixel, more than the 16 of an image")
    if stored <= 8:
        (gray_HW,) = list(frames)
        return gray_HW
    with told(frames.path, "DICOM pixels"), quiet():
        (values_HW,) = list(_decoded(frames.path, frames.dataset))
        signed = _whole(frames.dataset, "PixelRepresentation", 0, least=0) == 1
        positive_HW = values_HW.astype(np.int64) + (1 << (stored - 1) if signed else 0)
        positive_HW = positive_HW & ((1 << stored) - 1)  # old files keep overlays in the other bits
        if (_interpretation(frames.dataset) == "MONOCHROME1") != (_slope(frames.dataset) < 0):
            positive_HW = (1 << stored) - 1 - positive_HW
    if positive_HW.shape != (frames.height, frames.width):
        raise ValueError(f"its frame is {list(positive_HW.shape)}, the header says {frames.height} x {frames.width}")
    return (positive_HW << (16 - stored)).astype(np.uint16)
