"""A video that a shard holds: its encoded bytes, of which only the frames that are asked for are decoded.

Through PyAV, which seeks to the keyframe before the first frame wanted; OpenCV gives the same bytes, and has to read up
to it or to guess where it is. One converter to RGB for all frames of a video; docs/batches.md has a table.
"""

# T frames, H rows, W columns

from __future__ import annotations

import bisect
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.packet import Packet as AvPacket
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

FORMATS = "mov,avi,matroska,mpeg,mpegvideo,mpegts,gif,asf,m4v,h264,hevc,mjpeg,ogg,flv"
"""FFmpeg's readers that may be used: none that is a list of other files or of addresses, as a playlist is."""
MOST_PIXELS = 1 << 26
"""Of a frame: 8192 x 8192. FFmpeg refuses larger ones before it makes room for them."""
MOST_PIXELS_IN_ALL = 1 << 36
"""Of all frames of a video: 3 hours of 800 x 600 at 13 Hz. More is a bomb, or no clip."""
IDR = 5
"""H.264's unit that all frames behind it can do without what is before it."""
SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Containers that list where their keyframes are."""


class Facts(NamedTuple):
    """What a video is, once all of it is decoded."""

    frames: int
    rate: float | None
    """Hz, the mean over the video; None where one frame has no rate."""
    height: int
    width: int
    codec: str


class Packet(NamedTuple):
    """A frame that is not decoded yet."""

    pts: int
    keyframe: bool
    """Frames from here on need none before it."""


@dataclass(frozen=True)
class Video:
    """A video as it lies in a shard."""

    data: bytes
    told: Mapping[str, Any]
    """What the sample's json tells of it: frames, rate in Hz, height, width, codec, ...; empty for tars of others."""

    def frames(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """[T, H, W, 3] of RGB: the frames of these numbers, from 0, in this order; None for all.

        Raises:
            ValueError: there is no such frame, or one can't be decoded.
        """
        if indices is None:
            return self._all()
        _refuse_missing(indices, self.told.get("frames"))
        pictures = _Pictures(indices)
        if not pictures.begin_the_video:
            self._jump_to(pictures)
        if pictures.missing:
            pictures = self._one_after_the_other(indices)
        return pictures.in_order(indices)

    def _all(self) -> NDArray[np.uint8]:
        converter = _converter()
        with opened(io.BytesIO(self.data)) as (container, stream):
            return _stacked([rgb(frame, converter) for frame in container.decode(stream)])

    def _jump_to(self, pictures: _Pictures) -> None:
        """Those whose place the container tells; none where it tells nothing."""
        with opened(io.BytesIO(self.data)) as (container, stream):
            if packets := _packets(container, stream):
                _refuse_missing(sorted(pictures.missing), self.told.get("frames", len(packets)))
                _at_their_times(container, stream, packets, pictures)

    def _one_after_the_other(self, wanted: Sequence[int]) -> _Pictures:
        pictures, number = _Pictures(wanted), -1
        with opened(io.BytesIO(self.data)) as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                pictures.add(number, frame)
                if not pictures.missing:
                    return pictures
        raise ValueError(f"there is no frame {min(pictures.missing)} in a video of {number + 1} frames")

    def survey(self) -> Facts:
        """Decode all of it.

        Raises:
            ValueError: it can't be decoded, holds no frame, or changes its size.
        """
        return survey(io.BytesIO(self.data))

    def facts(self) -> Facts:
        """What it is, of its container where that says it, else of all of it.

        Raises:
            ValueError: it can't be decoded, holds no frame, or changes its size.
        """
        try:
            return self.glance()
        except ValueError:
            return self.survey()

    def glance(self) -> Facts:
        """What its container says, for a video that was decoded when it was stored: 3 ms for 250 frames.

        Raises:
            ValueError: it is no such container, or holds no frames.
        """
        with opened(io.BytesIO(self.data)) as (container, stream):
            packets = _packets(container, stream)
            if not packets or stream.time_base is None:
                raise ValueError("its container does not say where its frames are")
            times = [float(packet.pts * stream.time_base) for packet in packets]
            return Facts(len(packets), mean_rate(times), stream.height, stream.width, stream.codec_context.name)


def survey(file: BinaryIO, strict: bool = False, seen: Callable[[VideoFrame], None] | None = None) -> Facts:
    """What a video is; every frame is decoded. `strict` raises for damage that a decoder would paint over.

    `seen` is handed each frame.

    Raises:
        ValueError: it can't be decoded, holds no frame, changes its size, or has too many pixels.
    """
    sizes: list[tuple[int, int]] = []
    times: list[float] = []
    with opened(file, strict) as (container, stream):
        for frame in container.decode(stream):
            sizes.append(size_of(frame))
            if sizes[-1] != sizes[0]:
                raise ValueError(f"its frame {len(sizes) - 1} is of another size than the first")
            refuse_too_many(len(sizes), *sizes[0])
            if frame.time is not None:
                times.append(frame.time)
            if seen is not None:
                seen(frame)
        codec = stream.codec_context.name
    if not sizes:
        raise ValueError("it holds no frames")
    return Facts(len(sizes), mean_rate(times), *sizes[0], codec)


@contextmanager
def opened(file: BinaryIO, strict: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file's container and its video, with bounds on what reading it may take.

    Raises:
        ValueError: it is no video; whatever FFmpeg complains of inside is one too.
    """
    import av

    decoding = {"max_pixels": str(MOST_PIXELS)}
    if strict:
        decoding["err_detect"] = "explode"
    probing = {"format_whitelist": FORMATS, **decoding}
    try:
        container = av.open(file, "r", options=probing, metadata_errors="replace", buffer_size=1 << 20)
        with container:
            stream = _moving_picture(container)
            if stream.codec_context.name == "gif":
                decoding["trans_color"] = "0"  # black where nothing is drawn
            stream.codec_context.options = decoding
            yield container, stream
    except av.FFmpegError as error:  # some are OSErrors too, though no storage has failed
        raise ValueError(f"it can't be read as a video ({error.strerror})") from error


def _moving_picture(container: InputContainer) -> VideoStream:
    """The first video that is no cover picture; it is decoded by one thread, since others decode other files."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            if stream.width * stream.height > MOST_PIXELS:
                raise ValueError(f"its frames of {stream.height} x {stream.width} are more than {MOST_PIXELS:,} pixels")
            stream.codec_context.thread_count = 1
            return stream
    raise ValueError("it holds no video, or one of a codec that is not known")


def refuse_too_many(frames: int, height: int, width: int) -> None:
    """Refuse what would unpack to more than a clip can be."""
    if frames * height * width > MOST_PIXELS_IN_ALL:
        raise ValueError(f"it unpacks to more than {MOST_PIXELS_IN_ALL:,} pixels: cut it into clips")


def _refuse_missing(numbers: Iterable[int], frames: int | None) -> None:
    for number in numbers:
        if number < 0 or (frames is not None and number >= frames):
            of = "" if frames is None else f" of {frames} frames"
            raise ValueError(f"there is no frame {number} in a video{of}")


def mean_rate(times: Sequence[float]) -> float | None:
    """Frames a second between the first and the last of them."""
    span = times[-1] - times[0] if times else 0.0
    return round((len(times) - 1) / span, 6) if span > 0 else None


def size_of(frame: VideoFrame) -> tuple[int, int]:
    """(H, W) as it is shown."""
    return (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)


def rgb(frame: VideoFrame, converter: VideoReformatter | None = None) -> NDArray[np.uint8]:
    """[H, W, 3], turned as the file says; frames of one video may share a converter.

    With one thread: by itself PyAV starts one for each core, and a frame of 224 x 224 takes 41 us of CPU instead of 17.
    """
    converted = (converter or _converter()).reformat(frame, format="rgb24", threads=1)
    return np.rot90(_pixels(converted), frame.rotation // 90)


def _converter() -> VideoReformatter:
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """[H, W, 3] of an RGB frame, its own memory where its rows have no padding."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : 3 * frame.width]
    return rows.reshape(frame.height, frame.width, 3)


def _stacked(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not frames:
        raise ValueError("it holds no frames")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise ValueError("its frames are not of one size")
    return np.stack(frames)


class _Pictures:
    """Frames of one video as RGB in one array."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self._numbers = sorted(set(wanted))
        self.missing = set(self._numbers)
        self._array: NDArray[np.uint8] | None = None
        self._converter = _converter()

    @property
    def begin_the_video(self) -> bool:
        """Whether they are the first frames of it: nothing is jumped over."""
        return self._numbers == list(range(len(self._numbers)))

    def add(self, number: int, frame: VideoFrame) -> None:
        """Take in a frame, if it is wanted.

        Raises:
            ValueError: it is of another size than those before it.
        """
        if number not in self.missing:
            return
        picture = rgb(frame, self._converter)
        if self._array is None:
            self._array = np.empty((len(self._numbers), *picture.shape), np.uint8)
        if picture.shape != self._array.shape[1:]:
            raise ValueError("its frames are not of one size")
        self._array[bisect.bisect_left(self._numbers, number)] = picture
        self.missing.remove(number)

    def in_order(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """[T, H, W, 3]: the frames of these numbers, of which none is missing."""
        if self._array is None:
            raise ValueError("it holds no frames, or none was asked for")
        if list(numbers) == self._numbers:
            return self._array
        return self._array[np.searchsorted(self._numbers, numbers)]


def _packets(container: InputContainer, stream: VideoStream) -> list[Packet] | None:
    """The frames by their times; None where they have none, or seeking to them is not to be trusted."""
    if container.format.name not in SEEKABLE:
        return None
    found: list[Packet] = []
    starts_anew = _starts_anew(stream)
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            return None
        found.append(Packet(packet.pts, packet.is_keyframe and starts_anew(packet)))
    return sorted(found)


def _starts_anew(stream: VideoStream) -> Callable[[AvPacket], bool]:
    """Whether a keyframe of the container is one to the decoder.

    FFmpeg calls H.264's recovery points keyframes too: with intra refresh the picture is whole some frames later only.
    """
    if stream.codec_context.name != "h264":
        return lambda packet: True
    told = stream.codec_context.extradata or b""
    if told[:1] == b"\x01" and len(told) > 4:  # avcC, which says how many bytes the length of a unit takes
        return lambda packet: IDR in _types_by_length(bytes(packet), (told[4] & 3) + 1)
    return lambda packet: IDR in _types_by_start_code(bytes(packet))


def _types_by_length(data: bytes, width: int) -> Iterator[int]:
    """Types of H.264's units, each behind its length."""
    start = width
    while start < len(data):
        yield data[start] & 31
        start += int.from_bytes(data[start - width : start], "big") + width


def _types_by_start_code(data: bytes) -> Iterator[int]:
    """Types of H.264's units, each behind 0 0 1 (Annex B)."""
    return (unit[0] & 31 for unit in data.split(b"\0\0\1")[1:] if unit)


def _at_their_times(
    container: InputContainer, stream: VideoStream, packets: Sequence[Packet], pictures: _Pictures
) -> None:
    """The frames that are wanted, each run of them from the keyframe before it; fewer if something is odd."""
    number_of = {packet.pts: number for number, packet in enumerate(packets)}
    keys = [number for number, packet in enumerate(packets) if packet.keyframe]
    for key, run in _runs(keys, sorted(pictures.missing)):
        for frame in _from(packets[key], container, stream):
            number = number_of.get(frame.pts if frame.pts is not None else -1, -1)
            if run[0] <= number:
                pictures.add(number, frame)
            if number >= run[-1]:
                break


def _from(key: Packet, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames from a keyframe on; a seek to its dts would land at the keyframe before, where there are B-frames."""
    container.seek(key.pts, stream=stream, backward=True)
    return container.decode(stream)


def _runs(keys: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, list[int]]]:
    """(keyframe, frames): those that follow each other without a keyframe in between that could be jumped to."""
    runs: list[tuple[int, list[int]]] = []
    place = -2
    for number in wanted:
        at = max(bisect.bisect_right(keys, number) - 1, 0)
        if at <= place + 1:
            runs[-1][1].append(number)
        else:
            runs.append((keys[at] if keys else 0, [number]))
        place = at
    return runs
