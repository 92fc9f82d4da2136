"""Small videos as devices and programs write them: by PyAV, OpenCV and Pillow; and OpenCV's way of reading one."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np
from PIL import Image

from tests.data.dicoms import moving


def frames_of(number=0, frames=12, height=48, width=64):
    """RGB that moves, [T, H, W, 3]."""
    return moving(frames, height, width, 3, seed=17 * number)


def write(path, frames=None, codec="libx264", pixels="yuv420p", form=None, times=None, rate=25, metadata=(), **options):
    """A container with frames at times (in seconds) or at a rate; metadata as given."""
    frames = frames_of() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(len(frames)) / rate if times is None else times
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=rate, options={key: str(value) for key, value in options.items()})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.metadata.update(metadata)
        base = Fraction(1, 90000) if codec.startswith("libx264") and path.suffix != ".avi" else Fraction(1, rate)
        stream.codec_context.time_base = base
        for time, values in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(values, "gray" if values.ndim == 2 else "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(float(time) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_mpeg(path, frames=None, codec="mpeg2video", form="mpeg", **settings):
    return write(path, frames, codec, form=form, **settings)


def write_avi(path, frames=None, code="MJPG", rate=25):
    """By OpenCV."""
    frames = frames_of() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), rate, (width, height))
    assert video.isOpened()
    for frame in frames:
        video.write(frame[..., ::-1])
    video.release()
    return path


def write_gif(path, frames=None, milliseconds=40, **settings):
    """By Pillow."""
    frames = frames_of() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(frame).quantize(256) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, **settings)
    return path


def gif_frames(path):
    """[T, H, W, 3] as Pillow shows them."""
    with Image.open(path) as image:
        shown = []
        for number in range(image.n_frames):
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")))
    return np.stack(shown)


def by_opencv(source):
    """[T, H, W, 3] of a path or of bytes, read from the first to the last frame."""
    place = str(source) if not isinstance(source, bytes) else io.BytesIO(source)
    capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, [])
    shown = []
    while (read := capture.read())[0]:
        shown.append(read[1][..., ::-1])
    return np.stack(shown)


def psnr(one, other):
    """Of two videos, in dB."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-12))


def turned(path, degrees):
    """The mp4 with a display matrix that turns it."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return with_matrix(path, cos, sin, -sin, cos)


def with_matrix(path, a, b, c, d):
    """The mp4 with a display matrix, written into its track header (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version 0: flags, times, ids, duration, layer, volume
    matrix = [round(a * 65536), round(b * 65536), 0, round(c * 65536), round(d * 65536), 0, 0, 0, 1 << 30]
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def boxes(data, *path):
    """Places (start, size) of the boxes of an mp4 that a path of names leads to."""
    found = [(0, len(data))]
    for name in path:
        inner = []
        for start, stop in found:
            while start + 8 <= stop:
                size = int.from_bytes(data[start : start + 4], "big")
                if data[start + 4 : start + 8] == name:
                    inner.append((start + 8, start + size))
                start += max(size, 8)
        found = inner
    return found
