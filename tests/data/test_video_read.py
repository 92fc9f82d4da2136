"""What is read of a file: every frame at its time, and a sentence where that can't be."""

import io
import subprocess
import sys

import av
import numpy as np
import pytest

from src.data.builders.video_read import Contained, Reading, about_video
from src.data.builders.video_remux import remux
from src.data.video import rgb, survey
from tests.data import dicoms, videos

FRAMES = videos.frames_of()


def read(path, **settings):
    """Times and frames, [T] and [T, H, W, 3]."""
    pictures = list(Reading(**settings).pictures(path))
    return np.array([picture.time for picture in pictures]), np.stack([rgb(picture.frame) for picture in pictures])


WRITERS = {
    "mp4": lambda path: videos.write(path),
    "mov": lambda path: videos.write(path),
    "mkv": lambda path: videos.write(path),
    "m4v": lambda path: videos.write(path, codec="mpeg4", form="mp4"),
    "mpg": lambda path: videos.write_mpeg(path),
    "mpeg": lambda path: videos.write_mpeg(path, codec="mpeg1video"),
    "avi": lambda path: videos.write_avi(path),
    "xvid.avi": lambda path: videos.write_avi(path, code="XVID"),
    "ffv1.avi": lambda path: videos.write_avi(path, code="FFV1"),
    "wmv": lambda path: videos.write(path, codec="wmv2", form="asf"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_frames_are_those_that_opencv_reads(tmp_path, suffix):
    path = WRITERS[suffix](tmp_path / f"a.{suffix}")
    times, frames = read(path)
    assert np.array_equal(frames, videos.by_opencv(path)) and len(frames) == 12
    assert np.allclose(times, np.arange(12) / 25, atol=2e-3)
    assert videos.psnr(frames, FRAMES) > 20


@pytest.mark.parametrize("optimize", [True, False])
def test_gif_frames_are_those_that_pillow_shows(tmp_path, optimize):
    path = videos.write_gif(tmp_path / "a.gif", milliseconds=40, optimize=optimize)
    times, frames = read(path)
    assert np.array_equal(frames, videos.gif_frames(path))
    assert np.allclose(times, np.arange(12) * 0.04)


def test_a_gif_that_is_partly_transparent_is_black_there(tmp_path):
    values = np.zeros((3, 20, 30, 4), np.uint8)
    values[:, 5:15, 5:20] = (200, 30, 40, 255)
    values[1, 5:10, 5:20, 3] = 0
    from PIL import Image

    images = [Image.fromarray(value, "RGBA") for value in values]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100, disposal=2)
    _, frames = read(tmp_path / "a.gif")
    assert frames[:, :4].max() == 0 and tuple(frames[0, 12, 10]) == (200, 30, 40) and frames[1, 7, 10].max() == 0


def test_times_that_vary_are_those_that_were_written(tmp_path):
    steps = np.random.default_rng(0).integers(10, 90, 11) / 1000
    written = np.append(0, np.cumsum(steps))
    times, frames = read(videos.write(tmp_path / "a.mp4", times=written))
    assert np.allclose(times, written, atol=1e-4) and len(frames) == 12


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_turned_as_opencv_turns_them(tmp_path, degrees):
    path = videos.turned(videos.write(tmp_path / "a.mp4"), degrees)
    _, frames = read(path)
    assert np.array_equal(frames, videos.by_opencv(path))
    assert frames.shape[1:3] == ((64, 48) if degrees % 180 else (48, 64))


def with_sound_and_cover(path, frames=FRAMES):
    """A cover picture first, then sound, then the video, if there are frames."""
    cover = dicoms.jpeg(np.zeros((40, 40, 3), np.uint8))
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=1)
        picture.width = picture.height = 40
        picture.pix_fmt = "yuvj420p"
        picture.disposition = 1024  # attached_pic
        sound = container.add_stream("aac", rate=8000)
        if len(frames):
            video = container.add_stream("libx264", rate=25)
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts = picture, 0, 0
        container.mux(packet)
        for values in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuv420p")))
        if len(frames):
            container.mux(video.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def test_neither_sound_nor_a_cover_is_the_video(tmp_path):
    times, frames = read(with_sound_and_cover(tmp_path / "a.mp4"))
    assert frames.shape == (12, 48, 64, 3) and videos.psnr(frames, FRAMES) > 20


def test_dicom_frames_come_with_their_times_and_their_white_list(tmp_path):
    path = dicoms.write_jpeg(tmp_path / "a", FRAMES, FrameTime=20, Modality="US", PatientID="MRN-0815", PatientSex="F")
    times, frames = read(path)
    assert np.allclose(times, np.arange(12) / 50) and frames.shape == FRAMES.shape
    assert Reading().pictures(path).meta == {"dicom_modality": "US"}
    assert about_video(path).patient == "MRN-0815" and about_video(path).sex == 1.0
    assert about_video(videos.write(tmp_path / "b.mp4")).patient is None


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.100"])
def test_a_video_stream_in_dicom_is_read(tmp_path, syntax):
    codec, form = ("libx264", "h264") if syntax.endswith("102") else ("mpeg2video", "mpeg2video")
    stream = videos.write(tmp_path / "a.bin", codec=codec, form=form).read_bytes()
    dataset = dicoms.dataset_of(FRAMES, interpretation="YBR_PARTIAL_420", Modality="ES")
    path = dicoms.save(tmp_path / "a.dcm", dataset, [stream + b"\0" * (len(stream) % 2)], syntax)
    times, frames = read(path)
    assert np.array_equal(frames, videos.by_opencv(tmp_path / "a.bin")) and Reading().pictures(path).meta


def test_a_dicom_without_a_rate_needs_one(tmp_path):
    path = dicoms.write_native(tmp_path / "a.dcm", FRAMES, FrameTime=None)
    with pytest.raises(ValueError, match="--assume-rate"):
        read(path)
    times, _ = read(path, assumed_rate=10.0)
    assert np.allclose(times, np.arange(12) / 10)


def test_words_in_the_pixels_are_refused_unless_asked_for(tmp_path):
    path = dicoms.write_native(tmp_path / "a.dcm", FRAMES, BurnedInAnnotation="YES")
    with pytest.raises(ValueError, match="--burned-in takes it"):
        read(path)
    assert np.array_equal(read(path, burned_in=True)[1], FRAMES)


def test_outside_of_a_scan_is_black(tmp_path):
    from tests.data.test_dicom import Sequence, ultrasound_region

    with pytest.raises(ValueError, match="no region"):
        read(dicoms.write_native(tmp_path / "a.dcm", FRAMES), blank_outside=True)
    regions = Sequence([ultrasound_region(10, 4, 29, 53)])
    path = dicoms.write_native(tmp_path / "b.dcm", FRAMES, SequenceOfUltrasoundRegions=regions)
    _, frames = read(path, blank_outside=True)
    assert np.array_equal(frames[:, 10:30, 4:54], FRAMES[:, 10:30, 4:54])
    frames[:, 10:30, 4:54] = 0
    assert frames.max() == 0


@pytest.mark.parametrize(
    "corners", [(30, 4, 10, 53), (10, 70, 29, 90), (60, 4, 90, 53), (10, 4, 49, 53), (0, 0, 30, 65)]
)
def test_regions_of_another_picture_are_refused(tmp_path, corners):
    """Turned over, or beyond the 48 x 64 of a frame: all would be black, or nothing."""
    from tests.data.test_dicom import Sequence, ultrasound_region

    regions = Sequence([ultrasound_region(0, 0, 9, 9), ultrasound_region(*corners)])
    path = dicoms.write_native(tmp_path / "b.dcm", FRAMES, SequenceOfUltrasoundRegions=regions)
    with pytest.raises(ValueError, match="its header names a region from"):
        read(path, blank_outside=True)
    assert np.array_equal(read(path)[1], FRAMES)


def test_nothing_can_be_blanked_where_no_header_names_regions(tmp_path):
    for path in (videos.write(tmp_path / "a.mp4"), videos.write_gif(tmp_path / "a.gif")):
        with pytest.raises(ValueError, match="it is no DICOM file"):
            read(path, blank_outside=True)


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0.6, 0.8, -0.8, 0.6)])
def test_a_mirrored_video_is_refused(tmp_path, matrix):
    path = videos.with_matrix(videos.write(tmp_path / "a.mp4"), *matrix)
    with pytest.raises(ValueError, match="mirrored, or turned by no quarter"):
        read(path)
    with pytest.raises(ValueError, match="mirrored, or turned by no quarter"):
        remux(lambda: path.open("rb"))


