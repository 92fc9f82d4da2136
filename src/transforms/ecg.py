"""What an ECG goes through between shard and model, in order; each draw is addressed by its sample.

Amplitudes are in mV, frequencies in Hz. The steps are plain functions on a batch: ecg_time.py (pieces, speed, filters),
ecg_leads.py (the heart's vector, gains, leads that drop out), ecg_noise.py (what is added).
Legend: B batch, C leads, T samples of a lead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms.ecg_leads import channel_resize, check_leads, invert, mask_leads, turn_vcg
from src.transforms.ecg_noise import (
    LOWEST_WANDER,
    WANDER_STEP,
    add_baseline_shift,
    add_baseline_wander,
    add_electrode_motion,
    add_noise,
    add_powerline,
    add_wander,
)
from src.transforms.ecg_time import blur, crop, resized_crop, reverse, sobel, time_out, warp
from src.transforms.preprocessing import Preprocessing


class ECGTransform:
    """The settings of data.transform at the data's true sampling rate.

    First what changes the heart's signal (time, then leads), then what recorders add to it, all in mV; then it is
    normalised and clipped; zeros come last, as the model sees them. What is not random is `preprocessing`.
    A lead without a signal (lead_keep False) is zero in the end, whatever the steps made of it. `finite` says that who
    gives the samples has seen to it that they hold neither NaN nor infinite values, which takes 3 us of an ECG's 40.
    """

    def __init__(self, config: ECGTransformConfig, preprocessing: Preprocessing, finite: bool = False) -> None:
        check(config, preprocessing)
        self.config, self.preprocessing = config, preprocessing
        self._finite = finite

    def __call__(
        self, samples: Sequence[Mapping[str, Any]], streams: Streams, length: int | None = None
    ) -> NDArray[np.float32]:
        """The batch [B, C, length] of samples that have key, ecg [C, T_i] and lead_keep [C]; these stay untouched.

        A record that is shorter (config.short is pad) goes through all steps at its own length, so that none of them
        reaches the zeros behind its end or counts these. Without a length it is that of `preprocessing`.

        Raises:
            ValueError: a record has other leads, is not finite, or shorter where that is refused; it is named.
        """
        assert len(samples) == len(streams)
        length, streams = length or self.preprocessing.length, streams.fork("ecg")
        for sample in samples:
            self._check(sample, length)
        own_B = np.minimum([sample["ecg"].shape[1] for sample in samples], length)
        if (own_B == length).all():
            return self._of_length(samples, streams, length)
        ecg_BCT = np.zeros((len(samples), len(self.preprocessing.leads), length), np.float32)
        for own in np.unique(own_B).tolist():
            rows = np.flatnonzero(own_B == own)
            ecg_BCT[rows, :, :own] = self._of_length([samples[row] for row in rows.tolist()], streams[rows], own)
        return ecg_BCT

    def _of_length(self, samples: Sequence[Mapping[str, Any]], streams: Streams, length: int) -> NDArray[np.float32]:
        """All steps on records of so many samples or more."""
        keep_BC = np.array([sample["lead_keep"] for sample in samples])
        ecg_BCT = self._cut([sample["ecg"] for sample in samples], length, streams)
        self._change(ecg_BCT, keep_BC, streams)
        self._disturb(ecg_BCT, streams)
        self.preprocessing.standardize(ecg_BCT, keep_BC)
        time_out(ecg_BCT, self.config.time_out, streams)
        mask_leads(ecg_BCT, keep_BC, self.config.lead_mask, streams)
        return ecg_BCT

    def _cut(self, records: Sequence[NDArray[np.floating]], length: int, streams: Streams) -> NDArray[np.float32]:
        ecg_BCT = crop(records, length, self.config.crop, streams)
        resized_crop(ecg_BCT, records, self.config.resized_crop, streams)
        return ecg_BCT

    def _change(self, ecg_BCT: NDArray[np.float32], keep_BC: NDArray[np.bool_], streams: Streams) -> None:
        config, rate = self.config, self.preprocessing.sampling_rate
        warp(ecg_BCT, config.warp, rate, streams)
        reverse(ecg_BCT, config.reverse, streams)
        blur(ecg_BCT, config.blur, rate, streams)
        sobel(ecg_BCT, config.sobel, rate, streams)
        turn_vcg(ecg_BCT, keep_BC, self.preprocessing.leads, config.vcg, streams)
        channel_resize(ecg_BCT, config.channel_resize, streams)
        invert(ecg_BCT, config.invert, streams)

    def _disturb(self, ecg_BCT: NDArray[np.float32], streams: Streams) -> None:
        config, rate = self.config, self.preprocessing.sampling_rate
        add_wander(ecg_BCT, config.wander, rate, streams)
        add_baseline_wander(ecg_BCT, config.baseline_wander, rate, streams)
        add_baseline_shift(ecg_BCT, config.baseline_shift, rate, streams)
        add_electrode_motion(ecg_BCT, config.electrode_motion, rate, streams)
        add_powerline(ecg_BCT, config.powerline, rate, streams)
        add_noise(ecg_BCT, config.noise, streams)

    def _check(self, sample: Mapping[str, Any], length: int) -> None:
        key, ecg_CT, leads = sample["key"], sample["ecg"], len(self.preprocessing.leads)
        if ecg_CT.ndim != 2 or len(ecg_CT) != leads:
            raise ValueError(
                f"sample {key}: its ecg has shape {ecg_CT.shape}, but the data has {leads} leads: give [leads, samples]"
            )
        if ecg_CT.shape[1] < (length if self.config.short == "refuse" else 1):
            of = "model.encoder.length =" if self.config.lengths is None else "data.transform.lengths:"
            raise ValueError(
                f"sample {key} is {ecg_CT.shape[1]} samples long, shorter than {of} {length}: "
                f"lower that length or leave the record out"
            )
        if not self._finite and not np.isfinite(ecg_CT).all():
            raise ValueError(f"sample {key}: its ecg holds NaN or infinite values: repair the record or leave it out")


def check(config: ECGTransformConfig, preprocessing: Preprocessing) -> None:
    """Raises ValueError for what the sampling rate or the leads can't do; new keys are looked at where they are on."""
    nyquist = preprocessing.sampling_rate / 2
    _within("wander.frequency", config.wander.frequency, LOWEST_WANDER, nyquist)
    if config.baseline_wander.probability:
        _within("baseline_wander.cutoff", config.baseline_wander.cutoff, WANDER_STEP, nyquist)
    if config.powerline.probability and config.powerline.frequency > nyquist:
        raise ValueError(
            f"data.transform.powerline.frequency = {config.powerline.frequency} Hz is above half of the sampling rate "
            f"({nyquist} Hz), where no recorder has it: set data.transform.powerline.probability to 0"
        )
    if config.vcg.probability:
        check_leads(preprocessing.leads)


def _within(key: str, frequency: float, lowest: float, nyquist: float) -> None:
    if not lowest < frequency <= nyquist:
        raise ValueError(
            f"data.transform.{key} = {frequency} Hz must be above {lowest} Hz and "
            f"at most half of the sampling rate ({nyquist} Hz)"
        )
