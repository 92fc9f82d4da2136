"""What is passed through: the same pictures, and nothing else of the file."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from src.data.builders.video_read import Reading
from src.data.builders.video_remux import NotPassed, remux, without_comments, without_user_data
from src.data.video import Video
from tests.data import videos
from tests.data.dicoms import jpeg
from tests.data.test_video_read import cut_between, moov_first, with_sound_and_cover

SECRETS = (b"Zebedee", b"Quagmire", b"19411207", b"MRN-0815", b"Ward-Nine")
ALL = b" ".join(SECRETS)
TAGS = dict.fromkeys(
    ("title", "artist", "author", "comment", "copyright", "description", "location", "encoder", "date", "synopsis"),
    ALL.decode(),
)


def leaks(data):
    wanted = [*SECRETS, *(secret.decode().encode("utf-16-be") for secret in SECRETS)]
    return [secret for secret in wanted if secret.lower() in data.lower()]


def passed(path):
    return remux(lambda: path.open("rb"))


PASSED = {
    "h264.mp4": lambda path: videos.write(path, metadata=TAGS),
    "h264.mov": lambda path: videos.write(path, metadata=TAGS),
    "without_b.mkv": lambda path: videos.write(path, metadata=TAGS, bf=0),
    "mpeg4.mp4": lambda path: videos.write(path, codec="mpeg4", metadata=TAGS),
    "mpeg2.mpg": lambda path: videos.write_mpeg(path),
    "mpeg1.mpg": lambda path: videos.write_mpeg(path, codec="mpeg1video"),
    "mjpeg.avi": lambda path: videos.write_avi(path),
    "xvid.avi": lambda path: videos.write_avi(path, code="XVID"),
}


@pytest.mark.parametrize("name", PASSED)
def test_pictures_are_the_same_and_so_are_the_bytes_of_two_times(tmp_path, name):
    path = PASSED[name](tmp_path / name)
    data, told = passed(path)
    frames = videos.by_opencv(path)
    assert np.array_equal(videos.by_opencv(data), frames) and np.array_equal(Video(data, told).frames(), frames)
    assert told == {**told, "frames": 12, "height": 48, "width": 64, "made": "remuxed"} and "uneven" not in told
    assert told["rate"] == pytest.approx(25, rel=2e-3)
    assert data == passed(path)[0]
    assert leaks(data) == [] and b"Lav" not in data


def sei(words):
    """H.264's unregistered user data: NAL unit 6, payload 5 (ITU H.264 D.1.7)."""
    payload = bytes(16) + words
    return b"\x06\x05" + bytes([len(payload)]) + payload + b"\x80"


def in_h264(path):
    stream = videos.write(path.with_suffix(".h264"), form="h264", bf=0).read_bytes()
    units = stream.split(b"\0\0\0\1")
    path.with_suffix(".h264").write_bytes(b"\0\0\0\1".join([*units[:-1], sei(ALL), units[-1]]))
    return copied(path.with_suffix(".h264"), path)


def copied(source, path):
    """By PyAV, packet by packet."""
    with av.open(str(source)) as container, av.open(str(path), "w") as written:
        stream = container.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                packet.pts = packet.dts = round(number / 25 / stream.time_base)
                packet.stream = copy
                written.mux(packet)
    return path


