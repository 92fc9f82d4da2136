"""The decoders that are compared give the same frames, and the table says which took less."""

import re
from pathlib import Path

import numpy as np
import pytest

from src.data.builders.video_encode import encode
from src.data.builders.video_format import Encoding
from src.data.builders.video_read import Reading
from src.data.video import Video
from tests.data import videos
from tools.benchmark import main
from tools.benchmark_decoders import CODECS, JUMP, PATTERNS, WAYS, _cell, _differing, by_opencv


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = videos.write(tmp_path_factory.mktemp("video") / "a.mp4", videos.frames_of(frames=70))
    return Video(*encode(Reading().pictures(path), Encoding()))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_way_gives_the_frames_that_it_is_asked_for(video, pattern):
    numbers = list(PATTERNS[pattern](70))
    assert numbers == sorted(set(numbers)) and numbers[0] >= 0 and numbers[-1] < 70
    assert len(numbers) == (70 if pattern == "all" else int(re.match(r"\d+", pattern)[0]))
    for way in WAYS.values():
        assert np.array_equal(way(video, numbers), videos.by_opencv(video.data)[numbers])


def test_opencv_has_one_thread_as_long_as_it_reads(video, monkeypatch):
    import cv2

    most, before = [], len(list(Path("/proc/self/task").iterdir()))
    convert = cv2.cvtColor

    def counting(*arguments, **settings):
        most.append(len(list(Path("/proc/self/task").iterdir())))
        return convert(*arguments, **settings)

    monkeypatch.setattr(cv2, "cvtColor", counting)
    by_opencv(video, range(70))
    assert max(most) == before


def test_a_frame_that_opencv_does_not_find_is_named(video):
    with pytest.raises(ValueError, match="no frame 99"):
        by_opencv(video, [3, 99])


def test_opencv_seeks_to_other_frames_where_times_are_uneven(tmp_path):
    """33 of 70, which is why no clip is read so."""
    path = videos.write(tmp_path / "a.mp4", videos.frames_of(frames=70), times=np.cumsum(np.arange(70) % 7 + 1) / 100)
    uneven = Video(*encode(Reading().pictures(path), Encoding()))
    every = videos.by_opencv(uneven.data)
    assert sum(not np.array_equal(by_opencv(uneven, [number], JUMP)[0], every[number]) for number in range(70)) > 10
    assert all(np.array_equal(uneven.frames([number])[0], every[number]) for number in range(70))


def test_other_bytes_are_told(video, monkeypatch):
    assert _differing([video], "OpenCV") == f"0 of {len(PATTERNS)}"
    monkeypatch.setitem(WAYS, "OpenCV", lambda video, numbers: video.frames(numbers) ^ (3 if len(numbers) == 70 else 0))
    assert _differing([video], "OpenCV") == f"1 of {len(PATTERNS)}, by 3 at most"


def test_a_way_is_bold_where_its_slowest_round_is_faster_than_all_others():
    first, second, third = WAYS
    times = {("all", first): [1.0, 3.0, 2.0], ("all", second): [3.5, 40.0], ("all", third): [50.0, 3.0]}
    assert _cell(times, "all", first) == "2.0 (1.0-3.0)"
    times["all", third] = [3.1, 50.0]
    assert _cell(times, "all", first) == "**2.0** (1.0-3.0)" and _cell(times, "all", second) == "22 (3.5-40)"


@pytest.mark.data
def test_decoders_prints_each_way_for_each_codec(medssl_data, tmp_path, capsys):
    codecs = ["as they came", "mjpeg"]
    command = ["decoders", "--clips", "1", "--rounds", "1", "--codecs", *codecs, "--output", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    cell = r" (?:\*\*)?([\d.]+)(?:\*\*)? \(([\d.]+)-([\d.]+)\) \|"
    row = rf"^\| ([\w ]+) \| ([\w, ]+) \|{cell * len(PATTERNS)} 0 of {len(PATTERNS)} \|$"
    rows = re.findall(row, out, re.MULTILINE)
    assert [found[:2] for found in rows] == [(codec, way) for codec in codecs for way in WAYS]
    for found in rows:
        for middle, low, high in zip(found[2::3], found[3::3], found[4::3], strict=True):
            assert 0 < float(low) <= float(middle) <= float(high)
    assert re.search(r"^Clips of each codec: 1, of (\d+) to \1 frames", out, re.MULTILINE) and not list(
        tmp_path.iterdir()
    )


def test_without_the_public_records_it_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDSSL_DATA", str(tmp_path))
    assert main(["decoders", "--codecs", next(iter(CODECS))]) == 1
    told = capsys.readouterr().err
    assert "MEDSSL_DATA" in told and told.count("\n") == 1
