"""Pictures of a video with their times, out of any file that is read: containers, GIF, multi-frame DICOM."""

# H rows, W columns

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from src.data.builders.about import About
from src.data.builders.dicom import about_dicom, begins_as_dicom, burned_in, meta_of, open_dicom, regions_of
from src.data.builders.dicom_pixels import Frames, blank_outside, encapsulated_video, is_video, open_frames
from src.data.builders.records import Unusable, refuse_special, told
from src.data.video import opened, refuse_too_many, size_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

CONTAINERS = (".mp4", ".m4v", ".mov", ".avi", ".mpg", ".mpeg", ".mkv", ".webm", ".wmv", ".gif")
DICOM = (".dcm", ".dicom", ".ima")
"""How files end that are looked for in a folder; DICOM files without suffix are found by what is in them."""
GIF = b"GIF8"


class Picture(NamedTuple):
    """A frame that is decoded."""

    time: float
    """Seconds from the first."""
    frame: VideoFrame
    aspect: Fraction = Fraction(1)
    """Width of a pixel by its height."""


class Pictures(Protocol):
    """The frames of a video, which are read once."""

    meta: dict[str, Any]
    """What else the file tells that may go into a shard."""

    def __iter__(self) -> Iterator[Picture]:
        """One by one.

        Raises:
            ValueError: it can't be read, or not to its end.
        """


def about_video(path: Path) -> About:
    """Of whom a video is: DICOM files tell, others are not asked."""
    return about_dicom(path) if begins_as_dicom(path) else About()


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    assumed_rate: float | None = None
    """Hz, of DICOM files whose header states none."""
    burned_in: bool = False
    """Take DICOM files whose header says that words are drawn into the pixels."""
    blank_outside: bool = False
    """Blank what lies outside the regions that an ultrasound's header names; those without regions are refused."""

    def pictures(self, path: Path) -> Pictures:
        """The pictures of a file.

        Raises:
            ValueError: it is missing, empty, or none that is read here.
        """
        refuse_special(path)
        with told(path, "a video"), path.open("rb") as file:
            if not (head := file.read(len(GIF))):
                raise Unusable("it is empty")
            if head == GIF and not _ends(file):
                raise Unusable("it is cut off: the mark at the end of a GIF is missing")
        if begins_as_dicom(path):
            return self._of_dicom(path)
        if self.blank_outside:
            raise ValueError("it is no DICOM file, whose header names regions, outside of which --blank-outside blanks")
        return Contained(lambda: path.open("rb"))

    def _of_dicom(self, path: Path) -> Pictures:
        dataset = open_dicom(path)
        if burned_in(dataset) and not self.burned_in:
            raise ValueError(
                "its header says that words are drawn into its pixels (BurnedInAnnotation), a name perhaps:"
                " --burned-in takes it"
            )
        regions = [place for place, _ in regions_of(dataset)]
        if self.blank_outside and not regions:
            raise ValueError("its header names no region of a scan, outside of which --blank-outside could blank")
        if is_video(dataset):
            if self.blank_outside:
                raise ValueError("it is an MPEG or H.264 stream in DICOM, in which --blank-outside can't blank")
            data = encapsulated_video(path)
            return Contained(lambda: io.BytesIO(data), meta_of(dataset))
        frames = open_frames(path)
        if self.blank_outside:
            _refuse_elsewhere(regions, frames.height, frames.width)
        return OfDICOM(frames, regions if self.blank_outside else None, self.assumed_rate, meta_of(dataset))


def _refuse_elsewhere(regions: Iterable[tuple[int, int, int, int]], height: int, width: int) -> None:
    """Refuse regions that are empty or go beyond the frames: they are those of another picture.

    A pixel too many is taken: some devices write the corner behind the last.
    """
    for top, left, bottom, right in regions:
        if not (top < min(bottom, height) and left < min(right, width) and bottom <= height + 1 and right <= width + 1):
            raise ValueError(
                f"its header names a region from ({top}, {left}) to ({bottom - 1}, {right - 1}), which is empty or does"
                f" not lie in its frames of {height} x {width}: --blank-outside can't go by it"
            )


