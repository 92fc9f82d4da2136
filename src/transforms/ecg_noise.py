"""What is added to an ECG, in mV: drifting and jumping baselines, moving electrodes, mains hum, noise.

Every lead takes a share in +-1 of what disturbs its sample, the sign telling which way.
Legend: B batch, H samples of the batch that a transform hits, C leads, T samples of a lead, E events, K cosines.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from src.config.ecg_transforms import (
    BaselineShiftConfig,
    BaselineWanderConfig,
    ElectrodeMotionConfig,
    NoiseConfig,
    PowerlineConfig,
    WanderConfig,
)
from src.randomness import Streams
from src.transforms.draws import between, hit, signed

LOWEST_WANDER = 0.05  # Hz: recorders filter below it (diagnostic band of Kligfield et al., AHA 2007)
WANDER_STEP = 0.01  # Hz between the cosines of baseline wander (Lenis et al. 2017)
MOTION_RISE = 0.05  # s in which a deflection reaches 63 % of its step


def add_wander(ecg_BCT: NDArray[np.float32], config: WanderConfig, sampling_rate: float, streams: Streams) -> None:
    """A slow sine: one breath (frequency in (0.05, config.frequency], phase) for all leads of a sample.

    The amplitude is uniform in +-config.amplitude for each lead; the sign tells which way breathing moves that lead.
    """
    hit_H = hit(streams, "wander", config.probability)
    streams, time_T = streams[hit_H], np.arange(ecg_BCT.shape[2]) / sampling_rate
    frequency_H = config.frequency - (config.frequency - LOWEST_WANDER) * streams.uniform("wander.frequency")
    cycles_HT = frequency_H[:, None] * time_T + streams.uniform("wander.phase")[:, None]
    sine_HT = np.sin(2.0 * np.pi * cycles_HT).astype(np.float32)
    amplitude_HC = config.amplitude * signed(streams, "wander.amplitude", ecg_BCT.shape[1])
    for row, amplitude_C, sine_T in zip(hit_H, amplitude_HC.astype(np.float32), sine_HT, strict=True):
        ecg_BCT[row] += amplitude_C[:, None] * sine_T


def add_baseline_wander(
    ecg_BCT: NDArray[np.float32], config: BaselineWanderConfig, sampling_rate: float, streams: Streams
) -> None:
    """C g_c sum_k a_k cos(2 pi k 0.01 Hz t + phi_k) for k = 1 .. cutoff / 0.01 Hz (Lenis et al. 2017).

    C is uniform in 0 .. config.amplitude and a_k in 0 .. 1, both of a sample, g_c in +-1 of a lead.
    """
    hit_H = hit(streams, "baseline_wander", config.probability)
    streams, waves = streams[hit_H], wander_waves(config.cutoff)
    height_HK = config.amplitude * streams.uniform("baseline_wander.C")[:, None]
    height_HK = height_HK * streams.uniform("baseline_wander.a", waves)
    phase_HK = 2.0 * np.pi * streams.uniform("baseline_wander.phase", waves)
    gain_HC = signed(streams, "baseline_wander.gain", ecg_BCT.shape[1])
    for row, height_K, phase_K, gain_C in zip(hit_H, height_HK, phase_HK, gain_HC, strict=True):
        wander_T = _cosines(height_K, phase_K, ecg_BCT.shape[2], WANDER_STEP / sampling_rate)
        ecg_BCT[row] += np.outer(gain_C, wander_T).astype(np.float32)


def wander_waves(cutoff: float) -> int:
    """The number of cosines up to a cutoff in Hz."""
    return int(cutoff / WANDER_STEP + 1e-6)


def add_baseline_shift(
    ecg_BCT: NDArray[np.float32], config: BaselineShiftConfig, sampling_rate: float, streams: Streams
) -> None:
    """Segments, centred anywhere, in which each lead is shifted by a constant in +-config.amplitude.

    After the code of Mehari & Strodthoff 2022; where segments overlap, their shifts are added here.
    """
    hit_H, (leads, length) = hit(streams, "baseline_shift", config.probability), ecg_BCT.shape[1:]
    streams, most = streams[hit_H], most_events(config.rate, length, sampling_rate)
    count_H = 1 + streams.integers("baseline_shift.count", most)
    middle_HE = length * streams.uniform("baseline_shift.middle", most)
    half_HE = between(streams, "baseline_shift.seconds", (0.5, 1.5), most) * config.seconds * sampling_rate / 2
    begin_HE = np.clip(np.rint(middle_HE - half_HE), 0, middle_HE.astype(np.int64)).astype(np.int64)
    end_HE = np.clip(np.rint(middle_HE + half_HE), begin_HE + 1, length).astype(np.int64)
    shift_HEC = (config.amplitude * signed(streams, "baseline_shift.shift", most, leads)).astype(np.float32)
    for place, row in enumerate(hit_H):
        for event in range(count_H[place]):
            shift_C = shift_HEC[place, event]
            ecg_BCT[row, :, begin_HE[place, event] : end_HE[place, event]] += shift_C[:, None]


def add_electrode_motion(
    ecg_BCT: NDArray[np.float32], config: ElectrodeMotionConfig, sampling_rate: float, streams: Streams
) -> None:
    """Deflections that begin anywhere, rise within a tenth of a second and decay exponentially.

    A lead's peak is in +-config.amplitude. In the manner of the record `em` of the MIT-BIH Noise Stress Test Database
    (Moody et al. 1984), not from it.
    """
    hit_H, (leads, length) = hit(streams, "electrode_motion", config.probability), ecg_BCT.shape[1:]
    if not len(hit_H):
        return
    streams, most = streams[hit_H], most_events(config.rate, length, sampling_rate)
    count_H = 1 + streams.integers("electrode_motion.count", most)
    start_HE = streams.integers("electrode_motion.start", length, most)
    peak_HEC = config.amplitude * signed(streams, "electrode_motion.peak", most, leads)
    shape_T = deflection(length, sampling_rate, config.decay)
    for place, row in enumerate(hit_H):
        for event in range(count_H[place]):
            start = start_HE[place, event]
            moved_CT = np.outer(peak_HEC[place, event], shape_T[: length - start])
            ecg_BCT[row, :, start:] += moved_CT.astype(np.float32)


def most_events(rate: float, length: int, sampling_rate: float) -> int:
    """The largest number of events in a window at a rate per second, at least one."""
    return max(1, math.ceil(rate * length / sampling_rate))


@lru_cache(maxsize=16)
def deflection(length: int, sampling_rate: float, decay: float) -> NDArray[np.float64]:
    """(1 - exp(-t / rise)) exp(-t / decay) from the first sample behind t = 0, [length]; its peak in time is 1."""
    time_T = np.arange(1, length + 1) / sampling_rate
    peak = MOTION_RISE * math.log1p(decay / MOTION_RISE)
    height = -math.expm1(-peak / MOTION_RISE) * math.exp(-peak / decay)
    return -np.expm1(-time_T / MOTION_RISE) * np.exp(-time_T / decay) / height


def add_powerline(
    ecg_BCT: NDArray[np.float32], config: PowerlineConfig, sampling_rate: float, streams: Streams
) -> None:
    """C g_c sum_k a_k cos(2 pi k f t + phi_k) for those k = 1 .. harmonics with k f at most half the sampling rate.

    C is uniform in 0 .. config.amplitude, a_1 is 1 and the others are uniform in 0 .. 1, all of a sample; g_c is in
    +-1 for a lead. After the code of Mehari & Strodthoff 2022, where a_1 is drawn too.
    """
    hit_H = hit(streams, "powerline", config.probability)
    streams, waves = streams[hit_H], hum_waves(config, sampling_rate)
    height_HK = streams.uniform("powerline.a", waves)
    height_HK[:, :1] = 1.0
    height_HK *= config.amplitude * streams.uniform("powerline.C")[:, None]
    phase_HK = 2.0 * np.pi * streams.uniform("powerline.phase", waves)
    gain_HC = signed(streams, "powerline.gain", ecg_BCT.shape[1])
    for row, height_K, phase_K, gain_C in zip(hit_H, height_HK, phase_HK, gain_HC, strict=True):
        hum_T = _cosines(height_K, phase_K, ecg_BCT.shape[2], config.frequency / sampling_rate)
        ecg_BCT[row] += np.outer(gain_C, hum_T).astype(np.float32)


def hum_waves(config: PowerlineConfig, sampling_rate: float) -> int:
    """How many of the harmonics the sampling rate can hold."""
    return min(config.harmonics, int(sampling_rate / 2 / config.frequency))


def _cosines(
    height_K: NDArray[np.float64], phase_K: NDArray[np.float64], length: int, step: float
) -> NDArray[np.float64]:
    """The sum over k = 1 .. K of height_k cos(2 pi k step t + phase_k) for t = 0 .. length - 1, [T]."""
    cosine_KT, sine_KT = _waves(len(height_K), length, step)
    real_K, imaginary_K = height_K * np.cos(phase_K), height_K * np.sin(phase_K)
    return (real_K[:, None] * cosine_KT).sum(axis=0) - (imaginary_K[:, None] * sine_KT).sum(axis=0)


@lru_cache(maxsize=16)
def _waves(count: int, length: int, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos and sin of 2 pi k step t, k = 1 .. count; kept, as they are the same for every sample."""
    angle_KT = 2.0 * np.pi * step * np.arange(1, count + 1)[:, None] * np.arange(length)
    return np.cos(angle_KT), np.sin(angle_KT)


def add_noise(ecg_BCT: NDArray[np.float32], config: NoiseConfig, streams: Streams) -> None:
    """White noise of standard deviation config.std."""
    for row in hit(streams, "noise", config.probability):  # one by one: a batch's draws would not fit the cache
        ecg_BCT[row] += config.std * streams[row : row + 1].normal("noise.value", *ecg_BCT.shape[1:])[0]