def test_a_large_stream_in_dicom_is_refused_before_it_is_read(tmp_path):
    dataset = dicoms.dataset_of(FRAMES, interpretation="YBR_PARTIAL_420")
    path = dicoms.save(tmp_path / "a.dcm", dataset, [b"12"], "1.2.840.10008.1.2.4.102")
    with path.open("r+b") as file:
        file.truncate((1 << 30) + 2)  # a hole that takes no room
    with pytest.raises(ValueError, match="more than the 1,073,741,824 bytes"):
        read(path)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def of_two_sizes(path):
    """An H.264 stream that goes on in another size."""
    one = videos.write(path.with_name("1.h264"), form="h264").read_bytes()
    other = videos.write(path.with_name("2.h264"), videos.frames_of(height=64), form="h264").read_bytes()
    path.write_bytes(one + other)


def damaged(path):
    data = bytearray(videos.write(path, videos.frames_of(frames=40), bf=0).read_bytes())
    ((start, stop),) = videos.boxes(data, b"mdat")
    for place in range(start + (stop - start) // 2, start + (stop - start) // 2 + 200):
        data[place] ^= 0x5A
    path.write_bytes(data)


def moov_first(path):
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for values in videos.frames_of(frames=60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    cut(path, 0.6)


def cut_between(path):
    """At the end of a frame, so that no packet is broken."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for values in videos.frames_of(frames=40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[29]])


BAD = {
    "between.mp4": (cut_between, "it holds 30 of the 40 frames"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "empty"),
    "noise.mp4": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "can't be read as a video"),
    "text.avi": (lambda path: path.write_text("Zebedee " * 99), "can't be read as a video"),
    "folder.mp4": (lambda path: path.mkdir(), "can't be opened"),
    "none.mp4": (lambda path: None, "there is no none.mp4"),
    "sound.mp4": (lambda path: sound_alone(path), "no video"),
    "sound_with_cover.mp4": (lambda path: with_sound_and_cover(path, []), "no video"),
    "cut.mp4": (lambda path: cut(videos.write(path), 0.5), "can't be read as a video"),
    "moov_first.mp4": (moov_first, "cut off"),
    "cut.avi": (lambda path: cut(videos.write_avi(path, videos.frames_of(frames=60)), 0.5), "cut off|damaged"),
    "cut.gif": (lambda path: cut(videos.write_gif(path), 0.55), "cut off|damaged"),
    "damaged.mp4": (damaged, "can't be read as a video"),
    "two_sizes.mp4": (of_two_sizes, "another size"),
    "playlist.mp4": (lambda path: path.write_text("ffconcat version 1.0\nfile 'a.mp4'\n"), "can't be read as a video"),
    "stream.mp4": (
        lambda path: path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.ts\n"),
        "can't be read",
    ),
    "huge.gif": (lambda path: huge_gif(path), "65000 x 65000|can't be read"),
}


def sound_alone(path):
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))


def gif_of(width, height, frames):
    """A GIF that says it is large: a screen, then frames of a pixel."""
    screen = (
        b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    )
    frame = b"\x21\xf9\x04\x04\x04\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0" + b"\x02\x02\x44\x01\0"
    return screen + frame * frames + b";"


def huge_gif(path):
    path.write_bytes(gif_of(65000, 65000, 3))


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, name):
    make, sentence = BAD[name]
    videos.write(tmp_path / "a.mp4")
    make(tmp_path / name)
    with pytest.raises(ValueError, match=sentence) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value) and "Zebedee" not in str(error.value)


@pytest.mark.parametrize("side", [65000, 14000])
def test_a_bomb_takes_no_room(tmp_path, side):
    """In a process of its own; FFmpeg by itself would make room for 14,000 x 14,000, 784 MB."""
    (tmp_path / "huge.gif").write_bytes(gif_of(side, side, 3))
    program = (
        "import resource, sys; from pathlib import Path; from src.data.builders.video_read import Reading\n"
        "import av, numpy, pydicom\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try: list(Reading().pictures(Path(sys.argv[1])))\n"
        "except ValueError as error: print('refused', error)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"  # of this program alone
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "huge.gif"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused") and int(done.stdout.split()[-1]) < 400_000, done.stdout + done.stderr


def test_a_frame_that_is_suddenly_large_is_refused_by_the_decoder(tmp_path, monkeypatch):
    of_two_sizes(tmp_path / "a.mp4")
    monkeypatch.setattr("src.data.video.MOST_PIXELS", 3500)
    with pytest.raises(ValueError, match="can't be read as a video"):
        read(tmp_path / "a.mp4")


def test_the_bound_on_all_pixels_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("src.data.video.MOST_PIXELS_IN_ALL", 5 * 48 * 64)
    with pytest.raises(ValueError, match="unpacks to more than"):
        read(videos.write(tmp_path / "a.mp4"))
    with pytest.raises(ValueError, match="unpacks to more than"):
        survey(io.BytesIO((tmp_path / "a.mp4").read_bytes()))


@pytest.mark.parametrize(
    ("codec", "suffix", "least"), [("libx264", "mp4", 10), ("mpeg4", "mp4", 25), ("mpeg2video", "mpg", 12)]
)
def test_most_bytes_that_are_changed_are_noticed(tmp_path, codec, suffix, least):
    """Of 40 files with one changed byte; a decoder that paints over damage notices 2 to 5 of them."""
    path = tmp_path / f"a.{suffix}"
    write = videos.write if suffix == "mp4" else videos.write_mpeg
    good = write(path, videos.frames_of(frames=40), codec=codec, bf=0).read_bytes()
    ((start, stop),) = videos.boxes(good, b"mdat") if suffix == "mp4" else ((2000, len(good)),)
    noticed = {False: 0, True: 0}
    rng = np.random.default_rng(0)
    for place in rng.integers((3 * start + stop) // 4, stop - 10, 40):
        data = bytearray(good)
        data[place] ^= int(rng.integers(1, 255))
        for strict in noticed:
            try:
                survey(io.BytesIO(data), strict)
            except ValueError:
                noticed[strict] += 1
    assert noticed[True] >= least > noticed[False]


@pytest.mark.data
def test_the_public_clips_have_the_frames_that_their_table_counts(medssl_data):
    import csv

    root = medssl_data / "video" / "lung_ultrasound"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    with (root / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::7]
    for row in rows:
        path = root / row["file"]
        pictures = list(Contained(lambda path=path: path.open("rb")))
        assert len(pictures) == int(row["frames"]), row["file"]
        assert (pictures[0].frame.height, pictures[0].frame.width) == (int(row["h"]), int(row["w"]))
        rate = (len(pictures) - 1) / pictures[-1].time
        assert abs(rate / float(row["fps"]) - 1) < 1e-3, row["file"]
