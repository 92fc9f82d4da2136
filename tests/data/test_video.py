"""Frames of a stored video by their numbers, and what a survey finds."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from src.data.builders.video_encode import encode
from src.data.builders.video_format import Encoding
from src.data.builders.video_read import Reading
from src.data.builders.video_remux import remux
from src.data.modalities.video import GatherVideos, _decode, _fields
from src.data.video import (
    SEEKABLE,
    Facts,
    Video,
    _converter,
    _from,
    _packets,
    _runs,
    _types_by_length,
    _types_by_start_code,
    opened,
    rgb,
)
from tests.data import videos

LONG = videos.frames_of(frames=70)
STORED = {
    "h264": lambda path: encode(Reading().pictures(videos.write(path, LONG)), Encoding()),
    "ffv1": lambda path: encode(Reading().pictures(videos.write(path, LONG)), Encoding(codec="ffv1")),
    "mjpeg": lambda path: encode(Reading().pictures(videos.write(path, LONG)), Encoding(codec="mjpeg")),
    "uneven": lambda path: encode(
        Reading().pictures(videos.write(path, LONG, times=np.cumsum(np.arange(70) % 7 + 1) / 100)), Encoding()
    ),
    "passed b-frames": lambda path: passed(
        videos.write(path, LONG, bf=3, g=20, x264opts="bframes=3:b-adapt=0:open-gop=1")
    ),
    "passed mpeg2": lambda path: passed(videos.write_mpeg(path.with_suffix(".mpg"), LONG, bf=2, g=12)),
    "mkv of others": lambda path: (videos.write(path.with_suffix(".mkv"), LONG, g=10).read_bytes(), {}),
    "avi of others": lambda path: (videos.write_avi(path.with_suffix(".avi"), LONG).read_bytes(), {}),
    "mpg of others": lambda path: (videos.write_mpeg(path.with_suffix(".mpg"), LONG).read_bytes(), {}),
    "gif of others": lambda path: (videos.write_gif(path.with_suffix(".gif"), LONG).read_bytes(), {}),
}


def passed(path):
    return remux(lambda: path.open("rb"))


@pytest.mark.parametrize("name", STORED)
def test_any_frames_are_those_of_all(tmp_path, name):
    data, told = STORED[name](tmp_path / "a.mp4")
    video = Video(data, told)
    everything = video.frames()
    assert everything.shape == (70, 48, 64, 3) and everything.dtype == np.uint8
    if "gif" not in name:
        assert np.array_equal(everything, videos.by_opencv(data))
    rng = np.random.default_rng(0)
    for wanted in (
        [0],
        [69],
        [33],
        [5, 5, 3],
        [2, 1, 0, 1],
        range(16),
        range(70),
        range(20, 36),
        range(1, 70, 9),
        rng.permutation(70),
        rng.integers(0, 70, 8),
    ):
        assert np.array_equal(video.frames(wanted), everything[list(wanted)])


def test_a_frame_behind_a_recovery_point_is_that_of_all(tmp_path):
    """Intra refresh; a seek to its recovery points gave other pictures for frames 48 to 50."""
    frames = videos.frames_of(frames=70, height=64, width=96)
    path = videos.write(tmp_path / "a.mp4", frames, x264opts="intra-refresh=1:keyint=15")
    for data, told in ((path.read_bytes(), {}), passed(path)):
        video = Video(data, told)
        everything = video.frames()
        for number in range(40, 60):
            assert np.array_equal(video.frames([number])[0], everything[number])


@pytest.mark.parametrize("wrong", [70, -1, 10_000])
@pytest.mark.parametrize("name", ["h264", "gif of others"])
def test_a_frame_that_is_not_there_is_named(tmp_path, name, wrong):
    data, told = STORED[name](tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=rf"no frame {wrong} in a video of 70 frames|no frame {wrong} in a video"):
        Video(data, told).frames([3, wrong])


@pytest.mark.parametrize("name", STORED)
def test_a_seek_lands_at_its_own_keyframe(tmp_path, name):
    data, _ = STORED[name](tmp_path / "a.mp4")
    with opened(io.BytesIO(data)) as (container, stream):
        packets = _packets(container, stream)
        assert (packets is not None) == (container.format.name in SEEKABLE)
        keys = [number for number, packet in enumerate(packets or ()) if packet.keyframe]
        for number in keys:
            first = next(_from(packets[number], container, stream)).pts
            assert first in {packet.pts for packet in packets[max(number - 3, 0) : number + 1]}, "leading B-frames"


def test_converting_takes_no_thread_of_its_own(tmp_path):
    with opened(io.BytesIO(videos.write(tmp_path / "a.mp4").read_bytes())) as (container, stream):
        frames, converter = list(container.decode(stream)), _converter()
        before = threads()
        for frame in frames:
            rgb(frame, converter)
        assert threads() == before


def threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_only_what_is_needed_is_decoded():
    assert _runs([0, 16, 32, 48], [40, 44]) == [(32, [40, 44])]
    assert _runs([0, 16, 32, 48], [2, 15, 16, 47, 48]) == [(0, [2, 15, 16, 47, 48])]
    assert _runs([0, 16, 32, 48], [2, 33, 69]) == [(0, [2]), (32, [33, 69])]
    assert _runs([0], [5, 60]) == [(0, [5, 60])]


def test_a_survey_tells_what_the_video_is(tmp_path):
    assert Video(videos.write(tmp_path / "a.mp4", LONG, rate=30).read_bytes(), {}).survey() == Facts(
        70, 30.0, 48, 64, "h264"
    )
    with pytest.raises(ValueError, match="can't be read as a video"):
        Video(b"x" * 999, {}).survey()


def test_members_are_in_the_order_of_their_numbers():
    names = ["10.mp4", "2.mp4", "json", "txt", "0.avi", "mp4.json", "x.mp4", "ecg.npy"]
    assert _fields(names) == ("0.avi", "2.mp4", "10.mp4")
    assert _fields(["mp4", "json"]) == ("mp4",)


def test_a_json_that_tells_something_else_is_refused(tmp_path):
    data, told = encode(Reading().pictures(videos.write(tmp_path / "a.mp4")), Encoding())
    for name, value in (("frames", 11), ("height", 49), ("width", 1), ("codec", "ffv1"), ("rate", 30.0)):
        meta = {"videos": [{**told, name: value}]}
        with pytest.raises(ValueError, match="its json says"):
            GatherVideos().add("train", _decode([("mp4", memoryview(data))], meta))
    with pytest.raises(ValueError, match="not a list of 1 objects"):
        _decode([("mp4", memoryview(data))], {"videos": []})
    gathered = GatherVideos()
    gathered.add("train", _decode([("mp4", memoryview(data))], {"videos": [told]}))
    assert gathered.facts() == {
        "videos": (1, 1),
        "frames": (12, 12),
        "rates": (25.0, 25.0),
        "sizes": {"48 x 64": 1},
        "codecs": {"h264": 1},
    }


@pytest.mark.parametrize("name", [name for name in STORED if "of others" not in name])
def test_a_glance_tells_what_a_survey_finds(tmp_path, name):
    data, told = STORED[name](tmp_path / "a.mp4")
    found, seen = Video(data, told).survey(), Video(data, told).glance()
    assert found._replace(rate=None) == seen._replace(rate=None) and found.rate == pytest.approx(seen.rate, rel=1e-6)


def test_what_others_wrote_is_decoded_whatever_they_tell(tmp_path):
    good = videos.write(tmp_path / "a.mp4", LONG).read_bytes()
    ((start, stop),) = videos.boxes(good, b"mdat")
    bad = good[: start + 50] + bytes(stop - start - 50) + good[stop:]
    told = {"frames": 70, "height": 48, "width": 64, "codec": "h264"}
    assert Video(bad, told).glance().frames == 70
    with pytest.raises(ValueError, match="its video 0"):
        GatherVideos().add("train", _decode([("mp4", memoryview(bad))], {"videos": [told]}))


def test_videos_can_be_sent_to_another_process(tmp_path):
    from multiprocessing.reduction import ForkingPickler

    data, told = STORED["h264"](tmp_path / "a.mp4")
    assert len(ForkingPickler.dumps(Video(data, told))) < len(data) + 2000


def test_a_shard_with_a_playlist_opens_nothing_else(tmp_path):
    videos.write(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="can't be read"):
        Video(f"ffconcat version 1.0\nfile {tmp_path / 'a.mp4'}\n".encode(), {}).frames()
    assert av.open(io.BytesIO((tmp_path / "a.mp4").read_bytes()))


def test_units_of_h264_are_told_apart_in_both_of_its_forms():
    units = [bytes([0x67, 1, 2]), bytes([0x06, 0]), bytes([0x65, 9, 0, 0, 3, 1]), bytes([0x41])]
    types = [7, 6, 5, 1]
    for width in (1, 2, 4):
        assert list(_types_by_length(b"".join(len(u).to_bytes(width, "big") + u for u in units), width)) == types
    assert list(_types_by_start_code(b"".join(b"\0" * (n % 2) + b"\0\0\1" + u for n, u in enumerate(units)))) == types
    assert list(_types_by_length(b"", 4)) == list(_types_by_start_code(b"")) == []
