"""How pictures are stored: codec, quality, colours."""

# H rows, W columns

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame

QUALITIES = {"h264": (0, 51, 18), "mjpeg": (2, 31, 3), "ffv1": (0, 0, 0)}
"""Best, worst and default of each codec: the CRF of x264, the quantiser of JPEG; FFV1 loses nothing."""
PRESET = "veryfast"
KEYFRAMES = 16
PLANAR = ("yuv420p", "yuv422p", "yuv444p")
"""YUV that every codec here takes as it is."""
EXACT = (*PLANAR, "gray", "pal8", "nv12", "nv21", "bgra")
"""Formats beside RGB of which every value can be kept; bgra is what a GIF becomes, black where nothing is drawn."""
FULL, TELEVISION = 2, 1
"""Ranges of values: 0 to 255, or 16 to 235."""
BT601, UNKNOWN = 6, 2
"""FFmpeg's numbers of how colours are meant."""
LIKE_BT601 = (BT601, 5, UNKNOWN)
"""What has the same numbers: BT.470 BG, and what readers take for it."""


@dataclass(frozen=True)
class Encoding:
    """What every video is brought to."""

    codec: str = "h264"
    quality: int | None = None
    lossless: bool = False
    """Exact, at the size and the times that are asked for."""
    gray: bool = False
    """Luminance alone."""
    keyframes: int = KEYFRAMES
    """Frames from one keyframe of H.264 to the next, at most."""
    size: tuple[int, int] | None = None
    """(H, W)."""
    fit: str = "pad"
    """How a picture of another shape gets there: pad, crop, stretch."""
    shorter_side: int | None = None
    rate: float | None = None
    """Hz; None keeps the times."""


@dataclass(frozen=True)
class Kind:
    """How the pictures of a video are stored."""

    encoder: str
    pixels: str
    range: int
    matrix: int


def is_full(frame: VideoFrame) -> bool:
    """Whether its values run from 0 to 255."""
    return frame.format.is_rgb or frame.format.name.startswith(("yuvj", "gray")) or frame.color_range == FULL


def refuse_loss(frame: VideoFrame, encoding: Encoding) -> None:
    """Refuse what can't be kept exactly where nothing may be lost: only 8 bits a value are stored, and no transparency.

    Raises:
        ValueError: so.
    """
    if not encoding.lossless and encoding.codec != "ffv1":
        return
    parts, name = frame.format.components, frame.format.name
    eight = all(part.bits <= 8 and not part.is_alpha for part in parts)
    if name.replace("yuvj", "yuv") not in EXACT and not (eight and (frame.format.is_rgb or encoding.gray)):
        raise ValueError(
            f"its pixels ({name}) can't be kept exactly, in 8 bits, without transparency and in 4:2:0, 4:2:2 or 4:4:4:"
            " --codec h264 without --lossless, or mjpeg, takes it"
        )


def kind_of(frame: VideoFrame, encoding: Encoding, size: tuple[int, int]) -> Kind:
    """What keeps most of a picture: gray stays gray, YUV stays YUV where that can be, RGB stays RGB without loss.

    `size` is (H, W) of what is written: where a side is odd no two rows or columns share a colour, for which x264 has
    no format, and of which readers make different things.
    """
    codec, name = encoding.codec, frame.format.name.replace("yuvj", "yuv")
    gray, coloured = encoding.gray or name.startswith("gray"), frame.format.is_rgb or name == "pal8"
    encoder = "libx264" if codec == "h264" else codec
    if gray and codec != "mjpeg":
        return Kind(encoder, "gray", FULL, frame.colorspace)
    if coloured and not gray and (encoding.lossless or codec == "ffv1"):
        return Kind("libx264rgb", "rgb24", FULL, 0) if codec == "h264" else Kind(codec, "bgr0", FULL, 0)
    pixels = name if name in PLANAR else "yuv420p"
    if codec != "ffv1" and (size[0] % 2 or size[1] % 2):
        pixels = "yuv444p"
    if codec == "mjpeg":
        return Kind(encoder, pixels.replace("yuv", "yuvj"), FULL, BT601)  # it has no place to say another
    if coloured:
        return Kind(encoder, pixels, TELEVISION, BT601)
    return Kind(encoder, pixels, FULL if is_full(frame) else frame.color_range, frame.colorspace)


def options_of(encoding: Encoding) -> dict[str, str]:
    """Of FFmpeg's encoder."""
    quality = QUALITIES[encoding.codec][2] if encoding.quality is None else encoding.quality
    if encoding.codec == "ffv1":
        return {"flags": "+bitexact", "level": "3", "slices": "4", "g": "1"}
    if encoding.codec == "mjpeg":
        return {"flags": "+bitexact", "qmin": str(quality), "qmax": str(quality)}
    # with macroblock-tree rate control x264 gave other bytes for the same small frames in some 5 of 100 runs
    fixed = {"flags": "+bitexact", "preset": PRESET, "bf": "0", "g": str(encoding.keyframes), "x264-params": "mbtree=0"}
    return {**fixed, "qp": "0"} if encoding.lossless else {**fixed, "crf": str(quality)}
