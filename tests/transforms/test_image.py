"""What holds for every augmentation of an image, whatever it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from src.config.load import load_transform
from src.config.transforms import ImageTransformConfig
from src.transforms.image import ImageTransform
from src.transforms.views import views
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES, image_samples, picture

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transforms"
AUGMENTATIONS = (
    "resized_crop",
    "flip_horizontal",
    "flip_vertical",
    "color_jitter",
    "grayscale",
    "blur",
    "solarize",
)
CERTAIN = {name: {"probability": 1.0} for name in AUGMENTATIONS}
RAW = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def transform_of(**sections: Any) -> ImageTransform:
    return ImageTransform(ImageTransformConfig.model_validate({"modality": "image", **sections}))


def test_the_published_lists_are_there_and_off() -> None:
    config = ImageTransformConfig(modality="image")
    found = [name for name, value in config if "probability" in getattr(type(value), "model_fields", {})]
    assert tuple(found) == AUGMENTATIONS
    assert all(getattr(config, name).probability == 0 for name in AUGMENTATIONS)


def test_the_shipped_files_are_the_published_settings() -> None:
    ijepa = load_transform(CONFIGS / "image_ijepa.yaml", [])
    simclr = load_transform(CONFIGS / "image_simclr.yaml", [])
    assert isinstance(ijepa, ImageTransformConfig) and isinstance(simclr, ImageTransformConfig)
    on = [name for name in AUGMENTATIONS if getattr(ijepa, name).probability]
    assert on == ["resized_crop"] and ijepa.resized_crop.scale == (0.3, 1.0)
    assert (ijepa.resized_crop.ratio, ijepa.size) == ((3 / 4, 4 / 3), 224)
    probabilities = {name: getattr(simclr, name).probability for name in AUGMENTATIONS}
    assert probabilities == {
        **dict.fromkeys(AUGMENTATIONS, 0.0),
        "resized_crop": 1.0,
        "color_jitter": 0.8,
        "grayscale": 0.2,
        "blur": 0.5,
    }
    jitter = simclr.color_jitter
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.8, 0.8, 0.8, 0.2)
    assert (simclr.resized_crop.scale, simclr.blur.sigma, simclr.blur.kernel) == ((0.08, 1.0), (0.1, 2.0), 0.1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_sample_does_not_depend_on_its_batch(name: str, side: int, channels: int) -> None:
    settings: dict[str, Any] = CERTAIN if name == "all" else {name: {"probability": 0.7}}
    if channels == 1:
        settings = {key: value for key, value in settings.items() if key != "grayscale"}
        settings |= {"mean": (0.5,), "std": (0.3,)}
        if "color_jitter" in settings:
            settings["color_jitter"] = {**settings["color_jitter"], "saturation": 0.0, "hue": 0.0}
    samples = image_samples(8)
    before = [sample["image"].copy() for sample in samples]
    run = transform_of(size=side, channels=channels, **settings)
    whole = run(samples, streams_of(8))
    assert whole.dtype == np.float32 and whole.shape == (8, channels, side, side) and whole.flags.c_contiguous
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(run(samples, streams_of(8)), whole)
    for row in range(8):
        np.testing.assert_array_equal(run(samples[row : row + 1], streams_of(1, first=row))[0], whole[row])
    np.testing.assert_array_equal(run(samples[::-1], streams_of(8)[::-1])[::-1], whole)
    for sample, image in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample["image"], image)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "none"])
def test_an_image_of_16_bits_is_one_of_8_with_finer_steps(name: str) -> None:
    """v * 257 is the same share of 65535 as v is of 255; the two are averaged and interpolated to other roundings."""
    coarse = [{"key": "k", "image": picture(50, 60, channels)} for channels in (3, 1)]
    fine = [{"key": "k", "image": sample["image"].astype(np.uint16) * 257} for sample in coarse]
    run = transform_of(size=32, **RAW, **{key: value for key, value in CERTAIN.items() if key == name != "solarize"})
    assert np.abs(run(coarse, streams_of(2)) - run(fine, streams_of(2))).max() < 0.05
    assert np.abs(run.plain(coarse) - run.plain(fine)).max() < 0.01


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_probability_0_hits_none_and_1_all_and_between_its_share(name: str) -> None:
    samples = [{"key": "k", "image": picture(24, 16)}] * 1000
    strength = {"resized_crop": {"scale": (0.2, 0.5)}, "blur": {"sigma": (1.0, 2.0), "kernel": 0.3}}.get(name, {})
    plain = transform_of(size=16, **RAW).plain(samples[:1])[0]

    def changed(probability: float) -> int:
        run = transform_of(size=16, **RAW, **{name: {"probability": probability, **strength}})
        return int((run(samples, streams_of(1000)) != plain).any((1, 2, 3)).sum())

    assert changed(0.0) == 0 and changed(1.0) == 1000
    assert stats.binomtest(changed(0.3), 1000, 0.3).pvalue > 1e-3


def test_which_samples_are_hit_by_one_says_nothing_of_another() -> None:
    streams = streams_of(4000).fork("image")
    hits = np.stack([streams.uniform(f"{name}.hit") for name in AUGMENTATIONS])
    assert np.abs(np.corrcoef(hits)[~np.eye(len(hits), dtype=bool)]).max() < 4.5 / np.sqrt(4000)


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_a_flip_is_a_mirror_of_the_named_axis(name: str, axis: int) -> None:
    samples = image_samples(3)
    plain, got = (
        transform_of(size=32, **{name: {"probability": probability}})(samples, streams_of(3)) for probability in (0, 1)
    )
    np.testing.assert_array_equal(got, np.flip(plain, axis + 1))


def test_without_a_draw_training_sees_what_evaluation_sees() -> None:
    samples = image_samples(4)
    run = transform_of(size=32, shorter_side=40)
    np.testing.assert_array_equal(run(samples, streams_of(4)), run.plain(samples))
    np.testing.assert_array_equal(transform_of(size=32, shorter_side=40, **CERTAIN).plain(samples), run.plain(samples))


def test_a_gray_image_is_the_same_in_one_channel_and_in_three() -> None:
    samples = image_samples(3, channels=(1,))
    one = transform_of(size=32, channels=1, mean=(0.5,), std=(0.25,)).plain(samples)
    three = transform_of(size=32, mean=(0.5,) * 3, std=(0.25,) * 3).plain(samples)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=1))


def test_values_are_those_of_the_picture_less_the_mean_over_the_std() -> None:
    image = picture(32, 32)
    got = transform_of(size=32).plain([{"key": "k", "image": image}])[0]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(got, ((image / 255 - mean) / std).transpose(2, 0, 1), atol=1e-5)


def test_views_differ_and_do_not_depend_on_how_many_there_are() -> None:
    samples, run = image_samples(4), transform_of(size=32, **CERTAIN)
    two, three = views([run] * 2, samples, streams_of(4)), views([run] * 3, samples, streams_of(4))
    assert all((one != other).any((1, 2, 3)).all() for one, other in [(two[0], two[1]), (three[1], three[2])])
    for ours, theirs in zip(two, three, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    plain = transform_of(size=32)
    np.testing.assert_array_equal(views([plain, run], samples, streams_of(4))[1], two[1])


def test_real_chest_x_rays_keep_their_values(medssl_data: Path) -> None:
    """The middle of a 28 x 28 image at size 28 is the image; a crop shows nothing brighter than it, but for bicubic."""
    path = medssl_data / "image" / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    images = np.load(path, allow_pickle=False)["train_images"][:64]
    samples = [{"key": str(number), "image": image} for number, image in enumerate(images)]
    run = transform_of(size=28, channels=1, mean=(0.0,), std=(1.0,), resized_crop={"probability": 1.0})
    np.testing.assert_allclose(run.plain(samples)[:, 0], images / np.float32(255), atol=1e-6)
    got = run(samples, streams_of(64))
    assert (np.abs(got.mean((1, 2, 3)) - images.mean((1, 2)) / 255) < 0.25).all()
    assert got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((4, 4), np.float32), "sample k: its image is float32 of shape"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\): give uint8 or uint16, \[H, W\] or \[H, W, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), "give uint8"),
        (np.zeros((0, 4), np.uint8), "without a pixel"),
    ],
)
def test_another_kind_of_image_is_refused_by_its_sample(image: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        transform_of(size=8)([{"key": "k", "image": image}], streams_of(1))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_images_of_a_few_pixels_are_no_trouble(side: int) -> None:
    samples = [{"key": "k", "image": picture(height, 3)} for height in (1, 2, 3)]
    strongest = {**CERTAIN, "blur": {"probability": 1.0, "sigma": (100.0, 100.0), "kernel": 1.0}}
    assert np.isfinite(transform_of(size=side, **strongest)(samples, streams_of(3))).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *[({name: {"probability": value}}, rf"{name}\.probability") for name in AUGMENTATIONS for value in (-0.1, 1.1)],
        ({"size": 0}, "size"),
        ({"resized_crop": {"scale": (0.5, 0.3)}}, r"resized_crop\.scale"),
        ({"resized_crop": {"scale": (0.0, 0.3)}}, r"resized_crop\.scale"),
        ({"resized_crop": {"ratio": (2.0, 1.0)}}, r"resized_crop\.ratio"),
        ({"color_jitter": {"hue": 0.6}}, r"color_jitter\.hue"),
        ({"color_jitter": {"strength": 3.0}}, "strength times hue"),
        ({"blur": {"sigma": (2.0, 1.0)}}, r"blur\.sigma"),
        ({"blur": {"kernel": 1.1}}, r"blur\.kernel"),
        ({"solarize": {"threshold": 1.1}}, r"solarize\.threshold"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"mean": (0.5,)}, "mean has 1 numbers and std 3: with channels = 3"),
        ({"shorter_side": 10, "size": 16}, "shorter_side is 10, less than size = 16"),
    ],
)
def test_a_strength_that_makes_no_sense_is_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ImageTransformConfig.model_validate({"modality": "image", **settings})


@pytest.mark.parametrize("key", ["grayscale.probability", "color_jitter.saturation", "color_jitter.hue"])
def test_colours_of_one_channel_are_refused(key: str) -> None:
    one = {"modality": "image", "channels": 1, "mean": (0.5,), "std": (0.2,)}
    gray = {"probability": 0.5, "saturation": 0.0, "hue": 0.0}
    ImageTransformConfig.model_validate({**one, "color_jitter": gray})
    section, name = key.split(".")
    with pytest.raises(ValidationError, match=f"{key} changes nothing where channels is 1"):
        ImageTransformConfig.model_validate({**one, section: {**({} if section == "grayscale" else gray), name: 0.3}})


def test_what_opencv_refuses_is_told_by_its_sample() -> None:
    """More columns than it counts; nothing is ever written there, so that they take no memory."""
    with pytest.raises(ValueError, match=r"sample k: OpenCV refuses its image of shape \(2, 2147483648\)"):
        transform_of(size=1, channels=1, mean=(0.5,), std=(0.2,)).plain(
            [{"key": "k", "image": np.zeros((2, 1 << 31), np.uint8)}]
        )
