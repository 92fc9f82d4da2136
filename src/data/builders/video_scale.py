"""Pictures brought to a size: turned as their file says, with square pixels, scaled, padded or cropped."""

# H rows, W columns

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from src.data.builders.video_format import BT601, FULL, LIKE_BT601, Encoding, Kind, is_full
from src.data.builders.video_read import Picture
from src.data.video import size_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

SCALING = "accurate_rnd+bitexact+full_chroma_int+full_chroma_inp"
TURNS = {90: [("transpose", "cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "clock")]}
"""Filters for a rotation, counterclockwise."""


def target_size(picture: Picture, encoding: Encoding) -> tuple[int, int]:
    """(H, W) of what is written."""
    if encoding.size is not None:
        return encoding.size
    height, width = _upright(picture)
    if encoding.shorter_side is None:
        return height, width
    share = encoding.shorter_side / min(height, width)
    return max(round(height * share), 1), max(round(width * share), 1)


def steps_of(picture: Picture, encoding: Encoding, kind: Kind) -> list[tuple[str, str]]:
    """FFmpeg's filters and their arguments that make a picture what is wanted; none where it is that already."""
    turned, upright = size_of(picture.frame), _upright(picture)
    wanted = target_size(picture, encoding)
    scaled = wanted
    if encoding.size is not None and encoding.fit != "stretch":
        choose = min if encoding.fit == "pad" else max
        share = choose(Fraction(wanted[0], upright[0]), Fraction(wanted[1], upright[1]))
        scaled = (max(round(upright[0] * share), 1), max(round(upright[1] * share), 1))
    steps = list(TURNS.get(picture.frame.rotation % 360, []))
    frame = picture.frame
    if encoding.gray and kind.pixels != "gray":  # the codec has colours only: they are taken off first
        gray = replace(kind, pixels="gray", range=FULL)
        steps += [("scale", _scale(frame, gray, scaled, turned)), ("format", "pix_fmts=gray")]
        steps += [("scale", f"flags={SCALING}:in_range=pc:out_range=pc"), ("format", f"pix_fmts={kind.pixels}")]
    elif scaled != turned or not _is_of(kind, frame):
        steps += [("scale", _scale(frame, kind, scaled, turned)), ("format", f"pix_fmts={kind.pixels}")]
    if scaled != wanted:
        name, arguments = ("pad", ":black") if encoding.fit == "pad" else ("crop", ":exact=1")
        top, left = (_middle(abs(one - other), kind) for one, other in zip(scaled, wanted, strict=True))
        steps.append((name, f"{wanted[1]}:{wanted[0]}:{left}:{top}{arguments}"))
    return steps


def graph_of(frame: VideoFrame, steps: list[tuple[str, str]]) -> Graph:
    """The filters, ready for frames like this one."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    nodes = [graph.add(name, wanted) if wanted else graph.add(name) for name, wanted in steps]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    return graph


def _upright(picture: Picture) -> tuple[int, int]:
    """(H, W) turned as it is shown, with square pixels."""
    height, width = picture.frame.height, max(round(picture.frame.width * picture.aspect), 1)
    return (width, height) if picture.frame.rotation % 180 else (height, width)


def _middle(room: int, kind: Kind) -> int:
    """Where a picture begins in a larger one; even where two pixels share a colour, which would move else."""
    return room // 2 if "42" not in kind.pixels else room // 4 * 2


def _is_of(kind: Kind, frame: VideoFrame) -> bool:
    """Whether a frame's values are stored as they are."""
    same = frame.format.name.replace("yuvj", "yuv") == kind.pixels.replace("yuvj", "yuv")
    meant = kind.matrix != BT601 or frame.colorspace in LIKE_BT601
    return same and meant and is_full(frame) == (kind.range == FULL)


def _scale(frame: VideoFrame, kind: Kind, scaled: tuple[int, int], turned: tuple[int, int]) -> str:
    """The arguments of the filter that scales and converts colours."""
    smaller = scaled[0] * scaled[1] < turned[0] * turned[1]
    words = f"{scaled[1]}:{scaled[0]}:flags={'area' if smaller else 'bilinear'}+{SCALING}"
    if not frame.format.is_rgb:
        words += f":in_range={'pc' if is_full(frame) else 'tv'}"
    if kind.pixels not in ("rgb24", "bgr0"):
        words += f":out_range={'pc' if kind.range == FULL else 'tv'}"
        words += ":out_color_matrix=bt601" if kind.matrix == BT601 else ""
    return words
