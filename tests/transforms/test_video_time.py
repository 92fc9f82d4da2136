"""Which frames a clip has: every start as likely, never beyond the end, seconds that are seconds at every rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from src.config.transforms import ClipConfig
from src.transforms.video_time import clip_indices, clip_streams, read_clips
from tests.transforms.batches import streams_of


def indices(counts: list[int], rates: list[float] | float = 25.0, **settings: Any) -> np.ndarray:
    rates_B = np.broadcast_to(np.array(rates, float), (len(counts),))
    names = [f"v{number}" for number in range(len(counts))]
    return clip_indices(np.array(counts), rates_B, ClipConfig(**settings), streams_of(len(counts)), names)


class Frames:
    """A video whose frame n is filled with n; it notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def frames(self, indices: list[int]) -> np.ndarray:
        self.asked.append(indices)
        return np.tile(np.array(indices, np.uint8)[:, None, None], (1, 2, 3))


@pytest.mark.parametrize(("frames", "stride", "count"), [(4, 1, 12), (4, 3, 19), (1, 1, 7), (5, 1, 6), (16, 2, 40)])
def test_each_start_is_as_likely_and_the_last_one_comes(frames: int, stride: int, count: int) -> None:
    starts = count - (frames - 1) * stride
    found = indices([count] * 4000, frames=frames, stride=stride)[:, 0]
    assert (np.diff(found, axis=1) == stride).all()
    counts = np.bincount(found[:, 0], minlength=starts)
    assert len(counts) == starts and counts.min() > 0 and stats.chisquare(counts).pvalue > 1e-3
    assert found.max() == count - 1 and found.min() == 0


def test_a_video_of_exactly_a_clip_has_one_start() -> None:
    np.testing.assert_array_equal(indices([7], frames=4, stride=2)[0, 0], [0, 2, 4, 6])
    np.testing.assert_array_equal(indices([7], frames=4, stride=2, short="refuse")[0, 0], [0, 2, 4, 6])


@pytest.mark.parametrize("where", ["random", "uniform", "center"])
@pytest.mark.parametrize("short", ["repeat", "loop"])
def test_no_index_is_beyond_the_end(where: str, short: str) -> None:
    for settings in ({"stride": 1}, {"stride": 5}, {"rate": 7.3}, {"rate": 100.0}):
        counts = list(range(1, 60))
        found = indices(counts, 23.976, frames=9, where=where, short=short, clips=1, **settings)
        assert found.min() >= 0 and (found.max((1, 2)) < np.array(counts)).all()


@pytest.mark.parametrize(
    ("short", "wanted"),
    [("repeat", [0, 2, 4, 4, 4, 4]), ("loop", [0, 2, 4, 1, 3, 0])],
)
def test_a_short_video_is_filled_up_as_stated(short: str, wanted: list[int]) -> None:
    np.testing.assert_array_equal(indices([5], frames=6, stride=2, short=short)[0, 0], wanted)


def test_a_short_video_is_refused_by_name_if_asked() -> None:
    with pytest.raises(ValueError, match=r"sample v1 has 10 frames, but a clip takes 11: lower clip\.frames"):
        indices([11, 10, 30], frames=6, stride=2, short="refuse")


@pytest.mark.parametrize("rates", [(19.1, 29.97), (10.0, 50.0)])
def test_a_rate_takes_seconds_where_videos_have_other_rates(rates: tuple[float, float]) -> None:
    """Each frame is the one nearest to its time: at most half a frame of the video away."""
    found = indices([400] * 300, [rates[n % 2] for n in range(300)], frames=16, rate=8.0)[:, 0]
    for number, rate in enumerate(rates):
        seconds = (found[number::2] - found[number::2, :1]) / rate
        assert np.abs(seconds - np.arange(16) / 8.0).max() <= 0.5 / rate + 1e-9


def test_a_video_that_is_slower_than_the_rate_has_frames_twice() -> None:
    np.testing.assert_array_equal(indices([9], 5.0, frames=6, rate=10.0, where="center")[0, 0] - 2, [0, 1, 1, 2, 2, 3])


