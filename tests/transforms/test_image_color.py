"""What happens to values: against Pillow, colorsys and formulas written out, at two sizes."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from src.config.transforms import ColorJitterConfig, GrayscaleConfig, ImageBlurConfig, SolarizeConfig
from src.transforms.image_color import (
    blur,
    brighten,
    color_jitter,
    grayscale,
    kernel_width,
    luma,
    normalized,
    saturate,
    smooth,
    solarize,
    stretch_contrast,
    turn_hue,
    unit_interval,
)
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES, picture

FACTORS = (0.0, 0.4, 1.0, 1.7)


def values(side: int, channels: int = 3) -> np.ndarray:
    return unit_interval([picture(side, side, channels)], 2, channels)[0]


@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (brighten, ImageEnhance.Brightness),
        (stretch_contrast, ImageEnhance.Contrast),
        (saturate, ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows(ours, theirs, factor: float, side: int) -> None:
    wanted = np.asarray(theirs(Image.fromarray(picture(side, side))).enhance(factor)).astype(float)
    got = values(side)
    ours(got, factor)
    assert np.abs(255 * got - wanted).max() <= 2.1, "Pillow rounds its gray values and its result"


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_turning_the_hue_turns_the_hue_and_keeps_saturation_and_value(turn: float) -> None:
    before, after = values(32), values(32)
    turn_hue(after, turn)
    for was, now in zip(before.reshape(-1, 3)[::17].tolist(), after.reshape(-1, 3)[::17].tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*was)
        np.testing.assert_allclose(now, colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value), atol=2e-3)
    np.testing.assert_allclose(after.max(-1), before.max(-1), atol=1e-6)


@pytest.mark.parametrize("side", SIZES)
def test_gray_pictures_have_no_colour_to_change(side: int) -> None:
    gray = np.repeat(values(side, 1), 3, axis=-1)
    for change, factor in ((saturate, 1.8), (turn_hue, 0.3)):
        got = gray.copy()
        change(got, factor)
        np.testing.assert_allclose(got, gray, atol=1e-6)


def test_luma_is_bt601_of_images_and_of_clips() -> None:
    whole = np.random.default_rng(0).random((4, 5, 6, 3), np.float32)
    np.testing.assert_allclose(luma(whole), whole @ np.array([0.299, 0.587, 0.114]), atol=1e-6)
    np.testing.assert_array_equal(luma(whole[..., :1]), whole[..., 0])


def test_jitter_factors_are_uniform_between_their_bounds_and_never_negative() -> None:
    """Read off a gray value: brightness alone multiplies it."""
    batch = np.full((3000, 2, 2, 3), 0.25, np.float32)
    color_jitter(batch, ColorJitterConfig(probability=1.0, contrast=0.0, saturation=0.0, hue=0.0), streams_of(3000))
    factor_B = batch[:, 0, 0, 0] / 0.25
    assert stats.kstest(factor_B, stats.uniform(0.2, 1.6).cdf).pvalue > 1e-3
    batch[:] = 0.25
    strong = ColorJitterConfig(probability=1.0, strength=2.0, contrast=0.0, saturation=0.0, hue=0.0)
    color_jitter(batch, strong, streams_of(3000))
    factor_B = batch[:, 0, 0, 0] / 0.25
    assert stats.binomtest(int((factor_B == 0).sum()), 3000, 0.6 / 3.2).pvalue > 1e-3, "1 - 1.6 is cut off at 0"


def test_a_factor_is_never_negative() -> None:
    """Contrast in 1 +- 1.6: where it would turn bright to dark, nothing is left of the picture."""
    start = values(8)
    batch = np.tile(start, (2000, 1, 1, 1))
    config = ColorJitterConfig(probability=1.0, strength=2.0, brightness=0.0, saturation=0.0, hue=0.0)
    color_jitter(batch, config, streams_of(2000))
    spread_B = ((batch - batch.mean((1, 2, 3), keepdims=True)) * (start - start.mean())).mean((1, 2, 3))
    assert spread_B.min() > -1e-6
    assert stats.binomtest(int((batch.std((1, 2, 3)) < 1e-6).sum()), 2000, 0.6 / 3.2).pvalue > 1e-3


def test_hue_is_uniform_on_both_sides() -> None:
    batch = np.tile(np.array([0.8, 0.2, 0.2], np.float32), (2000, 2, 2, 1))
    config = ColorJitterConfig(probability=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.2)
    color_jitter(batch, config, streams_of(2000))
    hue_B = np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in batch[:, 0, 0].astype(float)])
    hue_B = np.where(hue_B > 0.5, hue_B - 1, hue_B)
    assert stats.kstest(hue_B, stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3


def test_the_order_of_the_jitters_is_one_of_24_each_as_likely() -> None:
    """The steps written out in each order; which order fits tells which was taken."""
    samples, config = 600, ColorJitterConfig(probability=1.0)
    start = values(4)
    batch = np.tile(start, (samples, 1, 1, 1))
    color_jitter(batch, config, streams_of(samples))
    streams, steps = streams_of(samples), (brighten, stretch_contrast, saturate, turn_hue)
    names = ("brightness", "contrast", "saturation", "hue")
    spans = dict(zip(names, (0.8, 0.8, 0.8, 0.2), strict=True))
    drawn = {name: spans[name] * (2 * streams.uniform(f"color_jitter.{name}") - 1) for name in names}
    orders = list(itertools.permutations(range(4)))
    taken = np.zeros(24)
    for row in range(samples):
        amounts = [1 + drawn[name][row] for name in names[:3]] + [drawn["hue"][row]]
        fits = []
        for number, order in enumerate(orders):
            tried = start.copy()
            for which in order:
                steps[which](tried, float(amounts[which]))
            fits += [number] if np.array_equal(tried, batch[row]) else []
        assert fits
        taken[fits] += 1 / len(fits)
    assert (taken > 0).all() and stats.chisquare(taken).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0])
def test_blur_is_a_gaussian_and_keeps_a_constant(side: int, sigma: float, channels: int) -> None:
    image = values(side, channels)
    wanted = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="mirror", radius=(9, 9, 0))
    smooth(image, sigma, 19)
    np.testing.assert_allclose(image, wanted, atol=2e-6)
    flat = np.full((side, side, channels), 0.7, np.float32)
    smooth(flat, sigma, 19)
    np.testing.assert_allclose(flat, 0.7, atol=1e-6)


@pytest.mark.parametrize(("side", "width"), [(224, 23), (32, 3), (96, 9), (28, 3), (9, 1)])
def test_the_kernel_is_a_tenth_of_the_side_in_odd_pixels(side: int, width: int) -> None:
    assert kernel_width(0.1, side) == width


@pytest.mark.parametrize("side", [224, 448])
def test_blur_has_the_standard_deviation_in_pixels(side: int) -> None:
    """A point becomes a bell: its second moment is sigma squared."""
    batch = np.zeros((20, side, side, 1), np.float32)
    batch[:, side // 2, side // 2] = 1.0
    config = ImageBlurConfig(probability=1.0, sigma=(0.8, 2.0))
    blur(batch, config, streams_of(20))
    sigma_B = 0.8 + 1.2 * streams_of(20).uniform("blur.sigma")
    place = np.arange(side) - side // 2
    for image, sigma in zip(batch[..., 0], sigma_B, strict=True):
        assert image.sum() == pytest.approx(1.0, abs=1e-5)
        assert np.sqrt(image.sum(0) @ place**2) == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_solarizing_turns_over_what_is_bright(threshold: float) -> None:
    image = values(32)[None]
    got = image.copy()
    solarize(got, SolarizeConfig(probability=1.0, threshold=threshold), streams_of(1))
    np.testing.assert_array_equal(got[image < threshold], image[image < threshold])
    np.testing.assert_allclose(got[image >= threshold], 1 - image[image >= threshold])


def test_grayscale_gives_every_channel_the_luma() -> None:
    image = values(32)[None]
    got = image.copy()
    grayscale(got, GrayscaleConfig(probability=1.0), streams_of(1))
    for channel in range(3):
        np.testing.assert_array_equal(got[..., channel], luma(image))


def test_normalizing_takes_each_channels_own_numbers() -> None:
    batch = np.random.default_rng(0).random((2, 3, 4, 5, 3), np.float32)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    wanted = np.moveaxis((batch.astype(float) - mean) / std, -1, 1)
    got = normalized(batch.copy(), tuple(mean), tuple(std))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert got.flags.c_contiguous and got.dtype == np.float32
