"""Videos out of shards: the frames are the video's own, a study's videos stand in its order, what lacks is told."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.config.transforms import VideoTransformConfig
from src.data.batches.video import VideoBatch
from src.data.builders.video_encode import encode
from src.data.builders.video_format import Encoding
from src.data.builders.video_read import Reading
from src.data.video import Video
from src.transforms.video import VideoTransform
from src.transforms.video_time import clip_streams, read_clips
from tests.data import videos
from tests.transforms.batches import streams_of

FRAMES = 4


def config_of(**sections):
    return VideoTransformConfig.model_validate(
        {"modality": "video", "size": 16, "clip": {"frames": FRAMES}, "resized_crop": {"probability": 1.0}, **sections},
        strict=False,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Five videos of 12, 13, ... frames, H.264, as build_shards writes them."""
    folder, found = tmp_path_factory.mktemp("videos"), []
    for number in range(5):
        path = videos.write(folder / f"{number}.mp4", videos.frames_of(number, frames=12 + number))
        found.append(Video(*encode(Reading().pictures(path), Encoding())))
    return found


def samples_of(study, *counts):
    return [{"key": f"s{n}", "videos": tuple(study[:count]), "text": "t"} for n, count in enumerate(counts)]


def run(config, samples, streams=None):
    """As the loader does it."""
    batch, streams = VideoBatch(config), streams_of(len(samples)) if streams is None else streams
    prepared = [batch.prepare(sample, streams[row : row + 1]) for row, sample in enumerate(samples)]
    return batch(0, prepared, streams)


def by_hand(config, video, streams, key):
    """The clips of one video through the plain functions."""
    count, rate = np.array([video.told["frames"]]), np.array([video.told["rate"]])
    clips = read_clips([video], count, rate, config.clip, streams, [key])
    numbered = [{"key": key, "video": clip} for clip in clips]
    return VideoTransform(config)(numbered, clip_streams(streams, config.clip.clips))


def test_a_clip_of_each_sample(study):
    config, samples = config_of(), samples_of(study, 1, 1, 1)
    batch = run(config, samples)
    assert batch.keys() == {"video"} and batch["video"].shape == (3, 3, FRAMES, 16, 16)
    for row, sample in enumerate(samples):
        own = streams_of(1, row).fork("transform").fork("video.0")
        assert np.array_equal(batch["video"][row], by_hand(config, sample["videos"][0], own, sample["key"])[0])


def test_a_study_in_its_order_and_zeros_where_it_has_less(study):
    config, samples = config_of(videos=3, clip={"frames": FRAMES, "clips": 2}), samples_of(study, 1, 3, 5)
    batch = run(config, samples)
    assert batch["video"].shape == (3, 6, 3, FRAMES, 16, 16)
    assert batch["keep"].tolist() == [[True] * 2 + [False] * 4, [True] * 6, [True] * 6]
    assert not batch["video"][0, 2:].any()
    for number, video in enumerate(study[:3]):
        own = streams_of(1, 1).fork("transform").fork(f"video.{number}")
        assert np.array_equal(batch["video"][1, 2 * number : 2 * number + 2], by_hand(config, video, own, "s1"))


@pytest.mark.parametrize("seen", [None, 2])
def test_each_video_of_a_large_study_is_as_likely(study, seen):
    batch, sample = VideoBatch(config_of(videos=seen)), samples_of(study, 5)[0]
    drawn = [batch._drawn(len(sample["videos"]), streams_of(1, n)) for n in range(2000)]
    assert all(numbers == sorted(set(numbers)) and len(numbers) == (seen or 1) for numbers in drawn)
    counts = np.bincount([number for numbers in drawn for number in numbers], minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_sample_does_not_depend_on_its_batch(study):
    config, samples = config_of(videos=2), samples_of(study, 5, 2, 1)
    whole = run(config, samples)
    for row, sample in enumerate(samples):
        alone = run(config, [sample], streams_of(1, row))
        assert torch.equal(alone["video"][0], whole["video"][row])


def test_tars_of_others_tell_nothing_of_their_videos(study):
    silent = [Video(video.data, {}) for video in study]
    assert torch.equal(
        run(config_of(), samples_of(silent, 1))["video"], run(config_of(), samples_of(study, 1))["video"]
    )


def test_a_damaged_video_is_the_samples_fault_and_a_short_one_the_configs(study):
    batch = VideoBatch(config_of(clip={"frames": 20, "short": "refuse"}))
    (sound,) = samples_of(study, 1)
    broken = {**sound, "videos": (Video(study[0].data[:-900], {}),)}
    with pytest.raises(ValueError, match="can't be read as a video"):
        batch.prepare(broken, streams_of(1))
    prepared = batch.prepare(sound, streams_of(1))
    with pytest.raises(ValueError, match=r"^sample s0 has 12 frames, but a clip takes 20"):
        batch(0, [prepared], streams_of(1))
