"""A video passed through: its coded pictures as they are, in a new mp4 without anything else that the file said.

Titles, comments, dates, places, covers, sound and other streams stay behind, and so does what lies among the coded
pictures: H.264's supplemental information, MPEG's user data, JPEG's comments and application data. Decoders go by some
of that, and show other pictures without it: what does not decode to the very frames of its file is not passed.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from src.data.builders.jpeg import strip_jpeg
from src.data.builders.records import LARGEST_RECORD
from src.data.builders.video_encode import is_uneven
from src.data.builders.video_read import refuse_mirrored
from src.data.video import Facts, opened, refuse_too_many, rgb, size_of, survey

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

PICTURES_ONLY = "filter_units=pass_types=1-5|7-8"
"""Of H.264: coded slices and parameter sets."""
START, USER_DATA = b"\0\0\1", b"\xb2"
"""Start code of MPEG-1, MPEG-2 and MPEG-4 (ISO 11172-2, 13818-2, 14496-2)."""


class NotPassed(Exception):
    """A video that has to be encoded anew."""


def remux(open_file: Callable[[], AbstractContextManager[BinaryIO]]) -> tuple[bytes, dict[str, Any]]:
    """An mp4 with the coded pictures of a file, and what its json tells of it.

    Raises:
        NotPassed: its codec or container has no such mp4, its pictures are turned or not square, or the mp4 would show
            others.
        ValueError: it can't be read, or not to its end; a picture can't be decoded.
    """
    with open_file() as file, opened(file, strict=True) as (container, stream):
        frame = _first_frame(container, stream)
        refuse_mirrored(frame)
        if (
            stream.codec_context.name not in (*CLEAN, "h264")
            or frame.rotation
            or (stream.sample_aspect_ratio or 1) != 1
        ):
            raise NotPassed
    with open_file() as file:
        data, times = _copied(file)
    sums: list[int] = []
    facts = survey(io.BytesIO(data), strict=True, seen=lambda frame: sums.append(_sum(frame)))
    if facts.frames != len(times):
        raise NotPassed  # pictures that are coded in two packets, or skipped
    with open_file() as file:
        if _sums(file) != sums:
            raise NotPassed  # a decoder heeded a comment, or a field that stood behind the picture
    return data, {**_told(facts), **({"uneven": True} if is_uneven(sorted(times)) else {})}


def _copied(file: BinaryIO) -> tuple[bytes, list[float]]:
    """The mp4, and the times of its packets in seconds."""
    import av
    from av.bitstream import BitStreamFilterContext

    output = io.BytesIO()
    times: list[float] = []
    packets = 0
    with (
        opened(file, strict=True) as (container, stream),
        av.open(output, "w", format="mp4", container_options={"fflags": "+bitexact"}) as written,
    ):
        copy = written.add_stream_from_template(stream, opaque=False)
        codec = stream.codec_context.name
        if codec in CLEAN and (head := stream.codec_context.extradata):
            copy.codec_context.extradata = b"" if codec == "mjpeg" else CLEAN[codec](head)
        only = BitStreamFilterContext(PICTURES_ONLY, stream, copy) if codec == "h264" else None
        first: int | None = None
        for packet in container.demux(stream):
            packets += packet.size > 0
            if packet.is_corrupt:
                raise ValueError(f"it is cut off or damaged at its packet {packets - 1}")
            if packet.size and packet.is_discard:
                raise NotPassed
            for cleaned in only.filter(packet if packet.size else None) if only else _cleaned(packet, CLEAN[codec]):
                if cleaned.pts is None or cleaned.dts is None:
                    raise NotPassed
                first = cleaned.pts if first is None else first
                cleaned.pts, cleaned.dts = cleaned.pts - first, cleaned.dts - first
                times.append(float(cleaned.pts * cleaned.time_base))
                cleaned.stream = copy
                _add(written, cleaned)
                if output.tell() > LARGEST_RECORD:
                    raise ValueError(f"it is more than {LARGEST_RECORD:,} bytes: cut it into clips")
        if packets < stream.frames:
            raise ValueError(f"it is cut off: it holds {packets} of the {stream.frames} frames that its header states")
    return output.getvalue(), times


def _add(written: OutputContainer, packet: Packet) -> None:
    import av

    try:
        written.mux(packet)
    except av.FFmpegError:  # H.264 out of an AVI lacks the head that an mp4 needs
        raise NotPassed from None


def _cleaned(packet: Packet, clean: Callable[[bytes], bytes]) -> list[Packet]:
    """The packet with its picture alone; none for the mark of the end."""
    import av

    if not packet.size:
        return []
    copy = av.Packet(clean(bytes(packet)))
    copy.pts, copy.dts, copy.time_base, copy.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    copy.is_keyframe = packet.is_keyframe
    return [copy]


def without_user_data(data: bytes) -> bytes:
    """An MPEG stream less the units that hold whatever an encoder liked to write."""
    head, *units = data.split(START)
    return START.join([head, *(unit for unit in units if unit[:1] != USER_DATA)])


def without_comments(data: bytes) -> bytes:
    """A JPEG less its comments and application data, up to its end.

    Raises:
        NotPassed: it has no end, or is none.
    """
    try:
        return strip_jpeg(data)
    except ValueError:
        raise NotPassed from None


CLEAN = {
    "mpeg1video": without_user_data,
    "mpeg2video": without_user_data,
    "mpeg4": without_user_data,
    "mjpeg": without_comments,
}
"""Codecs beside H.264 that are passed through, and what takes everything but pictures out of a packet."""


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    for frame in container.decode(stream):
        return frame
    raise ValueError("it holds no frames")


def _sums(file: BinaryIO) -> list[int]:
    """A checksum of each frame of a file."""
    sums: list[int] = []
    with opened(file, strict=True) as (container, stream):
        for frame in container.decode(stream):
            refuse_too_many(len(sums) + 1, *size_of(frame))
            sums.append(_sum(frame))
    return sums


def _sum(frame: VideoFrame) -> int:
    """Of its values and of how they are meant; of its RGB where values do not lie in a plane for each colour."""
    parts, planes = frame.format.components, list[Any](frame.planes)
    if len(parts) != len(planes) or any(plane.line_size <= 0 for plane in planes):
        return zlib.crc32(np.ascontiguousarray(rgb(frame)).data)
    sum_ = zlib.crc32(repr((frame.format.name, frame.colorspace, frame.color_range, size_of(frame))).encode())
    for plane in planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        used = plane.width * -(-parts[0].bits // 8)
        sum_ = zlib.crc32(np.ascontiguousarray(rows[: plane.height, :used]).data, sum_)
    return sum_


def _told(facts: Facts) -> dict[str, Any]:
    return {**facts._asdict(), "made": "remuxed"}
