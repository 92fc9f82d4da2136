"""Time: at two sampling rates, since seconds are what a setting means."""

import numpy as np
import pytest
from scipy import stats

from src.config.ecg_transforms import (
    BlurConfig,
    ResizedCropConfig,
    ReverseConfig,
    SobelConfig,
    TimeOutConfig,
    WarpConfig,
)
from src.transforms.ecg_time import (
    blur,
    crop,
    interpolate,
    resized_crop,
    reverse,
    sobel,
    speed_waves,
    time_out,
    warp,
    warped,
)
from tests.transforms.batches import RATES, random_batch, streams_of


def ramps(batch: int, length: int, leads: int = 2) -> np.ndarray:
    """Each sample of a lead tells its own place."""
    return np.tile(np.arange(length, dtype=np.float32), (batch, leads, 1))


def test_a_resized_crop_of_the_whole_length_is_a_plain_piece() -> None:
    records = list(random_batch(20, 130))
    for length in (130, 100):
        ecg_BCT = crop(records, length, "center", streams_of(20))
        resized_crop(ecg_BCT, records, ResizedCropConfig(probability=1.0, scale=(1.0, 1.0)), streams_of(20))
        for ecg_CT, record in zip(ecg_BCT, records, strict=True):
            starts = [s for s in range(131 - length) if np.array_equal(record[:, s : s + length], ecg_CT)]
            assert len(starts) == 1


