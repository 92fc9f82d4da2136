"""An ECG as it is stored, in millivolts."""

# C leads, T samples of a lead

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_millivolt(signal_CT: NDArray[Any], scale_C: list[float] | None) -> NDArray[np.float32]:
    """Integer units times mV per unit of each lead, or floats that are mV already; always a new float32 array.

    The value is the float32 nearest to units / gain, gain being 1 / scale: the same bits as wfdb's physical signal
    rounded to float32, and round(ecg / scale) is the stored integer. Where float32 holds the gain (1000 or 204.8 units
    per mV) one division does it; else the product is taken in float64, five times as slow at 12 x 5000.
    """
    if signal_CT.ndim != 2 or 0 in signal_CT.shape:
        raise ValueError(f"an ECG of shape {list(signal_CT.shape)} is not [leads, samples]")
    if signal_CT.dtype.kind == "f":
        if scale_C is not None:
            raise ValueError(f"the json has a scale though {signal_CT.dtype} values are mV already")
        return signal_CT.astype(np.float32)
    if signal_CT.dtype.kind != "i" or signal_CT.dtype.itemsize > 2:
        raise ValueError(f"an ECG of type {signal_CT.dtype} is neither int16 with a scale nor floating point")
    try:
        exact, factor_C1 = _factor_C1(tuple(scale_C or ()), len(signal_CT))
    except TypeError as error:  # no list, or one of lists, which has no hash
        raise ValueError(f"scale in the json is not a list of numbers: {scale_C}") from error
    if not exact:
        return (signal_CT * factor_C1).astype(np.float32)
    ecg_CT = signal_CT.astype(np.float32)
    ecg_CT /= factor_C1
    return ecg_CT


@lru_cache(maxsize=1024)
def _factor_C1(scale_C: tuple[Any, ...], leads: int) -> tuple[bool, NDArray[np.floating]]:
    """(True, gains [C, 1] in float32) if float32 holds all of them, else (False, scales [C, 1] in float64); cached."""
    if len(scale_C) != leads or not all(isinstance(scale, int | float) and 1e-30 < scale < 1e30 for scale in scale_C):
        raise ValueError(
            f"int16 needs scale in the json, positive mV per unit for each of {leads} leads, not {list(scale_C)}"
        )
    scale_C1 = np.array(scale_C, np.float64)[:, None]
    gain_C1 = (1.0 / scale_C1).astype(np.float32)
    exact = bool((np.abs(gain_C1 * scale_C1 - 1.0) <= 2.0**-52).all())
    return exact, gain_C1 if exact else scale_C1