def motion_jpeg(change, **settings):
    """An AVI of Pillow's JPEGs, each changed."""

    def make(path):
        with av.open(str(path), "w", format="avi") as written:
            stream = written.add_stream("mjpeg", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
            for number, values in enumerate(videos.frames_of()):
                packet = av.Packet(change(jpeg(values, **settings)))
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                packet.is_keyframe = True
                written.mux(packet)
        return path

    return make


def before_last_scan(data):
    place = data.rindex(b"\xff\xda")
    return data[:place] + segment(b"\xfe", ALL) + data[place:]


def in_mpeg(codec):
    """User data before the first picture, and before the second."""

    def make(path):
        picture = b"\0\0\1\xb6" if codec == "mpeg4" else b"\0\0\1\0"
        stream = videos.write(path.with_suffix(".bin"), codec=codec, form=FORMS[codec]).read_bytes()
        first, second, *others = stream.split(picture)
        planted = b"\0\0\1\xb2" + ALL
        path.write_bytes(picture.join([first + planted, second + planted, *others]))
        return path

    return make


FORMS = {"mpeg2video": "mpeg2video", "mpeg1video": "mpeg1video", "mpeg4": "m4v"}


def segment(marker, words):
    return b"\xff" + marker + (len(words) + 2).to_bytes(2, "big") + words


def in_jpeg(path):
    """A comment, Exif and an application's own segment in every frame."""
    planted = b"".join(
        segment(marker, words) for marker, words in ((b"\xfe", ALL), (b"\xe1", b"Exif\0\0" + ALL), (b"\xed", ALL))
    )
    with av.open(str(path), "w") as written:
        stream = written.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for values in videos.frames_of():
            frame = av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuvj420p")
            for packet in stream.encode(frame):
                data = bytes(packet)
                copy = av.Packet(data[:2] + planted + data[2:])
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream, copy.is_keyframe = stream, True
                written.mux(copy)
    return path


PLANTED = {
    "h264.mp4": in_h264,
    "mpeg2.m2v": in_mpeg("mpeg2video"),
    "mpeg1.m1v": in_mpeg("mpeg1video"),
    "mpeg4.m4v": in_mpeg("mpeg4"),
    "mjpeg.mov": in_jpeg,
    "before_end.avi": motion_jpeg(lambda data: data[:-2] + segment(b"\xfe", ALL) + data[-2:]),
    "behind_end.avi": motion_jpeg(lambda data: data + ALL),
    "second_picture.avi": motion_jpeg(lambda data: data + data[:2] + segment(b"\xfe", ALL) + data[2:]),
    "between_scans.avi": motion_jpeg(before_last_scan, progressive=True),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_lies_among_the_pictures_stays_behind(tmp_path, name):
    path = PLANTED[name](tmp_path / name)
    assert len(leaks(path.read_bytes())) == len(SECRETS), "it is there"
    try:
        data, told = passed(path)
    except NotPassed:
        pytest.fail("it should pass")
    assert leaks(data) == []
    assert np.array_equal(videos.by_opencv(data), videos.by_opencv(path)[: told["frames"]])


def test_sound_covers_and_other_streams_stay_behind(tmp_path):
    data, told = passed(with_sound_and_cover(tmp_path / "a.mp4"))
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert told["frames"] == 12 and told["codec"] == "h264"


def test_uneven_times_stay_as_they_are(tmp_path):
    written = np.append(0, np.cumsum(np.random.default_rng(0).integers(10, 90, 11) / 1000))
    data, told = passed(videos.write(tmp_path / "a.mp4", times=written))
    with av.open(io.BytesIO(data)) as container:
        assert np.allclose([frame.time for frame in container.decode(video=0)], written, atol=1e-4)
    assert told["uneven"] is True


REFUSED = {
    "turned.mp4": lambda path: videos.turned(videos.write(path), 90),
    "a.gif": lambda path: videos.write_gif(path),
    "vp9.webm": lambda path: videos.write(path, codec="libvpx-vp9"),
    "hevc.mp4": lambda path: videos.write(path, codec="libx265"),
    "h264.avi": lambda path: videos.write(path, bf=0),
    "b_frames.avi": lambda path: videos.write(path, x264opts="bframes=2:b-adapt=0"),
    "b_frames.mkv": lambda path: videos.write(path, x264opts="bframes=2:b-adapt=0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_mp4_is_not_passed(tmp_path, name):
    path = REFUSED[name](tmp_path / name)
    with pytest.raises(NotPassed):
        passed(path)
    assert len(list(Reading().pictures(path))) == 12, "but read"


@pytest.mark.parametrize("words", [b"Metasoft MJPEG Codec\0", b"Intel(R) JPEG Library, version 1.5\0", b"CS=ITU601\0"])
def test_a_comment_that_the_decoder_goes_by_is_not_left_out_of_what_is_passed(tmp_path, words):
    """FFmpeg turns pictures of the first two upside down, and takes those of the third for another range."""
    path = motion_jpeg(lambda data: data[:2] + segment(b"\xfe", words) + data[2:])(tmp_path / "a.avi")
    plain = motion_jpeg(bytes)(tmp_path / "b.avi")
    assert not np.array_equal(videos.by_opencv(path), videos.by_opencv(plain))
    with pytest.raises(NotPassed):
        passed(path)
    assert passed(plain)[1]["made"] == "remuxed"


def test_a_field_behind_the_picture_is_not_lost():
    with pytest.raises(NotPassed):
        without_comments(b"\xff\xd8\xff\xd8" + bytes(20) + b"\xff\xd9")


@pytest.mark.parametrize("make", [cut_between, moov_first])
def test_what_is_cut_off_is_refused(tmp_path, make):
    make(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="cut off"):
        passed(tmp_path / "a.mp4")


def test_user_data_ends_where_the_next_unit_begins():
    units = [b"\xb3seq", b"\xb2secret", b"\xb8gop", b"\xb2", b"\0picture", b"\xb2last"]
    stream = b"".join(b"\0\0\1" + unit for unit in units)
    assert without_user_data(stream) == b"\0\0\1\xb3seq\0\0\1\xb8gop\0\0\1\0picture"
    assert without_user_data(b"head" + stream).startswith(b"head")


def test_a_jpeg_keeps_what_is_needed_to_show_it():
    segments = [b"\xff\xe0\0\x04ab", b"\xff\xee\0\x0eAdobe" + bytes(7), b"\xff\xfe\0\x05abc", b"\xff\xee\0\x04ab"]
    needed, scan, end = b"\xff\xdb\0\x05qqq", b"\xff\xda\0\x03x12\xff\0", b"\xff\xd9"
    kept = without_comments(b"\xff\xd8" + b"".join(segments) + needed + scan + segments[2] + scan + end + b"secret")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64" + bytes(5)
    assert kept == b"\xff\xd8" + adobe + needed + scan + scan + end


@pytest.mark.data
def test_public_clips_are_passed_without_their_dates_and_makers(medssl_data):
    root = medssl_data / "video" / "lung_ultrasound" / "cc_by"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    path = root / "Reg_Image_181206_crop.mp4"
    words = (b"20200502", b"GE Healthcare", b"LOGIQ", b"Lavf", b"x264", b"181206")
    assert sum(word in path.read_bytes() for word in words) >= 5
    data, told = passed(path)
    assert not any(word in data for word in words)
    assert np.array_equal(videos.by_opencv(data)[::50], videos.by_opencv(path)[::50]) and told["frames"] == 495
