"""What happens to the values of clips: formulas written out, noise as strong as it says, at two sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from src.config.transforms import (
    BrightnessConfig,
    ContrastConfig,
    GammaConfig,
    SpeckleConfig,
    VideoBlurConfig,
    VideoNoiseConfig,
)
from src.transforms.video_values import (
    add_noise,
    add_speckle,
    blur_frames,
    change_brightness,
    change_contrast,
    change_gamma,
    grains,
)
from tests.transforms.batches import streams_of
from tests.transforms.pictures import SIZES


def gray(batch: int, value: float, side: int = 4, frames: int = 3, channels: int = 1) -> np.ndarray:
    return np.full((batch, frames, side, side, channels), value, np.float32)


def noisy(batch: int, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((batch, 3, side, side, channels), np.float32)


def test_gamma_is_a_power_whose_logarithm_is_uniform() -> None:
    video = gray(2000, 0.5)
    change_gamma(video, GammaConfig(probability=1.0, gamma=(0.5, 2.0)), streams_of(2000))
    gamma_B = np.log(video[:, 0, 0, 0, 0].astype(float)) / np.log(0.5)
    assert stats.kstest(np.log(gamma_B), stats.uniform(np.log(0.5), 2 * np.log(2)).cdf).pvalue > 1e-3
    ends = np.array([0.0, 1.0, 0.25], np.float32).reshape(1, 1, 1, 3, 1)
    change_gamma(ends, GammaConfig(probability=1.0, gamma=(2.0, 2.0)), streams_of(1))
    np.testing.assert_allclose(ends.reshape(-1), [0, 1, 0.0625], atol=1e-7)


def test_brightness_is_a_uniform_factor() -> None:
    video = gray(2000, 0.5)
    change_brightness(video, BrightnessConfig(probability=1.0, strength=0.3), streams_of(2000))
    assert stats.kstest(video[:, 0, 0, 0, 0] / 0.5, stats.uniform(0.7, 0.6).cdf).pvalue > 1e-3


@pytest.mark.parametrize("side", SIZES)
def test_contrast_keeps_the_mean_of_the_clip_and_scales_its_spread(side: int) -> None:
    video = 0.4 + 0.2 * noisy(100, side, 1)
    got = video.copy()
    change_contrast(got, ContrastConfig(probability=1.0, strength=0.5), streams_of(100))
    np.testing.assert_allclose(got.mean((1, 2, 3, 4)), video.mean((1, 2, 3, 4)), atol=1e-6)
    factor_B = got.std((1, 2, 3, 4)) / video.std((1, 2, 3, 4))
    assert stats.kstest(factor_B, stats.uniform(0.5, 1.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIZES)
def test_blur_is_scipys_gaussian_on_each_frame_and_none_across_them(side: int, channels: int) -> None:
    video = noisy(2, side, channels)
    got = video.copy()
    blur_frames(got, VideoBlurConfig(probability=1.0, sigma=(1.5, 1.5)), streams_of(2))
    wanted = ndimage.gaussian_filter(video.astype(float), (0, 0, 1.5, 1.5, 0), mode="mirror", radius=(0, 0, 6, 6, 0))
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    flat = gray(1, 0.3, side)
    blur_frames(flat, VideoBlurConfig(probability=1.0), streams_of(1))
    np.testing.assert_allclose(flat, 0.3, atol=1e-6)


@pytest.mark.parametrize("side", SIZES)
def test_noise_has_its_standard_deviation_and_is_another_in_each_frame(side: int) -> None:
    video = gray(4, 0.5, side, frames=6, channels=3)
    add_noise(video, VideoNoiseConfig(probability=1.0, std=0.04), streams_of(4))
    noise = (video - 0.5).astype(float)
    assert noise.std() == pytest.approx(0.04, rel=0.03) and abs(noise.mean()) < 0.002
    np.testing.assert_array_equal(noise[..., 0], noise[..., 2])
    flat = noise[..., 0].reshape(24, -1)
    assert np.abs(np.corrcoef(flat)[~np.eye(24, dtype=bool)]).max() < 5 / side
    assert stats.kstest(flat[0] / 0.04, stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("grain", [0.0, 0.7, 1.0, 2.5])
@pytest.mark.parametrize("side", SIZES)
def test_grains_have_variance_1_everywhere_and_their_size(side: int, grain: float) -> None:
    """White noise behind a Gaussian of sigma g has a correlation of exp(-d^2 / 4 g^2) at distance d."""
    field = grains(streams_of(1), 400, side, grain).astype(float)
    assert field.shape == (400, side, side)
    assert (field**2).mean() == pytest.approx(1.0, rel=0.03)
    edge = np.concatenate([field[:, 0].reshape(-1), field[:, :, -1].reshape(-1)])
    assert (edge**2).mean() == pytest.approx(1.0, rel=0.08), "the edge is no other place"
    for distance in (1, 2, 3):
        wanted = np.exp(-(distance**2) / (4 * grain**2)) if grain else 0.0
        assert (field[:, distance:] * field[:, :-distance]).mean() == pytest.approx(wanted, abs=0.05)
        assert (field[..., distance:] * field[..., :-distance]).mean() == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("side", SIZES)
def test_speckle_grows_with_the_value_and_leaves_black_black(side: int) -> None:
    levels = np.array([0.0, 0.2, 0.4, 0.6], np.float32)
    video = np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None, None], (4, 8, side, side, 1)))
    add_speckle(video, SpeckleConfig(probability=1.0, std=0.1, grain=1.0), streams_of(4))
    assert (video[0] == 0).all()
    np.testing.assert_allclose(video.std((1, 2, 3, 4), dtype=float), 0.1 * levels, rtol=0.06)
    np.testing.assert_allclose(video.mean((1, 2, 3, 4), dtype=float), levels, rtol=0.02)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_stay_in_their_range(value: float) -> None:
    for add, config in (
        (add_noise, VideoNoiseConfig(probability=1.0, std=1.0)),
        (add_speckle, SpeckleConfig(probability=1.0, std=1.0)),
        (change_brightness, BrightnessConfig(probability=1.0, strength=1.0)),
        (change_contrast, ContrastConfig(probability=1.0, strength=1.0)),
    ):
        video = np.concatenate([gray(2, value), gray(2, 0.9)], axis=1)
        add(video, config, streams_of(2))  # type: ignore[operator]
        assert video.min() >= 0 and video.max() <= 1
