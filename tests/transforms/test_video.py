"""What holds for every augmentation of a clip, whatever it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from src.config.load import load_transform
from src.config.transforms import VideoTransformConfig
from src.transforms.image import ImageTransform
from src.transforms.video import VideoTransform
from src.transforms.video_time import clip_streams
from src.transforms.views import views
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES, clip_samples, picture
from tests.transforms.test_image import transform_of as image_transform_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transforms"
AUGMENTATIONS = (
    "resized_crop",
    "flip_horizontal",
    "flip_vertical",
    "randaugment",
    "gamma",
    "contrast",
    "brightness",
    "blur",
    "speckle",
    "noise",
)
EACH_FRAME = ("speckle", "noise")
CERTAIN = {name: {"probability": 1.0} for name in AUGMENTATIONS}
RAW = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
FIVE = {"clip": {"frames": 5}}


def transform_of(**sections: Any) -> VideoTransform:
    return VideoTransform(VideoTransformConfig.model_validate({"modality": "video", **FIVE, **sections}))


def test_the_list_is_there_and_off() -> None:
    config = VideoTransformConfig(modality="video")
    found = [name for name, value in config if "probability" in getattr(type(value), "model_fields", {})]
    assert tuple(found) == AUGMENTATIONS
    assert all(getattr(config, name).probability == 0 for name in AUGMENTATIONS)


def test_the_published_randaugment_is_the_default_and_the_shipped_one_is_for_gray_ultrasound() -> None:
    published = VideoTransformConfig(modality="video").randaugment
    assert (published.count, published.magnitude, len(published.operations)) == (2, 9.0, 14)
    shipped = load_transform(CONFIGS / "video_randaugment.yaml", [])
    assert isinstance(shipped, VideoTransformConfig) and shipped.channels == 1
    assert set(published.operations) - set(shipped.randaugment.operations) == {
        "solarize",
        "posterize",
        "equalize",
        "color",
    }
    assert shipped.flip_horizontal.probability == shipped.flip_vertical.probability == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_clip_does_not_depend_on_its_batch(name: str, side: int, channels: int) -> None:
    settings: dict[str, Any] = dict(CERTAIN) if name == "all" else {name: {"probability": 0.7}}
    if channels == 1:
        settings |= {"mean": (0.5,), "std": (0.3,)}
        if "randaugment" in settings:
            settings["randaugment"] = {**settings["randaugment"], "operations": ("rotate", "equalize", "sharpness")}
    samples = clip_samples(6)
    before = [sample["video"].copy() for sample in samples]
    run = transform_of(size=side, channels=channels, **settings)
    whole = run(samples, streams_of(6))
    assert whole.dtype == np.float32 and whole.shape == (6, channels, 5, side, side) and whole.flags.c_contiguous
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(run(samples, streams_of(6)), whole)
    for row in range(6):
        np.testing.assert_array_equal(run(samples[row : row + 1], streams_of(1, first=row))[0], whole[row])
    np.testing.assert_array_equal(run(samples[::-1], streams_of(6)[::-1])[::-1], whole)
    for sample, clip in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample["video"], clip)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_still_clip_stays_still_unless_the_noise_is_each_frames_own(name: str) -> None:
    samples = clip_samples(6, still=True)
    settings = {key: value for key, value in CERTAIN.items() if name in (key, "all")}
    got = transform_of(size=32, **settings)(samples, streams_of(6))
    if name in EACH_FRAME or name == "all":
        assert (np.abs(np.diff(got, axis=2)).max((1, 2, 3, 4)) > 0).all()
    else:
        assert (np.diff(got, axis=2) == 0).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_probability_0_hits_none_and_1_all_and_between_its_share(name: str) -> None:
    samples = [{"key": "k", "video": np.stack([picture(20, 12)] * 2)}] * 700
    strength = {
        "resized_crop": {"scale": (0.2, 0.5)},
        "blur": {"sigma": (1.0, 2.0)},
        "randaugment": {"operations": ("solarize",), "count": 1},
    }.get(name, {})
    plain = transform_of(size=12, clip={"frames": 2}, **RAW).plain(samples[:1])[0]

    def changed(probability: float) -> int:
        run = transform_of(size=12, clip={"frames": 2}, **RAW, **{name: {"probability": probability, **strength}})
        return int((run(samples, streams_of(700)) != plain).any((1, 2, 3, 4)).sum())

    assert changed(0.0) == 0 and changed(1.0) == 700
    assert stats.binomtest(changed(0.3), 700, 0.3).pvalue > 1e-3


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 4), ("flip_vertical", 3)])
def test_a_flip_is_a_mirror_of_the_named_axis(name: str, axis: int) -> None:
    samples = clip_samples(3)
    plain, got = (
        transform_of(size=32, **{name: {"probability": share}})(samples, streams_of(3)) for share in (0.0, 1.0)
    )
    np.testing.assert_array_equal(got, np.flip(plain, axis))


@pytest.mark.parametrize("side", SIZES)
def test_a_frame_is_what_an_image_would_be(side: int) -> None:
    samples = clip_samples(4)
    clips = transform_of(size=side, shorter_side=side + 5).plain(samples)
    for frame in (0, 4):
        images = [{"key": sample["key"], "image": sample["video"][frame]} for sample in samples]
        wanted = image_transform_of(size=side, shorter_side=side + 5).plain(images)
        np.testing.assert_array_equal(clips[:, :, frame], wanted)
    assert isinstance(image_transform_of(), ImageTransform)


def test_without_a_draw_training_sees_what_evaluation_sees() -> None:
    samples = clip_samples(4)
    np.testing.assert_array_equal(transform_of(size=32)(samples, streams_of(4)), transform_of(size=32).plain(samples))


def test_several_clips_of_a_video_and_several_views_of_a_clip_are_drawn_apart() -> None:
    samples = [clip_samples(1)[0]] * 3
    run = transform_of(size=32, **CERTAIN)
    got = run(samples, clip_streams(streams_of(1), 3))
    assert (got[0] != got[1]).any() and (got[1] != got[2]).any()
    one, two = views([run, run], samples[:1], streams_of(1))
    assert (one != two).any()


def test_real_ultrasound_comes_out_gray_whatever_is_drawn(medssl_data: Path) -> None:
    """Frames of lung ultrasound are gray in three channels: so are they behind all of it, the noise too."""
    path = medssl_data / "video" / "lung_ultrasound" / "cc_by" / "Reg_Image_18122_crop.mp4"
    if not path.exists():
        pytest.skip(f"no {path}")
    reader = cv2.VideoCapture(str(path))
    clip = np.repeat(np.stack([reader.read()[1][..., 1] for _ in range(5)])[..., None], 3, axis=-1)
    got = transform_of(size=64, **RAW, **CERTAIN)([{"key": "v", "video": clip}] * 8, streams_of(8))
    assert np.abs(got - got[:, :1]).max() < 0.02 and got.std() > 0.05
    plain = transform_of(size=64, **RAW).plain([{"key": "v", "video": clip}])
    assert plain.mean() == pytest.approx(clip.mean() / 255, abs=0.05)


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        (np.zeros((5, 4, 4), np.float32), r"sample k: its video is float32: give uint8"),
        (np.zeros((5, 4, 4, 2), np.uint8), r"give uint8 or uint16, \[T, H, W\] or \[T, H, W, 3\]"),
        (np.zeros((4, 4), np.uint8), "give uint8"),
        (np.zeros((5, 0, 4), np.uint8), "without a pixel"),
        (np.zeros((4, 4, 4), np.uint8), r"its clip has 4 frames, but clip\.frames is 5"),
    ],
)
def test_another_kind_of_clip_is_refused_by_its_sample(clip: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        transform_of(size=8)([{"key": "k", "video": clip}], streams_of(1))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_clips_of_a_few_pixels_are_no_trouble(side: int) -> None:
    samples = [{"key": "k", "video": np.stack([picture(height, 3)])} for height in (1, 2, 3)]
    strongest = {
        **CERTAIN,
        "randaugment": {"probability": 1.0, "count": 14, "magnitude": 10.0},
        "blur": {"probability": 1.0, "sigma": (20.0, 20.0)},
        "speckle": {"probability": 1.0, "std": 1.0, "grain": 20.0},
    }
    got = transform_of(size=side, clip={"frames": 1}, **strongest)(samples, streams_of(3))
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *[({name: {"probability": value}}, rf"{name}\.probability") for name in AUGMENTATIONS for value in (-0.1, 1.1)],
        ({"randaugment": {"magnitude": 11.0}}, r"randaugment\.magnitude"),
        ({"randaugment": {"count": 0}}, r"randaugment\.count"),
        ({"randaugment": {"operations": ()}}, r"randaugment\.operations"),
        ({"randaugment": {"operations": ("cutout",)}}, r"randaugment\.operations"),
        ({"gamma": {"gamma": (2.0, 1.0)}}, r"gamma\.gamma"),
        ({"noise": {"std": -0.1}}, r"noise\.std"),
        ({"speckle": {"grain": 21.0}}, r"speckle\.grain"),
        ({"mean": (0.5,)}, "mean has 1 numbers"),
        ({"channels": 1, "mean": (0.5,), "std": (0.5,), "randaugment": {"probability": 0.5}}, "has color, which"),
    ],
)
def test_a_strength_that_makes_no_sense_is_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        VideoTransformConfig.model_validate({"modality": "video", **settings})