@pytest.mark.parametrize("rate", RATES)
def test_a_resized_crop_slows_the_heart_by_its_scale(rate: float) -> None:
    """A sine of 10 Hz becomes one of 5 to 10 Hz, evenly spread over the scale."""
    batch, length = 400, int(10 * rate)
    records = ramps(batch, length + 50)
    ecg_BCT = crop(list(records), length, "random", streams_of(batch))
    resized_crop(ecg_BCT, list(records), ResizedCropConfig(probability=1.0, scale=(0.5, 1.0)), streams_of(batch))
    steps_BT = np.diff(ecg_BCT[:, 0].astype(np.float64))
    assert np.abs(steps_BT - steps_BT.mean(axis=1, keepdims=True)).max() < 2e-3, "one speed for the whole piece"
    piece_B = ecg_BCT[:, 0, -1] - ecg_BCT[:, 0, 0] + 1
    assert stats.kstest(piece_B / length, stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    start_B = ecg_BCT[:, 0, 0] / (length + 50 - piece_B)
    assert stats.kstest(start_B, stats.uniform(0, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("length", [2, 7, 200])
def test_interpolation_meets_the_samples_and_straight_lines(length: int) -> None:
    ecg_CT = random_batch(1, length)[0]
    np.testing.assert_array_equal(interpolate(ecg_CT, np.arange(length, dtype=float)), ecg_CT)
    places = np.sort(np.random.default_rng(0).uniform(0, length - 1, 50))
    wanted = np.stack([np.interp(places, np.arange(length), lead_T) for lead_T in ecg_CT])
    np.testing.assert_allclose(interpolate(ecg_CT, places), wanted, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("strength", [0.0, 0.2, 1.0])
def test_a_warp_is_monotone_and_keeps_both_ends(rate: float, strength: float) -> None:
    ecg_BCT = ramps(50, int(4 * rate))
    warp(ecg_BCT, WarpConfig(probability=1.0, strength=strength), rate, streams_of(50))
    steps = np.diff(ecg_BCT, axis=2)
    assert (ecg_BCT[:, :, 0] == 0).all() and (ecg_BCT[:, :, -1] == int(4 * rate) - 1).all()
    assert (steps > 0).all() if strength else (steps == 1).all()
    speed = np.log(steps[:, 0])
    assert speed.std() == pytest.approx(strength, rel=0.25, abs=1e-12)


def test_a_warp_is_smooth_in_seconds() -> None:
    """The same heights are the same warp at any rate, and the speed has no period below the one that is set."""
    slow, fast = (speed_waves(int(10 * rate) + 1, rate, 2.0) for rate in RATES)
    heights = np.random.default_rng(0).normal(0.0, 0.2, len(slow))
    assert len(slow) == len(fast) == 10
    positions = warped(heights, fast)[:: int(RATES[1] / RATES[0])] / (RATES[1] / RATES[0])
    np.testing.assert_allclose(warped(heights, slow), positions, atol=0.01)
    crossings = (np.diff(np.sign(slow), axis=1) != 0).sum(axis=1)
    assert crossings.max() <= 2 * 10 / 2.0


def test_reverse_twice_is_what_it_was() -> None:
    before = random_batch(6, 51)
    ecg_BCT = before.copy()
    reverse(ecg_BCT, ReverseConfig(probability=1.0), streams_of(6))
    np.testing.assert_array_equal(ecg_BCT, np.flip(before, axis=2))
    reverse(ecg_BCT, ReverseConfig(probability=1.0), streams_of(6))
    np.testing.assert_array_equal(ecg_BCT, before)


@pytest.mark.parametrize("rate", RATES)
def test_blur_keeps_the_mean_and_lowers_high_frequencies_as_a_gaussian_does(rate: float) -> None:
    length, hz = int(8 * rate), 10.0
    time = np.arange(length) / rate
    ecg_BCT = np.tile(1.5 + np.cos(2 * np.pi * hz * time), (300, 1, 1)).astype(np.float32)
    blur(ecg_BCT, BlurConfig(probability=1.0, sigma=0.02), rate, streams_of(300))
    np.testing.assert_allclose(ecg_BCT.mean(axis=2), 1.5 + np.cos(2 * np.pi * hz * time).mean(), atol=1e-5)
    height_B = 2 * np.abs(np.fft.rfft(ecg_BCT[:, 0, length // 4 : -length // 4]))[:, int(4 * hz)] / (length // 2)
    sigma_B = np.sqrt(-2 * np.log(np.minimum(height_B, 1.0))) / (2 * np.pi * hz)
    assert stats.kstest(sigma_B, stats.uniform(0, 0.02).cdf).pvalue > 1e-3


def test_blur_longer_than_the_window_leaves_its_mean() -> None:
    ecg_BCT = random_batch(5, 20)
    mean = ecg_BCT.mean(axis=2)
    blur(ecg_BCT, BlurConfig(probability=1.0, sigma=50.0), 100.0, streams_of(5))
    np.testing.assert_allclose(ecg_BCT.mean(axis=2), mean, atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_sobel_of_a_ramp_is_its_slope_in_millivolts_a_second(rate: float) -> None:
    ecg_BCT = np.tile(3.0 * np.arange(50) / rate, (2, 12, 1)).astype(np.float32)
    sobel(ecg_BCT, SobelConfig(probability=1.0, seconds=0.02), rate, streams_of(2))
    np.testing.assert_allclose(ecg_BCT, 3.0 * 0.02, rtol=1e-4)


@pytest.mark.parametrize("fraction", [(0.0, 0.5), (0.2, 0.2), (0.9, 1.0)])
def test_time_out_is_one_segment_of_all_leads_anywhere(fraction: tuple[float, float]) -> None:
    batch, length = 3000, 200
    ecg_BCT = np.ones((batch, 3, length), np.float32)
    time_out(ecg_BCT, TimeOutConfig(probability=1.0, fraction=fraction), streams_of(batch))
    zero_BT = ecg_BCT[:, 0] == 0
    assert (ecg_BCT == ecg_BCT[:, :1]).all() and ((ecg_BCT == 0) | (ecg_BCT == 1)).all()
    assert (np.abs(np.diff(zero_BT.astype(int), axis=1)).sum(axis=1) <= 2).all()
    share_B = zero_BT.mean(axis=1)
    assert fraction[0] - 1 / length <= share_B.min() and share_B.max() <= fraction[1]
    assert share_B.mean() == pytest.approx(np.mean(fraction), abs=0.02)
    first, last = zero_BT[:, 0].any(), zero_BT[:, -1].any()
    assert first and last


def test_what_time_out_hides_is_symmetric() -> None:
    ecg_BCT = np.ones((20000, 1, 50), np.float32)
    time_out(ecg_BCT, TimeOutConfig(probability=1.0), streams_of(20000))
    hidden_T = (ecg_BCT[:, 0] == 0).mean(axis=0)
    assert np.abs(hidden_T - hidden_T[::-1]).max() < 5 * np.sqrt(2 * 0.25 / 20000)
