"""What is encoded: sizes, rates, colours and times as asked for, and the same bytes every time."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from src.data.builders.video_encode import at_rate, encode
from src.data.builders.video_format import Encoding
from src.data.builders.video_read import Picture, Reading
from src.data.video import Video
from tests.data import dicoms, videos

FRAMES = videos.frames_of(frames=20)


def encoded(path, **settings):
    """The frames that OpenCV reads of it, what is told of it, and its bytes."""
    data, told = encode(Reading(assumed_rate=25.0).pictures(path), Encoding(**settings))
    frames = videos.by_opencv(data)
    if frames.shape[1] % 2 == 0:
        assert np.array_equal(Video(data, told).frames(), frames)
    else:  # OpenCV takes a gray of odd height for green by two levels
        assert np.abs(Video(data, told).frames().astype(int) - frames).max() <= 2
        frames = Video(data, told).frames()
    assert (told["frames"], told["height"], told["width"]) == frames.shape[:3]
    return frames, told, data


def times_in(data):
    with av.open(io.BytesIO(data)) as container:
        return np.array([frame.time for frame in container.decode(video=0)])


LOSSLESS = {
    "h264": (lambda path: videos.write(path), {"lossless": True}),
    "h264 4:2:2": (lambda path: videos.write(path, pixels="yuv422p"), {"lossless": True}),
    "h264 4:4:4": (lambda path: videos.write(path, pixels="yuv444p"), {"lossless": True}),
    "ffv1": (lambda path: videos.write(path), {"codec": "ffv1"}),
    "full range": (lambda path: videos.write_avi(path), {"lossless": True}),
    "full range ffv1": (lambda path: videos.write_avi(path), {"codec": "ffv1"}),
    "gif": (lambda path: videos.write_gif(path), {"lossless": True}),
    "gif ffv1": (lambda path: videos.write_gif(path), {"codec": "ffv1"}),
    "dicom gray": (lambda path: dicoms.write_native(path, FRAMES[..., 0]), {"lossless": True}),
    "dicom gray ffv1": (lambda path: dicoms.write_native(path, FRAMES[..., 0]), {"codec": "ffv1"}),
    "dicom rgb": (lambda path: dicoms.write_native(path, FRAMES), {"lossless": True}),
    "dicom rgb ffv1": (lambda path: dicoms.write_native(path, FRAMES), {"codec": "ffv1"}),
    "dicom odd": (lambda path: dicoms.write_native(path, FRAMES[:, :47, :61, 0]), {"lossless": True}),
    "dicom odd rgb": (lambda path: dicoms.write_native(path, FRAMES[:, :47, :61]), {"lossless": True}),
}
SUFFIXES = {"gif": ".gif", "gif ffv1": ".gif", "full range": ".avi", "full range ffv1": ".avi"}


@pytest.mark.parametrize("name", LOSSLESS)
def test_nothing_is_lost_where_nothing_may_be(tmp_path, name):
    write, settings = LOSSLESS[name]
    path = write(tmp_path / f"a{SUFFIXES.get(name, '.dcm' if 'dicom' in name else '.mp4')}")
    if "dicom" in name:
        reference = np.stack(list(Reading().pictures(path).frames))
        reference = reference if reference.ndim == 4 else np.repeat(reference[..., None], 3, -1)
    else:
        reference = videos.gif_frames(path) if "gif" in name else videos.by_opencv(path)
    frames, told, _ = encoded(path, **settings)
    assert np.array_equal(frames, reference)
    assert told["codec"] == settings.get("codec", "h264") and told["rate"] == 25.0


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
@pytest.mark.parametrize("source", ["mp4", "gray", "odd gray", "rgb", "odd rgb"])
def test_what_is_lost_is_little(tmp_path, codec, source):
    values = {"gray": FRAMES[..., 0], "odd gray": FRAMES[:, :47, :61, 0], "rgb": FRAMES, "odd rgb": FRAMES[:, :47, :61]}
    if source == "mp4":
        path = videos.write(tmp_path / "a.mp4", FRAMES)
        reference = videos.by_opencv(path)
    else:
        path = dicoms.write_native(tmp_path / "a.dcm", values[source])
        reference = values[source] if values[source].ndim == 4 else np.repeat(values[source][..., None], 3, -1)
    frames, told, _ = encoded(path, codec=codec)
    assert videos.psnr(frames, reference) > (30 if "rgb" in source else 34)
    if "gray" in source:
        assert np.abs(frames.astype(int) - frames[..., :1]).max() == 0, "gray stays gray"
        assert abs(frames.mean() - reference.mean()) < 0.5, "and as bright"
    worse, _, data = encoded(path, codec=codec, quality=30)
    assert videos.psnr(worse, reference) < videos.psnr(frames, reference)


def test_luminance_alone_is_that_of_opencv(tmp_path):
    path = dicoms.write_native(tmp_path / "a.dcm", FRAMES)
    frames, _, _ = encoded(path, gray=True, lossless=True)
    reference = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in FRAMES])
    assert np.abs(frames[..., 0].astype(int) - reference).max() <= 2
    path = videos.write(tmp_path / "a.mp4", FRAMES)
    frames, _, _ = encoded(path, gray=True, lossless=True)
    reference = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in videos.by_opencv(path)])
    assert np.abs(frames[..., 0].astype(int) - reference).mean() < 1.5


@pytest.mark.parametrize("codec", ["h264", "mjpeg", "ffv1"])
@pytest.mark.parametrize("source", ["mjpeg", "h264", "rgb"])
def test_luminance_alone_has_no_colour_in_any_codec(tmp_path, codec, source):
    if source == "rgb":
        path = dicoms.write_native(tmp_path / "a.dcm", FRAMES)
        reference = FRAMES
    else:
        path = videos.write_avi(tmp_path / "a.avi") if source == "mjpeg" else videos.write(tmp_path / "a.mp4")
        reference = videos.by_opencv(path)
    for settings in ({}, {"size": (30, 70)}):
        frames, _, _ = encoded(path, codec=codec, gray=True, **settings)
        assert np.ptp(frames.astype(int), axis=-1).max() == 0
    frames, _, _ = encoded(path, codec=codec, gray=True)
    gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in reference])
    assert np.abs(frames[..., 0].astype(int) - gray).mean() < 2


@pytest.mark.parametrize("range_", [1, 2])
@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
def test_what_is_said_of_colours_stays_with_them(tmp_path, matrix, range_):
    """BT.709, BT.601 and BT.2020, in 16 to 235 and 0 to 255."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, range_
        for values in FRAMES[:3]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    reference = Video(path.read_bytes(), {}).frames()
    for settings in ({"codec": "ffv1"}, {"lossless": True}, {"codec": "mjpeg", "quality": 2}):
        data, told = encode(Reading().pictures(path), Encoding(**settings))
        difference = np.abs(Video(data, told).frames().astype(int) - reference)
        assert difference.max() == 0 if "quality" not in settings else difference.mean() < 2.5, settings