def refuse_mirrored(frame: VideoFrame) -> None:
    """Refuse what its file says is mirrored, sheared or turned by anything but quarters: FFmpeg tells an angle alone.

    The matrix is that of ISO 14496-12, 8.3.2: a, b, u, c, d, v, x, y, w.
    """
    sides: Any = frame.side_data
    for side in sides:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (int(value) for value in np.frombuffer(side, "=i4")[:5])
            if not ((b == c == 0 and a == d != 0) or (a == d == 0 and b == -c != 0)):
                raise ValueError("its header says that it is mirrored, or turned by no quarter: write it upright")


def _ends(file: BinaryIO) -> bool:
    """Whether a GIF's blocks, from its 5th byte on, lead to its trailer (GIF89a, 17 to 27)."""
    screen = file.read(9)
    if len(screen) < 9:
        return False
    file.seek(_table(screen[6]), 1)
    while (block := file.read(1)) in (b"\x21", b"\x2c"):
        head = file.read(1 if block == b"\x21" else 9)
        if len(head) == 9:
            file.seek(_table(head[8]) + 1, 1)
        while (size := file.read(1)) > b"\0":
            file.seek(size[0], 1)
    return block == b"\x3b"


def _table(flags: int) -> int:
    """Bytes of the colours that follow."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


@dataclass
class Contained:
    """Pictures in a container that FFmpeg reads."""

    open: Callable[[], AbstractContextManager[BinaryIO]]
    meta: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Picture]:
        """One by one; damage that a decoder would paint over is an error, and so is an end before the stated one."""
        with self.open() as file, opened(file, strict=True) as (container, stream):
            frames = _decoded(container, stream)
            rate = stream.average_rate or stream.guessed_rate
            first = previous = None
            size = (0, 0)
            number = -1
            for number, frame in enumerate(frames):
                if number == 0:
                    refuse_mirrored(frame)
                    size = size_of(frame)
                if size_of(frame) != size:
                    raise ValueError(f"its frame {number} is of another size than the first")
                refuse_too_many(number + 1, *size)
                time = frame.time
                if time is None or (previous is not None and time <= previous):  # MPEG tells not all of them
                    if not rate:
                        raise ValueError("its frames have no times")
                    time = 0.0 if previous is None else previous + 1.0 / float(rate)
                first = time if first is None else first
                previous = time
                yield Picture(time - first, frame, _aspect(stream))
            if number < 0:
                raise ValueError("it holds no frames")


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    packets = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ValueError(f"it is cut off or damaged at its packet {packets}")
        packets += packet.size > 0
        yield from packet.decode()
    if packets < stream.frames:
        raise ValueError(f"it is cut off: it holds {packets} of the {stream.frames} frames that its header states")


def _aspect(stream: VideoStream) -> Fraction:
    """As the container says, or else the codec; what no device has is none."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 10) <= aspect <= 10 else Fraction(1)


@dataclass
class OfDICOM:
    """Pictures of a multi-frame DICOM file, gray or RGB."""

    frames: Frames
    regions: list[tuple[int, int, int, int]] | None
    """What is kept; None for all."""
    assumed_rate: float | None
    meta: dict[str, Any]

    def __iter__(self) -> Iterator[Picture]:
        """One by one."""
        from av import VideoFrame

        frames = self.frames
        refuse_too_many(frames.frames, frames.height, frames.width)
        times_T = frames.times_T
        if times_T is None:
            if self.assumed_rate is None and frames.frames > 1:
                raise ValueError("its header states no rate of frames, or none that can be: --assume-rate HZ gives one")
            times_T = np.arange(frames.frames) / (self.assumed_rate or 1.0)
        for pixels, time in zip(frames, times_T, strict=True):
            yield Picture(float(time), VideoFrame.from_ndarray(self._kept(pixels), "gray" if frames.gray else "rgb24"))

    def _kept(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(pixels if self.regions is None else blank_outside(self.regions, pixels))