def test_uniform_clips_run_from_the_first_frame_to_the_last() -> None:
    found = indices([101], frames=11, where="uniform", clips=4)[0]
    np.testing.assert_array_equal(found[:, 0], [0, 30, 60, 90])
    assert found.min() == 0 and found.max() == 100
    np.testing.assert_array_equal(indices([101], frames=11, where="uniform")[0, 0, :2], [45, 46])
    np.testing.assert_array_equal(indices([101], frames=11, where="center"), indices([101], frames=11, where="uniform"))


def test_clips_of_a_video_are_drawn_apart_and_do_not_depend_on_the_others() -> None:
    many = indices([200] * 500, frames=4, clips=3)
    starts = many[:, :, 0].astype(float)
    assert np.abs(np.corrcoef(starts.T)[~np.eye(3, dtype=bool)]).max() < 0.2
    np.testing.assert_array_equal(indices([200] * 20, frames=4, clips=3), many[:20])


def test_only_frames_that_are_needed_are_decoded_and_each_once() -> None:
    videos = [Frames(), Frames()]
    config = ClipConfig(frames=4, stride=3, where="uniform", clips=3)
    clips = read_clips(videos, np.array([30, 3]), np.full(2, 25.0), config, streams_of(2), ["a", "b"])
    wanted = indices([30, 3], frames=4, stride=3, where="uniform", clips=3)
    assert [clip.shape for clip in clips] == [(4, 2, 3)] * 6
    np.testing.assert_array_equal([clip[:, 0, 0] for clip in clips], wanted.reshape(6, 4))
    for video, needed in zip(videos, wanted, strict=True):
        assert video.asked == [sorted(set(needed.reshape(-1).tolist()))]


def test_the_streams_of_clips_are_apart_and_in_the_order_of_the_clips() -> None:
    streams = clip_streams(streams_of(50), 3)
    drawn = streams.uniform("x").reshape(50, 3)
    assert len(np.unique(drawn)) == 150
    np.testing.assert_array_equal(clip_streams(streams_of(50), 2).uniform("x").reshape(50, 2), drawn[:, :2])


@pytest.mark.parametrize(
    ("counts", "rates", "settings", "told"),
    [
        ([5, 0], 25.0, {}, "sample v1 has no frames"),
        ([5], 0.0, {"rate": 5.0}, r"sample v0 has a rate of 0\.0 frames a second: set clip\.stride"),
        ([5], float("nan"), {"rate": 5.0}, "sample v0 has a rate of nan"),
    ],
)
def test_videos_without_frames_or_rate_are_told(counts: list[int], rates: float, settings: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        indices(counts, rates, **settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stride": 2, "rate": 5.0}, "at most one of stride"),
        ({"where": "center", "clips": 2}, "all clips are the same"),
        ({"frames": 0}, "frames"),
        ({"stride": 0}, "stride"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_a_clip_that_makes_no_sense_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ClipConfig(**settings)


def test_a_real_clip_has_the_frames_that_a_reader_gives_one_after_the_other(medssl_data: Path) -> None:
    path = medssl_data / "video" / "lung_ultrasound" / "cc_by" / "Reg_Image_18122_crop.mp4"
    if not path.exists():
        pytest.skip(f"no {path}")
    reader, decoded = cv2.VideoCapture(str(path)), []
    while (read := reader.read())[0]:
        decoded.append(read[1])

    class Read:
        def frames(self, indices: list[int]) -> np.ndarray:
            return np.stack([decoded[index] for index in indices])

    count, rate = len(decoded), reader.get(cv2.CAP_PROP_FPS)
    assert count == 187 and rate == pytest.approx(19.1, abs=0.1)
    config = ClipConfig(frames=8, rate=4.0, where="uniform", clips=2)
    first, last = read_clips([Read()], np.array([count]), np.array([rate]), config, streams_of(1), ["v"])
    np.testing.assert_array_equal(first, [decoded[index] for index in (0, 5, 10, 14, 19, 24, 29, 33)])
    np.testing.assert_array_equal(last[-1], decoded[186])
