"""What an encoder is fed in evaluation is what training feeds it when nothing is drawn."""

import json
import math

import numpy as np
import pytest

from src.config.data import DataConfig
from src.data.inputs import open_shards
from src.randomness import Streams
from src.transforms.ct import CTTransform
from src.transforms.image import ImageTransform
from src.transforms.plain import plain_part, read_preprocessing
from src.transforms.preprocessing import Preprocessing
from src.transforms.video import VideoTransform

GRAY = {"size": 24, "channels": 1, "mean": [0.4], "std": [0.2]}
SIDES = {"image": [28, 36], "video": [21, 28, 36], "ct": [20, 30, 24]}
TRANSFORMS = {
    "image": {"modality": "image", **GRAY, "shorter_side": 26},
    "video": {"modality": "video", **GRAY, "clip": {"frames": 4, "stride": 2}},
    "ct": {"modality": "ct", "size": [8, 24, 24], "crop": "center"},
}
KINDS = list(TRANSFORMS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A sample of each modality, and the transform section."""
    found = {}
    for modality in KINDS:
        words = {"root": str(tmp_path_factory.mktemp("made") / modality), "batch_size": 1}
        words |= {"transform": TRANSFORMS[modality], "synthetic": {"samples": 4, "sides": SIDES[modality]}}
        data = DataConfig.model_validate_json(json.dumps(words))
        found[modality] = open_shards(data).read(np.zeros(1, np.int64))[0], data.transform
    return found


@pytest.mark.parametrize("modality", KINDS)
def test_one_window_is_what_training_makes_when_nothing_is_drawn(samples, modality):
    sample, config = samples[modality]
    window = plain_part(config).windows_of(sample, 1)
    nothing = Streams(np.zeros(1, np.uint64))
    if modality == "image":
        wanted = ImageTransform(config)([sample], nothing)
    elif modality == "ct":
        wanted = CTTransform(config)([sample], nothing)
    else:
        clip = sample["videos"][0].frames([7, 9, 11, 13])  # the middle of 21 frames
        wanted = VideoTransform(config)([{"key": "x", "video": clip}], nothing)
    assert np.array_equal(window, wanted)


def test_clips_without_a_count_cover_the_video(samples):
    sample, config = samples["video"]
    preprocessing = plain_part(config)
    found = preprocessing.windows_of(sample, None)
    assert len(found) == math.ceil(21 / 7)
    starts = [0, 7, 14]
    for clip, start in zip(found, starts, strict=True):
        frames = sample["videos"][0].frames([start, start + 2, start + 4, start + 6])
        assert np.array_equal(clip, VideoTransform(config).plain([{"key": "x", "video": frames}])[0])
    assert np.array_equal(preprocessing.windows_of(sample, 1), found[1:2])


def test_parts_without_a_count_cover_the_volume(samples):
    sample, config = samples["ct"]
    parts = plain_part(config).windows_of(sample, None)
    assert parts.shape == (3 * 2 * 1, 2, 8, 24, 24)
    whole = plain_part(config.model_copy(update={"size": (20, 30, 24)})).windows_of(sample, 1)[0]
    seen = np.zeros(whole.shape[1:], np.int64)
    places = [(d, h, 0) for d in (0, 6, 12) for h in (0, 6)]
    for part, (d, h, w) in zip(parts, places, strict=True):
        assert np.array_equal(part, whole[:, d : d + 8, h : h + 24, w : w + 24])
        seen[d : d + 8, h : h + 24, w : w + 24] += 1
    assert seen.min() > 0


@pytest.mark.parametrize("modality", ["image", "ct"])
def test_other_counts_of_windows_are_refused(samples, modality):
    sample, config = samples[modality]
    with pytest.raises(ValueError, match=r"sample synthetic-0000000: .*set windows to 1 or null"):
        plain_part(config).windows_of(sample, 2)


@pytest.mark.parametrize("modality", KINDS)
def test_a_preprocessing_comes_back_from_its_json(samples, modality):
    preprocessing = plain_part(samples[modality][1])
    assert read_preprocessing(preprocessing.model_dump_json()) == preprocessing


def test_a_preprocessing_without_a_modality_is_an_ecgs():
    ecg = Preprocessing(leads=("I",), sampling_rate=100.0, length=10, normalize="none", clip=None)
    told = json.loads(ecg.model_dump_json())
    del told["modality"]
    assert read_preprocessing(json.dumps(told)) == ecg


def test_inputs_of_other_sides(samples):
    image, video, ct = (plain_part(samples[modality][1]) for modality in KINDS)
    assert (image.of_sides((48, 48)).size, image.of_sides((48, 48)).shorter_side) == (48, 52)
    other = video.of_sides((8, 48, 48))
    assert (other.clip.frames, other.clip.stride, other.size) == (8, 2, 48)
    assert ct.of_sides((16, 24, 24)).size == (16, 24, 24)
    with pytest.raises(ValueError, match="24 x 48 is none"):
        image.of_sides((24, 48))
