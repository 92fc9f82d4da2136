"""Hounsfield units: noise as strong as it says, air that stays air, windows whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from src.config.transforms import AttenuationConfig, CTNoiseConfig, WindowConfig, WindowJitterConfig
from src.transforms.ct_values import add_noise, change_attenuation, standardize, window_bounds, windowed
from tests.transforms.batches import streams_of

LUNG, SOFT = WindowConfig(center=-600.0, width=1500.0), WindowConfig(center=40.0, width=400.0)
OFF = WindowJitterConfig()


def of_value(batch: int, hu: float, shape: tuple[int, int, int] = (2, 2, 2)) -> np.ndarray:
    return np.full((batch, 1, *shape), hu, np.float32)


@pytest.mark.parametrize(
    ("hu", "lung", "soft"),
    [
        (-1350, 0.0, 0.0),
        (-2000, 0.0, 0.0),
        (-600, 0.5, 0.0),
        (150, 1.0, 0.775),
        (3000, 1.0, 1.0),
        (40, 1390 / 1500, 0.5),
        (-160, 1190 / 1500, 0.0),
        (240, 1.0, 1.0),
        (-975, 0.25, 0.0),
    ],
)
def test_a_known_hu_has_a_known_value_in_each_window(hu: float, lung: float, soft: float) -> None:
    got = windowed(of_value(2, hu), window_bounds((LUNG, SOFT), OFF, streams_of(2)))
    assert got.shape == (2, 2, 2, 2, 2) and got.dtype == np.float32
    np.testing.assert_allclose(got[:, 0], lung, atol=1e-6)
    np.testing.assert_allclose(got[:, 1], soft, atol=1e-6)


def test_values_in_a_window_have_the_mean_and_deviation_that_it_says() -> None:
    """Of two channels in two windows: those of the first window come first and third."""
    hu = np.random.default_rng(0).uniform(-900, 200, (1, 2, 4, 5, 6)).astype(np.float32)
    plain = windowed(hu, window_bounds((LUNG, SOFT), OFF, streams_of(1)))
    lung = LUNG.model_copy(update={"mean": float(plain[:, ::2].mean()), "std": float(plain[:, ::2].std())})
    got = standardize(plain.copy(), (lung, SOFT))
    assert abs(got[:, ::2].mean()) < 1e-5 and got[:, ::2].std() == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(got[:, 1::2], plain[:, 1::2])
    assert np.array_equal(standardize(plain.copy(), (lung.drawable(), SOFT)), plain)


def test_jitter_is_uniform_within_its_bounds_and_drawn_apart_for_each_window() -> None:
    jitter = WindowJitterConfig(probability=1.0, center=20.0, width=40.0)
    bounds = window_bounds((LUNG, SOFT), jitter, streams_of(3000))
    width = bounds[..., 1]
    center = bounds[..., 0] + width / 2
    for number, window in enumerate((LUNG, SOFT)):
        assert stats.kstest(center[:, number], stats.uniform(window.center - 20, 40).cdf).pvalue > 1e-3
        assert stats.kstest(width[:, number], stats.uniform(window.width - 40, 80).cdf).pvalue > 1e-3
    drawn = np.concatenate([center, width], axis=1)
    assert np.abs(np.corrcoef(drawn.T)[~np.eye(4, dtype=bool)]).max() < 0.08


def test_jitter_hits_its_share() -> None:
    bounds = window_bounds((SOFT,), WindowJitterConfig(probability=0.3), streams_of(2000))
    hit = (bounds != window_bounds((SOFT,), OFF, streams_of(2000))).any((1, 2))
    assert stats.binomtest(int(hit.sum()), 2000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(24, 24, 24), (10, 60, 60)])
@pytest.mark.parametrize("std", [5.0, 30.0])
def test_noise_has_its_standard_deviation_in_hu(std: float, shape: tuple[int, int, int]) -> None:
    volume = of_value(3, -700.0, shape)
    add_noise(volume, CTNoiseConfig(probability=1.0, std=std), streams_of(3))
    noise = volume.astype(float) + 700
    np.testing.assert_allclose(noise.std((1, 2, 3, 4)), std, rtol=0.03)
    assert np.abs(noise.mean()) < 0.05 * std and np.abs(np.corrcoef(noise.reshape(3, -1))[0, 1]) < 0.05
    assert stats.kstest(noise[0].reshape(-1) / std, stats.norm.cdf).pvalue > 1e-3
    for axis in (2, 3, 4):
        beside = np.take(noise, range(1, noise.shape[axis]), axis) * np.take(noise, range(noise.shape[axis] - 1), axis)
        assert abs(beside.mean()) < 0.03 * std**2, "white"


def test_attenuation_is_a_uniform_factor_and_air_stays_air() -> None:
    config = AttenuationConfig(probability=1.0, factor=(0.9, 1.2))
    air, water, bone = of_value(2000, -1000.0), of_value(2000, 0.0), of_value(2000, 1000.0)
    for volume in (air, water, bone):
        change_attenuation(volume, config, streams_of(2000))
    assert (air == -1000).all()
    assert stats.kstest(water[:, 0, 0, 0, 0] / 1000 + 1, stats.uniform(0.9, 0.3).cdf).pvalue > 1e-3
    np.testing.assert_allclose(bone + 1000, 2 * (water + 1000), rtol=1e-5)
