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
LAMBDA = 118
"""FFmpeg's unit of a JPEG quantiser."""
PLANAR = ("yuv420p", "yuv422p", "yuv444p")
"""YUV that every codec here takes as it is."""
FULL, TELEVISION = 2, 1
"""Ranges of values: 0 to 255, or 16 to 235."""
BT601 = 6


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


def kind_of(frame: VideoFrame, encoding: Encoding, size: tuple[int, int]) -> Kind:
    """What keeps most of a picture: gray stays gray, YUV stays YUV where that can be, RGB stays RGB without loss."""
    found = frame.format
    gray = encoding.gray or found.name.startswith("gray")
    exact = encoding.lossless or encoding.codec == "ffv1"
    known = (frame.color_range, frame.colorspace)
    if gray:
        pixels = "yuvj420p" if encoding.codec == "mjpeg" else "gray"
        return Kind(_encoder(encoding, pixels), pixels, FULL, BT601 if encoding.codec == "mjpeg" else known[1])
    name = found.name.replace("yuvj", "yuv")
    if encoding.codec == "mjpeg":
        pixels = name.replace("yuv", "yuvj") if name in PLANAR else "yuvj420p"
        return Kind("mjpeg", pixels, FULL, known[1] if name in PLANAR else BT601)
    if found.is_rgb or name == "pal8":
        if exact:
            pixels = "bgr0" if encoding.codec == "ffv1" else "rgb24"
            return Kind(_encoder(encoding, pixels), pixels, FULL, 0)
        name, known = "", (TELEVISION, BT601)
    pixels = name if name in PLANAR else "yuv420p"
    if encoding.codec == "h264" and ((pixels != "yuv444p" and size[1] % 2) or (pixels == "yuv420p" and size[0] % 2)):
        pixels = "yuv444p"  # x264 wants even sides else
    return Kind(_encoder(encoding, pixels), pixels, FULL if found.name.startswith("yuvj") else known[0], known[1])


def _encoder(encoding: Encoding, pixels: str) -> str:
    if encoding.codec == "h264":
        return "libx264rgb" if pixels == "rgb24" else "libx264"
    return encoding.codec


def options_of(encoding: Encoding) -> dict[str, str]:
    """Of FFmpeg's encoder."""
    quality = QUALITIES[encoding.codec][2] if encoding.quality is None else encoding.quality
    if encoding.codec == "ffv1":
        return {"flags": "+bitexact", "level": "3", "slices": "4", "g": "1"}
    if encoding.codec == "mjpeg":
        return {"flags": "+bitexact+qscale", "global_quality": str(quality * LAMBDA)}
    fixed = {"flags": "+bitexact", "preset": PRESET, "bf": "0", "g": str(encoding.keyframes)}
    return {**fixed, "qp": "0"} if encoding.lossless else {**fixed, "crf": str(quality)}
