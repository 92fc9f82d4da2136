"""What happens along the time axis of an ECG: pieces, speed, direction, filters.

Legend: B batch, H samples of the batch that a transform hits, C leads, T samples of a lead, K waves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from src.config.ecg_transforms import (
    BlurConfig,
    ResizedCropConfig,
    ReverseConfig,
    SobelConfig,
    TimeOutConfig,
    WarpConfig,
)
from src.memory import empty
from src.randomness import Streams
from src.transforms.draws import between, hit


def crop(records: Sequence[NDArray[np.floating]], length: int, where: str, streams: Streams) -> NDArray[np.float32]:
    """`length` samples of each record [C, T_i]: from the middle, or ("random") from a uniform start."""
    spare_B = np.array([record.shape[1] - length for record in records], np.int64)
    starts_B = streams.integers("crop", spare_B + 1) if where == "random" else spare_B // 2
    ecg_BCT = empty((len(records), len(records[0]), length))
    for ecg_CT, record, start in zip(ecg_BCT, records, starts_B, strict=True):
        ecg_CT[:] = record[:, start : start + length]
    return ecg_BCT


def resized_crop(
    ecg_BCT: NDArray[np.float32],
    records: Sequence[NDArray[np.floating]],
    config: ResizedCropConfig,
    streams: Streams,
) -> None:
    """Puts a piece of its record [C, T_i], from a uniform start, in the place of a sample's crop.

    A piece has a uniform share in config.scale of the crop's length, in whole samples; its first and its last sample
    stay the first and the last (RandomResizedCrop of Mehari & Strodthoff 2022).
    """
    hit_H = hit(streams, "resized_crop", config.probability)
    streams, length = streams[hit_H], ecg_BCT.shape[2]
    share_H = between(streams, "resized_crop.scale", config.scale)
    pieces_H = np.clip(np.rint(share_H * length).astype(np.int64), min(2, length), length)
    spare_H = np.array([records[row].shape[1] for row in hit_H], np.int64) - pieces_H
    starts_H = streams.integers("resized_crop.start", spare_H + 1)
    for row, piece, start in zip(hit_H, pieces_H, starts_H, strict=True):
        positions_T = np.arange(length) * (piece - 1) / max(length - 1, 1)
        ecg_BCT[row] = interpolate(records[row][:, start : start + piece], positions_T)


def warp(ecg_BCT: NDArray[np.float32], config: WarpConfig, sampling_rate: float, streams: Streams) -> None:
    """Reads the window at another speed in each place: monotone, smooth, from its first sample to its last."""
    hit_H = hit(streams, "warp", config.probability)
    if not len(hit_H):
        return
    waves_KT = speed_waves(ecg_BCT.shape[2], sampling_rate, config.period)
    heights_HK = config.strength * streams[hit_H].normal("warp.heights", len(waves_KT))
    for row, heights_K in zip(hit_H, heights_HK, strict=True):
        ecg_BCT[row] = interpolate(ecg_BCT[row], warped(heights_K, waves_KT))


def warped(heights_K: NDArray[np.float64], waves_KT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions [T] in a window whose speed is exp of the sum of waves: the first is 0, the last T - 1."""
    speed_T = np.exp((heights_K[:, None] * waves_KT).sum(axis=0))
    way_T = np.concatenate([[0.0], np.cumsum((speed_T[1:] + speed_T[:-1]) / 2)])
    return way_T * (len(way_T) - 1) / max(way_T[-1], np.finfo(float).tiny)


@lru_cache(maxsize=16)
def speed_waves(length: int, sampling_rate: float, period: float) -> NDArray[np.float64]:
    """Cosines of 1, 2, ... half-waves in the window, as far as their period is not below `period` s."""
    count = max(1, int(2 * (length - 1) / sampling_rate / period))
    place_T = np.linspace(0.0, 1.0, length)
    return np.sqrt(2 / count) * np.cos(np.pi * np.arange(1, count + 1)[:, None] * place_T)


def interpolate(ecg_CT: NDArray[np.floating], positions_T: NDArray[np.float64]) -> NDArray[np.float32]:
    """The ECG at positions between its samples, linearly; at a whole number it is that sample, bit for bit."""
    last = ecg_CT.shape[1] - 1
    left_T = np.clip(positions_T.astype(np.int64), 0, last)
    part_T = (positions_T - left_T).astype(np.float32)
    ecg_CT = ecg_CT.astype(np.float32, copy=False)
    right_CT = ecg_CT.take(left_T + 1, axis=1, mode="clip")  # "clip" is the quick mode; beyond the last it has weight 0
    return ecg_CT.take(left_T, axis=1, mode="clip") * (1 - part_T) + right_CT * part_T


def reverse(ecg_BCT: NDArray[np.float32], config: ReverseConfig, streams: Streams) -> None:
    """The last sample first."""
    hit_H = hit(streams, "reverse", config.probability)
    ecg_BCT[hit_H] = ecg_BCT[hit_H, :, ::-1]


def blur(ecg_BCT: NDArray[np.float32], config: BlurConfig, sampling_rate: float, streams: Streams) -> None:
    """A Gaussian filter whose standard deviation is uniform in (0, config.sigma] s; ends are mirrored, means stay."""
    from scipy.fft import dct, idct  # 0.2 s of every start, and few runs blur

    hit_H = hit(streams, "blur", config.probability)
    sigma_H = config.sigma * (1.0 - streams[hit_H].uniform("blur.sigma"))
    angle_T = np.pi * np.arange(ecg_BCT.shape[2]) / ecg_BCT.shape[2]
    for row, sigma in zip(hit_H, sigma_H, strict=True):  # a product of cosines: exact for less than a sample too
        left_T = np.exp(-0.5 * (sigma * sampling_rate * angle_T) ** 2).astype(np.float32)
        ecg_BCT[row] = idct(dct(ecg_BCT[row], axis=1) * left_T, axis=1)


def sobel(ecg_BCT: NDArray[np.float32], config: SobelConfig, sampling_rate: float, streams: Streams) -> None:
    """The derivative (central differences, one-sided at both ends) in mV/s, times config.seconds."""
    if ecg_BCT.shape[2] < 2:
        return
    for row in hit(streams, "sobel", config.probability):
        ecg_BCT[row] = np.gradient(ecg_BCT[row], axis=1) * np.float32(sampling_rate * config.seconds)


def time_out(ecg_BCT: NDArray[np.float32], config: TimeOutConfig, streams: Streams) -> None:
    """Zeros in one segment of all leads: a uniform share in config.fraction (TimeOut of Mehari & Strodthoff 2022)."""
    hit_H = hit(streams, "time_out", config.probability)
    streams, length = streams[hit_H], ecg_BCT.shape[2]
    segment_H = (between(streams, "time_out.fraction", config.fraction) * length).astype(np.int64)
    starts_H = streams.integers("time_out.start", length - segment_H + 1)
    for row, start, segment in zip(hit_H, starts_H, segment_H, strict=True):
        ecg_BCT[row, :, start : start + segment] = 0.0