DEEP = {"gray16": ("ffv1", "gray16le"), "10 bits": ("ffv1", "yuv420p10le"), "alpha": ("ffv1", "yuva420p")}


@pytest.mark.parametrize("settings", [{"lossless": True}, {"codec": "ffv1"}])
@pytest.mark.parametrize("name", DEEP)
def test_what_has_more_than_8_bits_is_not_taken_for_exact(tmp_path, name, settings):
    codec, pixels = DEEP[name]
    path = videos.write(tmp_path / "a.mkv", FRAMES, codec=codec, pixels=pixels)
    with pytest.raises(ValueError, match="can't be kept exactly"):
        encode(Reading().pictures(path), Encoding(**settings))
    assert encode(Reading().pictures(path), Encoding())[1]["frames"] == 20


def test_what_an_encoder_refuses_is_a_sentence(tmp_path):
    """x264 goes up to 16384 a side; its error is no ValueError."""
    path = videos.write(tmp_path / "a.mkv", np.zeros((3, 4, 20000, 3), np.uint8), codec="ffv1")
    with pytest.raises(ValueError, match="can't be encoded as h264"):
        encode(Reading().pictures(path), Encoding())


def test_a_gap_is_not_filled_with_millions_of_frames(tmp_path):
    path = videos.write(tmp_path / "a.mkv", FRAMES[:4], codec="ffv1", times=[0, 1, 2, 1_000_000])
    with pytest.raises(ValueError, match="its frames 2 and 3 are 999,998 s apart"):
        encode(Reading().pictures(path), Encoding(rate=30))


def test_the_bound_on_all_pixels_holds_for_what_is_written(tmp_path, monkeypatch):
    path = videos.write(tmp_path / "a.mkv", FRAMES[:4], codec="ffv1", times=[0, 1, 2, 19])
    monkeypatch.setattr("src.data.video.MOST_PIXELS_IN_ALL", 100 * 48 * 64)
    with pytest.raises(ValueError, match="unpacks to more than"):
        encode(Reading().pictures(path), Encoding(rate=30))
    assert encode(Reading().pictures(path), Encoding())[1]["frames"] == 4


SIZES = [
    ({"size": (32, 32)}, (32, 32)),
    ({"size": (32, 32), "fit": "crop"}, (32, 32)),
    ({"size": (32, 32), "fit": "stretch"}, (32, 32)),
    ({"size": (96, 200)}, (96, 200)),
    ({"size": (31, 33), "fit": "crop"}, (31, 33)),
    ({"shorter_side": 24}, (24, 32)),
    ({"shorter_side": 33}, (33, 44)),
    ({"shorter_side": 96}, (96, 128)),
    ({}, (48, 64)),
]


@pytest.mark.parametrize(("settings", "size"), SIZES)
@pytest.mark.parametrize("kind", ["gray", "rgb"])
def test_sizes_are_those_asked_for(tmp_path, settings, size, kind):
    values = FRAMES[..., 0] if kind == "gray" else FRAMES
    path = dicoms.write_native(tmp_path / "a.dcm", values)
    frames, told, _ = encoded(path, lossless=True, **settings)
    assert frames.shape[1:3] == size == (told["height"], told["width"])
    for number in (0, 11):
        reference = brought(
            FRAMES[number] if kind == "rgb" else np.repeat(values[number][..., None], 3, -1), settings, size
        )
        assert np.abs(frames[number].astype(int) - reference).mean() < 3.0, "as OpenCV scales"


