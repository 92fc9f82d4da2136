"""The floor: what a linear model makes of the signal itself, without any encoder."""

# N records, C leads, T samples of a lead, F features

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from src.data.ecg_shards import ECGShards
from src.data.shards import Shards
from src.transforms.plain import AnyPreprocessing

Raw = Literal["amplitudes", "samples"]
QUANTILES = (0.05, 0.95)


def raw_features(
    shards: Shards, samples_N: NDArray[np.int64], kind: Raw, preprocessing: AnyPreprocessing | None = None
) -> NDArray[np.float32]:
    """Features [N, F] of whole ECGs in mV: `amplitudes` (6 C of them) or every sample (C * T).

    Of an image, video or CT volume they are all values of the one window that an encoder with this preprocessing sees.

    Raises:
        ValueError: records of different length, which have no samples in common; amplitudes of what is no ECG.
    """
    if not isinstance(shards, ECGShards):
        if kind == "amplitudes":
            raise ValueError("rows.raw is amplitudes, which only ECGs have: set it to samples")
        assert preprocessing is not None, "what is no ECG is not raw before it has a size"
        windows = [
            preprocessing.windows_of(sample, 1)[0] for batch in shards.batches(samples_N, 16) for sample in batch
        ]
        return np.stack([window.ravel() for window in windows])
    lengths = shards.lengths
    if kind == "samples" and lengths[0] != lengths[1]:
        raise ValueError(
            f"rows.raw is samples, but the records of {shards.root} have {lengths[0]} to {lengths[1]} samples: set it "
            f"to amplitudes"
        )
    of_record = amplitudes if kind == "amplitudes" else np.ravel
    found = [of_record(sample["ecg"]) for batch in shards.batches(samples_N) for sample in batch]
    return np.stack(found).astype(np.float32)


def amplitudes(ecg_CT: NDArray[np.float32]) -> NDArray[np.floating]:
    """Of each lead the mean, std, minimum, maximum, 5 % and 95 % quantile in mV, [6 C]."""
    parts = [ecg_CT.mean(1), ecg_CT.std(1), ecg_CT.min(1), ecg_CT.max(1), *np.quantile(ecg_CT, QUANTILES, axis=1)]
    return np.concatenate(parts)
