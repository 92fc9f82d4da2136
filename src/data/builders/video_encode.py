"""Pictures into an mp4 of one codec, size and rate: the same pictures always give the same bytes.

One thread, FFmpeg's bit-exact paths, and no name, version or date of an encoder in what is written. H.264 by x264's
preset veryfast with a keyframe every 16 frames and no B-frames, so that clips can be cut out: 2.8 ms a frame of
234 x 234 against 7.4 for `fast`, at the same size; keyframes every 250 would make files 30 % smaller.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from src.data.builders.records import LARGEST_RECORD
from src.data.builders.video_format import BT601, FULL, PLANAR, UNKNOWN, Encoding, kind_of, options_of, refuse_loss
from src.data.builders.video_read import Picture
from src.data.builders.video_scale import graph_of, steps_of, target_size
from src.data.video import mean_rate, refuse_too_many, survey

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.filter import Graph

TICKS = 90_000
"""A second: 24, 25, 30, 50, 60 Hz and the rates of NTSC are whole numbers of them."""
NO_INFORMATION = "filter_units=remove_types=6"
"""Drops H.264's supplemental information, where x264 writes its version and settings."""
LONGEST_GAP = 20.0
"""Seconds that a picture may be shown again for, to bring a video to a rate."""
UNEVEN = 0.001
"""Seconds by which steps between frames may differ in a video of one rate: what containers round to."""


def encode(pictures: Iterable[Picture], encoding: Encoding) -> tuple[bytes, dict[str, Any]]:
    """An mp4, and what its json tells of it: frames, rate, height, width, codec, and how it was changed.

    Raises:
        ValueError: the pictures can't be read, or not encoded; there are none; the mp4 would be larger than a record
            may be.
    """
    import av

    times: list[float] = []
    try:
        output = _Output(encoding)
        for picture in at_rate(_noted(pictures, times), encoding.rate):
            output.add(picture)
        data = output.finish()
    except av.FFmpegError as error:  # of the encoder, a filter or the container: not all are ValueErrors
        raise ValueError(f"it can't be encoded as {encoding.codec} ({error.strerror})") from error
    rate = mean_rate(output.times) if encoding.rate is None else encoding.rate
    told: dict[str, Any] = {
        "frames": len(output.times),
        "rate": rate,
        "height": output.size[0],
        "width": output.size[1],
        "codec": encoding.codec,
        "made": "encoded",
    }
    if encoding.rate is not None:
        told |= {"source_frames": len(times), "source_rate": mean_rate(times)}
    elif is_uneven(output.times):
        told["uneven"] = True
    found = survey(io.BytesIO(data), strict=True)  # what can't be read again must not get into a tar
    if (found.frames, found.height, found.width) != (told["frames"], *output.size):
        raise ValueError(f"it can't be encoded: {told['frames']} frames became {found.frames}")
    return data, told


def is_uneven(times: list[float]) -> bool:
    """Whether the steps between frames differ by more than rounding."""
    steps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    return bool(steps) and max(steps) - min(steps) > 2 * UNEVEN


def _noted(pictures: Iterable[Picture], times: list[float]) -> Iterator[Picture]:
    for picture in pictures:
        times.append(picture.time)
        yield picture


def at_rate(pictures: Iterable[Picture], rate: float | None) -> Iterator[Picture]:
    """At times k / rate, the picture nearest to each: some are left out or come again, none is made up.

    The last picture lasts as long as one does on average, so that a video of the very rate stays as it is.

    Raises:
        ValueError: between two pictures is more than LONGEST_GAP.
    """
    if rate is None:
        yield from pictures
        return
    shown, last = 0, None
    count = 0
    for picture in pictures:
        if last is not None and picture.time - last.time > LONGEST_GAP:
            raise ValueError(
                f"its frames {count - 1} and {count} are {picture.time - last.time:,.0f} s apart, more than the"
                f" {LONGEST_GAP:g} s that --rate repeats one for: leave it out, or cut the video there"
            )
        while last is not None and shown / rate <= (last.time + picture.time) / 2.0:
            yield Picture(shown / rate, last.frame)
            shown += 1
        last = picture
        count += 1
    if last is not None:
        end = last.time * count / (count - 1) if count > 1 else 0.5 / rate
        while shown / rate < end - 1e-6:
            yield Picture(shown / rate, last.frame)
            shown += 1


class _Output:
    """An mp4 that grows."""

    def __init__(self, encoding: Encoding) -> None:
        import av

        self.encoding, self.size = encoding, (0, 0)
        self.times: list[float] = []
        self._bytes = io.BytesIO()
        self._container = av.open(self._bytes, "w", format="mp4", container_options={"fflags": "+bitexact"})
        self._change: Graph | None = None
        self._source: tuple[Any, ...] = ()

    def add(self, picture: Picture) -> None:
        """Append."""
        frame = picture.frame
        source = (picture.aspect, frame.width, frame.height, frame.format.name, frame.rotation)
        if not self.times:
            self._source = source
            self._begin(picture)
        if source != self._source:
            raise ValueError(f"its frame {len(self.times)} is of another kind than the first")
        frame = self._changed(frame)
        frame.pts, frame.time_base = round(picture.time * TICKS), Fraction(1, TICKS)
        frame.pict_type = 0  # that of the source would be kept
        self.times.append(picture.time)
        refuse_too_many(len(self.times), *self.size)
        self._write(self._stream.encode(frame))

    def finish(self) -> bytes:
        """All of it."""
        if not self.times:
            raise ValueError("it holds no frames")
        self._write(self._stream.encode(None))
        self._container.close()
        return self._bytes.getvalue()

    def _begin(self, picture: Picture) -> None:
        from av.bitstream import BitStreamFilterContext
        from av.video.stream import VideoStream

        refuse_loss(picture.frame, self.encoding)
        kind = kind_of(picture.frame, self.encoding, target_size(picture, self.encoding))
        steps = steps_of(picture, self.encoding, kind)
        self._change = graph_of(picture.frame, steps) if steps else None
        first = self._changed(picture.frame)
        self.size = (first.height, first.width)
        stream = self._container.add_stream(kind.encoder, options=options_of(self.encoding))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, kind.pixels
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, TICKS)
        context.thread_count = 1
        context.color_range, context.colorspace = kind.range, kind.matrix
        if kind.encoder == "ffv1" and kind.pixels in PLANAR and (kind.range == FULL or kind.matrix != UNKNOWN):
            context.colorspace = kind.matrix if kind.matrix != UNKNOWN else BT601
            context.color_primaries = context.color_trc = BT601  # mp4 tells all three or none
        self._stream = stream
        self._container.start_encoding()
        h264 = self.encoding.codec == "h264"
        self._clean = BitStreamFilterContext(NO_INFORMATION, stream, stream) if h264 else None

    def _changed(self, frame: VideoFrame) -> VideoFrame:
        if self._change is None:
            return frame
        frame.pts = None
        self._change.push(frame)
        return self._change.vpull()

    def _write(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            for cleaned in [packet] if self._clean is None else self._clean.filter(packet):
                cleaned.duration = self._step()
                self._container.mux(cleaned)
        if self._bytes.tell() > LARGEST_RECORD:
            raise ValueError(f"it becomes more than {LARGEST_RECORD:,} bytes: cut it into clips")

    def _step(self) -> int:
        """Ticks that the last frame is shown."""
        return round(TICKS * self.times[-1] / (len(self.times) - 1)) if len(self.times) > 1 else TICKS
