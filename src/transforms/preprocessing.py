"""What an ECG goes through between millivolts and an encoder when nothing is random: windows, normalising, clipping.

Training does the same to each crop (src/transforms/ecg.py); encoder/preprocessing.json keeps it beside the weights.
"""

# B batch, C leads, T samples of a lead, W windows of a record, L samples of a window

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator

from src.config.section import Section


class Preprocessing(Section):
    """How an encoder wants its ECGs."""

    modality: Literal["ecg"] = "ecg"
    leads: tuple[str, ...]
    """Names of the leads, in order."""
    sampling_rate: PositiveFloat
    """Hz."""
    length: PositiveInt
    """Samples of a lead that the encoder sees at once."""
    normalize: Literal["dataset", "sample", "none"]
    """Per lead: by `mean` and `std`, by the window's own, or not at all (mV)."""
    mean: tuple[float, ...] | None = None
    """Of each lead over the training split, mV; only `dataset` needs it."""
    std: tuple[float, ...] | None = None
    """Of each lead over the training split, mV; 0 counts as 1."""
    clip: PositiveFloat | None
    """Values beyond +-clip (after normalising) are cut off."""
    short: Literal["refuse", "pad"] = "refuse"
    """A record shorter than a window: an error, or one window with zeros behind its end, which the encoder is told."""

    @model_validator(mode="after")
    def _one_for_each_lead(self) -> Self:
        if self.normalize == "dataset" and not len(self.leads) == len(self.mean or ()) == len(self.std or ()):
            raise ValueError(f"normalize is dataset, but mean and std are not {len(self.leads)} numbers, one a lead")
        return self

    def windows(self, ecg_CT: NDArray[np.floating], count: int | None, name: str = "the ECG") -> NDArray[np.float32]:
        """`count` evenly spaced windows [W, C, L] of a record, from its first sample to its last; one is the middle.

        Without a count so many as cover the record: they overlap where the length does not divide the record's. A
        shorter record is one window of its own length, where `short` is pad.

        Raises:
            ValueError: the record has other leads, is shorter than a window or not finite; named by `name`.
        """
        if ecg_CT.ndim != 2 or len(ecg_CT) != len(self.leads):
            raise ValueError(f"{name} has shape {list(ecg_CT.shape)}; the encoder takes [{len(self.leads)}, samples]")
        room, least = ecg_CT.shape[1] - self.length, self.length if self.short == "refuse" else 1
        if ecg_CT.shape[1] < least:
            raise ValueError(
                f"{name} has {ecg_CT.shape[1]} samples of each lead; the encoder needs {least} or more at "
                f"{self.sampling_rate:g} Hz"
            )
        if not np.isfinite(ecg_CT).all():
            raise ValueError(f"{name} holds NaN or infinite values: repair the record or leave it out")
        if room < 0:
            return ecg_CT[None].astype(np.float32)
        count = count or -(-ecg_CT.shape[1] // self.length)
        starts = [room // 2] if count == 1 else np.linspace(0, room, count).round().astype(int)
        return np.stack([ecg_CT[:, start : start + self.length] for start in starts]).astype(np.float32)

    def prepare(
        self, ecg_CT: NDArray[np.floating], keep_C: NDArray[np.bool_], count: int | None, name: str
    ) -> NDArray[np.float32]:
        """The windows [W, C, L] of a record in mV as the encoder takes them; padding comes last, as in training."""
        windows_WCL = self.windows(ecg_CT, count, name)
        self.standardize(windows_WCL, np.broadcast_to(keep_C, windows_WCL.shape[:2]))
        lacking = self.length - windows_WCL.shape[2]
        return np.pad(windows_WCL, ((0, 0), (0, 0), (0, lacking))) if lacking else windows_WCL

    def windows_of(self, sample: Mapping[str, Any], count: int | None) -> NDArray[np.float32]:
        """The windows [W, C, L] of a sample out of shards, as `prepare`."""
        return self.prepare(sample["ecg"], sample["lead_keep"], count, f"sample {sample['key']}")

    def of_sides(self, sides: tuple[int, ...]) -> Self:
        """The same for windows [L] of another length."""
        return self.model_copy(update={"length": sides[0]})

    def standardize(self, ecg_BCT: NDArray[np.float32], keep_BC: NDArray[np.bool_]) -> None:
        """Normalise and clip in place; a lead without a signal (keep False) is zero."""
        if self.normalize == "dataset":
            assert self.mean is not None and self.std is not None
            normalize(ecg_BCT, np.array(self.mean)[:, None], np.array(self.std)[:, None])
        elif self.normalize == "sample":
            normalize(ecg_BCT, *sample_statistics(ecg_BCT))
        if self.clip is not None:
            np.clip(ecg_BCT, -self.clip, self.clip, out=ecg_BCT)
        ecg_BCT[~keep_BC] = 0.0


def sample_statistics(ecg_BCT: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each lead of each sample, [B, C, 1]; in float64, so that a flat lead has std 0."""
    return ecg_BCT.mean(axis=2, keepdims=True, dtype=np.float64), ecg_BCT.std(axis=2, keepdims=True, dtype=np.float64)


def normalize(ecg_BCT: NDArray[np.float32], mean: NDArray[np.floating], std: NDArray[np.floating]) -> None:
    """(ecg - mean) / std, where a std of 0 (a lead that is missing or flat) counts as 1."""
    ecg_BCT -= mean.astype(np.float32)
    ecg_BCT /= np.where(std == 0, 1, std).astype(np.float32)
