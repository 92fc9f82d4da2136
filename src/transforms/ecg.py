"""What an ECG goes through between shard and model: plain functions on a batch, each draw addressed by its sample.

Amplitudes are in mV, frequencies in Hz. All but crop change `ecg_BCT` in place.
Legend: B batch, H samples of the batch that a transform hits, C leads, T samples of a lead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.sections import ECGTransformConfig, LeadMaskConfig, NoiseConfig, WanderConfig
from src.randomness import Streams
from src.transforms.preprocessing import Preprocessing

LOWEST_WANDER = 0.05  # Hz: recorders filter below it (diagnostic band of Kligfield et al., AHA 2007)


class ECGTransform:
    """Crop, wander, noise, normalise, clip and mask leads, in this order, with the settings of data.transform.

    A lead without a signal (lead_keep False) is zero in the end, whatever wander and the mean made of it.

    Wander and noise come before normalising, so that their strength is in mV. What is not random is `preprocessing`.
    """

    def __init__(self, config: ECGTransformConfig, preprocessing: Preprocessing) -> None:
        nyquist = preprocessing.sampling_rate / 2
        if not LOWEST_WANDER < config.wander.frequency <= nyquist:
            raise ValueError(
                f"data.transform.wander.frequency = {config.wander.frequency} Hz must be above {LOWEST_WANDER} Hz and "
                f"at most half of the sampling rate ({nyquist} Hz)"
            )
        self.config, self.preprocessing = config, preprocessing

    def __call__(self, samples: Sequence[Mapping[str, Any]], streams: Streams) -> NDArray[np.float32]:
        """The batch [B, C, length] of samples that have key, ecg [C, T_i] and lead_keep [C]; these stay untouched."""
        assert len(samples) == len(streams)
        config, streams = self.config, streams.fork("ecg")
        for sample in samples:
            self._check(sample)
        ecg_BCT = crop([sample["ecg"] for sample in samples], self.preprocessing.length, config.crop, streams)
        add_wander(ecg_BCT, config.wander, self.preprocessing.sampling_rate, streams)
        add_noise(ecg_BCT, config.noise, streams)
        keep_BC = np.array([sample["lead_keep"] for sample in samples])
        self.preprocessing.standardize(ecg_BCT, keep_BC)
        mask_leads(ecg_BCT, keep_BC, config.lead_mask, streams)
        return ecg_BCT

    def _check(self, sample: Mapping[str, Any]) -> None:
        key, ecg_CT = sample["key"], sample["ecg"]
        leads, length = len(self.preprocessing.leads), self.preprocessing.length
        if ecg_CT.ndim != 2 or len(ecg_CT) != leads:
            raise ValueError(
                f"sample {key}: its ecg has shape {ecg_CT.shape}, but the data has {leads} leads: give [leads, samples]"
            )
        if ecg_CT.shape[1] < length:
            raise ValueError(
                f"sample {key} is {ecg_CT.shape[1]} samples long, shorter than model.encoder.length = {length}: "
                f"lower that length or leave the record out"
            )
        if not np.isfinite(ecg_CT).all():
            raise ValueError(f"sample {key}: its ecg holds NaN or infinite values: repair the record or leave it out")


def crop(records: Sequence[NDArray[np.floating]], length: int, where: str, streams: Streams) -> NDArray[np.float32]:
    """`length` samples of each record [C, T_i]: from the middle, or ("random") from a uniform start."""
    spare_B = np.array([record.shape[1] - length for record in records], np.int64)
    starts_B = streams.integers("crop", spare_B + 1) if where == "random" else spare_B // 2
    ecg_BCT = np.empty((len(records), len(records[0]), length), np.float32)
    for ecg_CT, record, start in zip(ecg_BCT, records, starts_B, strict=True):
        ecg_CT[:] = record[:, start : start + length]
    return ecg_BCT


def add_wander(ecg_BCT: NDArray[np.float32], config: WanderConfig, sampling_rate: float, streams: Streams) -> None:
    """A slow sine: one breath (frequency in (0.05, config.frequency], phase) for all leads of a sample.

    The amplitude is uniform in +-config.amplitude for each lead; the sign tells which way breathing moves that lead.
    """
    hit_H = _hit(streams, "wander", config.probability)
    streams, time_T = streams[hit_H], np.arange(ecg_BCT.shape[2]) / sampling_rate
    frequency_H = config.frequency - (config.frequency - LOWEST_WANDER) * streams.uniform("wander.frequency")
    cycles_HT = frequency_H[:, None] * time_T + streams.uniform("wander.phase")[:, None]
    sine_HT = np.sin(2.0 * np.pi * cycles_HT).astype(np.float32)
    amplitude_HC = config.amplitude * (2.0 * streams.uniform("wander.amplitude", ecg_BCT.shape[1]) - 1.0)
    for row, amplitude_C, sine_T in zip(hit_H, amplitude_HC.astype(np.float32), sine_HT, strict=True):
        ecg_BCT[row] += amplitude_C[:, None] * sine_T


def add_noise(ecg_BCT: NDArray[np.float32], config: NoiseConfig, streams: Streams) -> None:
    """White noise of standard deviation config.std."""
    for row in _hit(streams, "noise", config.probability):  # one by one: a batch's draws would not fit the cache
        ecg_BCT[row] += config.std * streams[row : row + 1].normal("noise.value", *ecg_BCT.shape[1:])[0]


def mask_leads(
    ecg_BCT: NDArray[np.float32], there_BC: NDArray[np.bool_], config: LeadMaskConfig, streams: Streams
) -> None:
    """Leads set to zero, each with config.lead_probability; where all of those that are there would go, one stays.

    Which one is drawn uniformly from them.
    """
    hit_H = _hit(streams, "leads", config.probability)
    streams, there_HC, leads = streams[hit_H], there_BC[hit_H], ecg_BCT.shape[1]
    keep_HC = streams.uniform("leads.drop", leads) >= config.lead_probability
    stays_H = np.where(there_HC, streams.uniform("leads.stays", leads), -1.0).argmax(axis=1)
    none = ~(keep_HC & there_HC).any(axis=1)
    keep_HC[none, stays_H[none]] = True
    ecg_BCT[hit_H] *= keep_HC[:, :, None]


def _hit(streams: Streams, name: str, probability: float) -> NDArray[np.int64]:
    """The rows of the batch that a transform is applied to."""
    return np.flatnonzero(streams.uniform(f"{name}.hit") < probability)
