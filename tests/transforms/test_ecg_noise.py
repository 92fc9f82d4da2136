"""What is added: amplitudes in mV and frequencies in Hz, at two sampling rates."""

import numpy as np
import pytest
from scipy import stats

from src.config.ecg_transforms import BaselineShiftConfig, BaselineWanderConfig, ElectrodeMotionConfig, PowerlineConfig
from src.transforms.ecg_noise import (
    add_baseline_shift,
    add_baseline_wander,
    add_electrode_motion,
    add_powerline,
    deflection,
)
from tests.transforms.batches import RATES, streams_of


def silence(batch: int, seconds: float, rate: float, leads: int = 12) -> np.ndarray:
    return np.zeros((batch, leads, round(seconds * rate)), np.float32)


def spectrum(ecg_BCT: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Hz, and the power there of each lead."""
    return np.fft.rfftfreq(ecg_BCT.shape[2], 1 / rate), np.abs(np.fft.rfft(ecg_BCT.astype(np.float64), axis=2)) ** 2


def one_shape(ecg_BCT: np.ndarray) -> np.ndarray:
    """Each lead is a multiple of one shape: the share of the energy that is not."""
    values = np.linalg.svd(ecg_BCT.astype(np.float64), compute_uv=False) ** 2
    return 1 - values[:, 0] / values.sum(axis=1)


@pytest.mark.parametrize("rate", RATES)
def test_baseline_wander_stays_below_its_cutoff(rate: float) -> None:
    """In 100 s each of the 50 cosines has a bin of its own."""
    ecg_BCT = silence(40, 100, rate)
    add_baseline_wander(ecg_BCT, BaselineWanderConfig(probability=1.0, cutoff=0.5), rate, streams_of(40))
    hz, power = spectrum(ecg_BCT, rate)
    inside = (hz > 0.005) & (hz < 0.505)
    assert inside.sum() == 50
    assert power[:, :, ~inside].sum() < 1e-9 * power.sum()
    assert (power[:, :, inside].mean((0, 1)) > 0.3 * power[:, :, inside].mean()).all(), "all of them are there"
    assert one_shape(ecg_BCT).max() < 1e-9


@pytest.mark.parametrize("rate", RATES)
def test_baseline_wander_has_the_published_strength(rate: float) -> None:
    """var(C g a cos) summed over K cosines is K E[C^2] E[g^2] E[a^2] / 2, each of the three E being a third."""
    ecg_BCT = silence(600, 100, rate / 10)
    add_baseline_wander(ecg_BCT, BaselineWanderConfig(probability=1.0, amplitude=0.1), rate / 10, streams_of(600))
    assert ecg_BCT.var() == pytest.approx(50 * 0.1**2 / 27 / 2, rel=0.15)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frequency", [50, 60])
def test_powerline_noise_peaks_at_the_mains_frequency(rate: float, frequency: int) -> None:
    if frequency > rate / 2:
        pytest.skip("refused")
    ecg_BCT = silence(60, 2, rate)
    add_powerline(ecg_BCT, PowerlineConfig(probability=1.0, frequency=frequency), rate, streams_of(60))
    hz, power = spectrum(ecg_BCT, rate)
    assert (hz[power.sum((0, 1)).argmax()], hz[power[0, 0].argmax()]) == (frequency, frequency)
    held = [frequency * k for k in (1, 2, 3) if frequency * k <= rate / 2]
    there = np.isclose(hz[:, None], held).any(axis=1)
    assert power[:, :, ~there].sum() < 1e-9 * power.sum()
    assert (power[:, :, there].sum((0, 1)) > 1e-3 * power.sum()).all()


def test_powerline_noise_has_its_amplitude_in_millivolts() -> None:
    ecg_BCT = silence(500, 1, 1000.0)
    add_powerline(ecg_BCT, PowerlineConfig(probability=1.0, amplitude=0.05, harmonics=1), 1000.0, streams_of(500))
    largest_BC = np.abs(ecg_BCT).max(axis=2)
    assert largest_BC.max() <= 0.05 and largest_BC.max() > 0.045
    largest_B = largest_BC.max(axis=1)  # the largest of twelve gains in +-1 is 12/13 on average
    assert largest_B.mean() == pytest.approx(0.025 * 12 / 13, rel=0.1)
    assert one_shape(ecg_BCT).max() < 1e-9


def test_harmonics_are_weaker_than_the_mains_frequency() -> None:
    ecg_BCT = silence(200, 1, 1000.0, leads=1)
    add_powerline(ecg_BCT, PowerlineConfig(probability=1.0, harmonics=5), 1000.0, streams_of(200))
    hz, power = spectrum(ecg_BCT, 1000.0)
    assert (hz[power[:, 0].argmax(axis=1)] == 50).all()
    assert {50, 100, 150, 200, 250} == set(hz[power.sum((0, 1)) > 1e-6 * power.sum()])


@pytest.mark.parametrize("rate", RATES)
def test_baseline_shifts_are_constant_in_segments(rate: float) -> None:
    ecg_BCT = silence(500, 10, rate)
    config = BaselineShiftConfig(probability=1.0, amplitude=0.2, seconds=1.0, rate=0.1)
    add_baseline_shift(ecg_BCT, config, rate, streams_of(500))
    there_BT = (ecg_BCT != 0).any(axis=1)
    assert (np.abs(np.diff(there_BT.astype(int), axis=1)).sum(axis=1) <= 2).all(), "one segment at this rate"
    for ecg_CT, there_T in zip(ecg_BCT, there_BT, strict=True):
        assert (ecg_CT[:, there_T] == ecg_CT[:, there_T][:, :1]).all()
    seconds_B = there_BT.sum(axis=1) / rate
    whole_B = ~(there_BT[:, 0] | there_BT[:, -1])
    assert 0.5 - 1 / rate <= seconds_B[whole_B].min() and seconds_B.max() <= 1.5 + 1 / rate
    assert seconds_B[whole_B].mean() == pytest.approx(1.0, abs=0.05)
    shifts = np.abs(ecg_BCT).max(axis=2).reshape(-1)
    assert stats.kstest(shifts, stats.uniform(0, 0.2).cdf).pvalue > 1e-3


def test_baseline_shifts_are_from_one_to_the_highest_number() -> None:
    ecg_BCT = silence(1500, 100, 10.0, leads=1)
    config = BaselineShiftConfig(probability=1.0, seconds=0.5, rate=0.05)
    add_baseline_shift(ecg_BCT, config, 10.0, streams_of(1500))
    jumps_B = (np.diff(ecg_BCT[:, 0], axis=1) != 0).sum(axis=1)
    assert jumps_B.min() >= 1 and 9 <= jumps_B.max() <= 10
    assert jumps_B.mean() == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("decay", [0.05, 0.3, 2.0])
def test_a_deflection_rises_at_once_and_decays_with_its_time(rate: float, decay: float) -> None:
    shape_T = deflection(int(8 * rate), rate, decay)
    top = int(shape_T.argmax())
    assert 0 < shape_T[0] <= 1 and 0.95 < shape_T[top] <= 1 + 1e-12
    assert (np.diff(shape_T[: top + 1]) > 0).all() and top / rate < 0.2
    late = round(0.7 * rate)
    assert shape_T[late + round(decay * rate)] / shape_T[late] == pytest.approx(np.exp(-1), rel=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_electrode_motion_begins_anywhere_and_keeps_its_amplitude(rate: float) -> None:
    ecg_BCT = silence(800, 4, rate)
    config = ElectrodeMotionConfig(probability=1.0, amplitude=0.5, rate=0.25)
    add_electrode_motion(ecg_BCT, config, rate, streams_of(800))
    assert 0.4 < np.abs(ecg_BCT).max() <= 0.5 + 1e-6
    start_B = (ecg_BCT[:, 0] != 0).argmax(axis=1)
    early_B = start_B[(ecg_BCT[:, 0] != 0).any(axis=1)] / (4 * rate)
    assert stats.kstest(early_B, stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert np.nanmax(one_shape(ecg_BCT[np.abs(ecg_BCT).max((1, 2)) > 0.05])) < 1e-9, "one event, one shape"