def brought(frame, settings, size):
    """By OpenCV: scaled by area or linearly, then padded or cropped at the middle."""
    height, width = frame.shape[:2]
    fit = settings.get("fit", "pad")
    scaled = size
    if "size" in settings and fit != "stretch":
        share = (min if fit == "pad" else max)(size[0] / height, size[1] / width)
        scaled = (round(height * share), round(width * share))
    smaller = scaled[0] < height
    frame = cv2.resize(frame, scaled[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    room = np.zeros((*size, 3), np.uint8)
    if fit == "pad":
        top, left = (size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2
        room[top : top + scaled[0], left : left + scaled[1]] = frame
        return room
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return frame[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_stored_as_they_are_shown(tmp_path, degrees):
    path = videos.turned(videos.write(tmp_path / "a.mp4", FRAMES), degrees)
    frames, _, data = encoded(path, lossless=True)
    assert np.array_equal(frames, videos.by_opencv(path))


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for values in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    frames, _, _ = encoded(path)
    assert frames.shape[1:3] == (48, 96)
    assert encoded(path, shorter_side=24)[0].shape[1:3] == (24, 48)


def test_times_stay_as_they_are(tmp_path):
    written = np.append(0, np.cumsum(np.random.default_rng(0).integers(10, 90, 19) / 1000))
    _, told, data = encoded(videos.write(tmp_path / "a.mp4", FRAMES, times=written))
    assert np.allclose(times_in(data), written, atol=1e-4) and told["uneven"] is True
    assert told["rate"] == pytest.approx(19 / written[-1], rel=1e-4)
    _, told, _ = encoded(videos.write(tmp_path / "b.mp4", FRAMES, rate=30))
    assert "uneven" not in told and told["rate"] == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_at_a_rate_each_picture_is_the_nearest(seed):
    """Against a search over all pictures for each time."""
    rng = np.random.default_rng(seed)
    rate = float(rng.uniform(3, 60))
    times = np.append(0, np.cumsum(rng.uniform(0.01, 0.2, int(rng.integers(1, 40)))))
    shown = list(at_rate([Picture(time, number) for number, time in enumerate(times)], rate))
    end = times[-1] * len(times) / (len(times) - 1)
    grid = np.arange(0, end - 1e-6, 1 / rate)
    assert np.allclose([picture.time for picture in shown], grid)
    distance = np.abs(grid[:, None] - times)
    assert all(distance[k, picture.frame] == pytest.approx(distance[k].min()) for k, picture in enumerate(shown))


@pytest.mark.parametrize(("rate", "count"), [(25, 20), (12.5, 10), (50, 40), (10, 8)])
def test_rates_are_those_asked_for(tmp_path, rate, count):
    path = videos.write(tmp_path / "a.mp4", FRAMES)
    frames, told, data = encoded(path, rate=rate, lossless=True)
    reference = videos.by_opencv(path)
    assert (told["frames"], told["rate"]) == (count, rate) and np.allclose(times_in(data), np.arange(count) / rate)
    assert (told["source_frames"], told["source_rate"]) == (20, 25.0)
    assert all((frame == reference).all((1, 2, 3)).any() for frame in frames), "none is made up"
    if rate == 25:
        assert np.array_equal(frames, reference)


@pytest.mark.parametrize("codec", ["h264", "mjpeg", "ffv1"])
def test_the_same_pictures_give_the_same_bytes_and_no_name_of_an_encoder(tmp_path, codec):
    path = videos.write(tmp_path / "Zebedee.mp4", FRAMES, metadata={"title": "Zebedee", "creation_time": "2019-03-02"})
    one, *others = (encoded(path, codec=codec, shorter_side=40)[2] for _ in range(60 if codec == "h264" else 2))
    assert set(others) == {one}
    for word in (b"Lav", b"x264", b"Zebedee", b"2019"):
        assert word not in one
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        place = one.index(box)
        assert one[place + 8 : place + 16] == bytes(8), "no date"


@pytest.mark.parametrize("source", [1, 250])
def test_keyframes_come_as_often_as_asked_for(tmp_path, source):
    path = videos.write(tmp_path / "a.mp4", videos.frames_of(frames=40), g=source)
    for every in (5, 16):
        with av.open(io.BytesIO(encoded(path, keyframes=every)[2])) as container:
            keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
        assert np.diff([*keys, 40]).max() <= every and len(keys) <= -(-40 // every), "and not where they were"


def test_a_video_that_becomes_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("src.data.builders.video_encode.LARGEST_RECORD", 5000)
    with pytest.raises(ValueError, match="cut it into clips"):
        encoded(videos.write(tmp_path / "a.mp4", FRAMES), codec="ffv1")
