"""From the channels that a recorder wrote to the leads that a shard holds: names, gaps, rate, storage."""

# C leads of the shard, T samples of a lead

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_MILLIVOLT = {"mv": 1.0, "uv": 1000.0, "µv": 1000.0, "μv": 1000.0, "nv": 1e6, "v": 0.001}
HIGHEST_MILLIVOLT = 500.0
"""No electrode on the skin gives more, a defibrillator's shock included: recorders saturate at 5 to 330 mV."""
LOWEST_RATE, HIGHEST_RATE = 10.0, 100_000.0
LOWEST_GAIN, HIGHEST_GAIN = 1e-3, 1e12
"""Units of an integer for 1 mV: a recorder has 40 to 10^6."""
LARGEST_FRACTION = 10_000
"""Resampling goes by a ratio of whole numbers up to this: 360 Hz to 128 Hz is 16 / 45."""


@dataclass(frozen=True)
class Channel:
    """A signal as its file holds it."""

    name: str
    unit: str
    rate: float
    """Hz."""
    values_T: NDArray[np.int64] | NDArray[np.float64]
    """Integers, less their baseline, or floats in `unit`, NaN where missing."""
    gain: float = 1.0
    """Integers for one `unit`."""
    missing_T: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """True where the integer stands for no value; empty where none does."""
    fault: str = ""
    """Why it must not be used."""


@dataclass(frozen=True)
class Leads:
    """What the leads of a shards folder are, and what a record must have to get into it."""

    names: tuple[str, ...]
    sampling_rate: float
    """Hz; a record of another rate is resampled if `resample`, else refused."""
    resample: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The recorder's names that mean a lead under another name."""
    longest_gap: float = 0.2
    """Seconds of NaN that are interpolated; a lead with a longer gap is missing."""
    fewest: int = 1
    """Leads with a signal that a record must have."""
    shortest: float = 0.0
    """Seconds that a record must have."""


@dataclass(frozen=True)
class Signal:
    """A record in the form that a shard stores."""

    array_CT: NDArray[np.int16] | NDArray[np.float32]
    """Integers of the source with `scale`, or mV; zeros where a lead is missing."""
    scale: list[float] | None
    """mV for one unit of each lead."""
    keep: list[bool]
    """False where a lead is missing or flat."""
    flat: list[str]
    """Leads that are there and hold one value throughout."""
    gaps: dict[str, float]
    """Seconds without a value of each lead that has such."""


def conform(channels: Sequence[Channel], leads: Leads) -> Signal:
    """Bring a record's channels into the form of the folder.

    Integers stay integers, so that the round trip is exact: a gap in them is filled with the nearest unit. Where one
    lead has to be resampled, or does not fit int16, all are float32.

    Raises:
        ValueError: why the record can't be used.
    """
    chosen = [_voltage(channel) if channel else None for channel in _choose(channels, leads)]
    _check_lengths([channel for channel in chosen if channel], leads)
    repaired = [_fill(channel, leads.longest_gap) if channel else None for channel in chosen]
    there = [channel for channel in repaired if channel]
    array_CT: NDArray[np.int16] | NDArray[np.float32]
    scale: list[float] | None = None
    if all(_fits_int16(channel, leads.sampling_rate) for channel in there):
        array_CT = _stack([channel.values_T if channel else None for channel in repaired], np.int16)
        scale = [1.0 / channel.gain if channel else 1.0 for channel in repaired]
    else:
        rate = leads.sampling_rate
        array_CT = _stack([_resample(channel, rate) if channel else None for channel in repaired], np.float32)
    present = [channel is not None for channel in repaired]
    varies = (array_CT != array_CT[:, :1]).any(axis=1)
    keep = [is_there and bool(lead_varies) for is_there, lead_varies in zip(present, varies, strict=True)]
    if not any(keep):
        raise ValueError("no lead carries a signal: each is missing, NaN or flat")
    if sum(keep) < leads.fewest:
        raise ValueError(f"{sum(keep)} of its leads carry a signal, fewer than the {leads.fewest} asked for")
    return Signal(
        array_CT,
        scale,
        keep,
        flat=[name for name, is_there, kept in zip(leads.names, present, keep, strict=True) if is_there and not kept],
        gaps={
            name: round(float(_missing(channel).sum()) / channel.rate, 4)
            for name, channel in zip(leads.names, chosen, strict=True)
            if channel and _missing(channel).any()
        },
    )


def _stack(leads: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> NDArray[Any]:
    """Leads cut to the shortest, zeros where one is missing; [C, 0] where all are."""
    length = min((len(lead_T) for lead_T in leads if lead_T is not None), default=0)
    array_CT = np.zeros((len(leads), length), dtype)
    for row_T, lead_T in zip(array_CT, leads, strict=True):
        if lead_T is not None:
            row_T[:] = lead_T[:length]
    return array_CT


def lead_name(name: str) -> str:
    """What names are compared by: AVR, avr and `Lead aVR` are one lead, -aVR is another."""
    plain = name.casefold().replace(" ", "").replace("_", "")
    return re.sub("^(?:lead|ecg)+(?=.)", "", plain)


def _choose(channels: Sequence[Channel], leads: Leads) -> list[Channel | None]:
    renamed = {lead_name(old): lead_name(new) for old, new in leads.renamed.items()}
    found: dict[str, Channel] = {}
    for channel in channels:
        name = lead_name(channel.name)
        name = renamed.get(name, name)
        if name in found and name in map(lead_name, leads.names):
            raise ValueError(f"it has two channels for the lead {channel.name}")
        found[name] = channel
    chosen = [found.get(lead_name(name)) for name in leads.names]
    if not any(chosen):
        raise ValueError(
            f"none of its channels ({', '.join(channel.name for channel in channels)}) is one of the leads"
            f" {' '.join(leads.names)}: say which is which with --rename"
        )
    return chosen


def _voltage(channel: Channel) -> Channel:
    """The channel in mV."""
    if channel.fault:
        raise ValueError(f"its lead {channel.name} {channel.fault}")
    factor = PER_MILLIVOLT.get(channel.unit.strip().casefold())
    if factor is None:
        raise ValueError(f"its lead {channel.name} is in {channel.unit or 'no unit'}, which is no voltage")
    values_T, missing_T, gain = channel.values_T, channel.missing_T, channel.gain
    if values_T.dtype.kind == "f":
        values_T = values_T / (gain * factor)
        missing_T, gain = np.isnan(values_T), 1.0
    else:
        gain = gain * factor
        if not LOWEST_GAIN < gain < HIGHEST_GAIN:
            raise ValueError(f"its lead {channel.name} has a gain of {gain:g} per mV, which no recorder has")
    present_T = values_T[~missing_T] if missing_T.size else values_T
    if present_T.size:
        highest = max(-float(present_T.min()), float(present_T.max())) / gain
        if not math.isfinite(highest):
            raise ValueError(f"its lead {channel.name} holds infinite values")
        if highest > HIGHEST_MILLIVOLT:
            raise ValueError(
                f"its lead {channel.name} reaches {highest:.4g} mV, which no ECG does: its unit or gain is wrong"
            )
    return Channel(channel.name, "mV", channel.rate, values_T, gain, missing_T)


def _check_lengths(channels: Sequence[Channel], leads: Leads) -> None:
    for channel in channels:
        if not LOWEST_RATE <= channel.rate <= HIGHEST_RATE:
            raise ValueError(f"it has {channel.rate:g} Hz, which is no sampling rate of an ECG")
        if channel.rate != leads.sampling_rate and not leads.resample:
            raise ValueError(
                f"it has {channel.rate:g} Hz and the folder {leads.sampling_rate:g} Hz:"
                f" state the rate that all shall have with --sampling-rate"
            )
    seconds = [len(channel.values_T) / channel.rate for channel in channels]
    if max(seconds) - min(seconds) > 2.0 / min(channel.rate for channel in channels):
        raise ValueError(f"its leads differ in length, from {min(seconds):g} to {max(seconds):g} s")
    if min(seconds) == 0.0:
        raise ValueError("it holds no samples")
    if min(seconds) < leads.shortest:
        raise ValueError(f"it is {min(seconds):g} s long, less than the {leads.shortest:g} s asked for")


def _missing(channel: Channel) -> NDArray[np.bool_]:
    return channel.missing_T if channel.missing_T.size else np.zeros(len(channel.values_T), np.bool_)


def _fill(channel: Channel, longest_gap: float) -> Channel | None:
    """The channel with its gaps interpolated, at its ends held; None where one is too long."""
    missing_T = _missing(channel)
    if not missing_T.any():
        return channel
    edges = np.flatnonzero(np.diff(missing_T, prepend=False, append=False))
    if (edges[1::2] - edges[::2]).max() > round(longest_gap * channel.rate, 6) or missing_T.all():
        return None
    times_T = np.arange(len(missing_T))
    values_T = channel.values_T.copy()
    filled = np.interp(times_T[missing_T], times_T[~missing_T], values_T[~missing_T])
    values_T[missing_T] = np.rint(filled) if values_T.dtype.kind == "i" else filled
    return Channel(channel.name, channel.unit, channel.rate, values_T, channel.gain)


def _fits_int16(channel: Channel, rate: float) -> bool:
    values_T = channel.values_T
    return values_T.dtype.kind == "i" and channel.rate == rate and values_T.min() >= -32768 and values_T.max() <= 32767


def _resample(channel: Channel, rate: float) -> NDArray[np.float64]:
    """In mV at `rate`: polyphase filtering with scipy's zero-phase low-pass; the ends continue their line.

    Less its offset, since the branches of the filter differ in their gain at 0 Hz by 6.5e-4: electrodes have offsets of
    some 300 mV, which would become ripples of 0.2 mV.
    """
    volt_T = channel.values_T / channel.gain
    if channel.rate == rate:
        return volt_T
    from scipy.signal import resample_poly

    ratio = Fraction(rate / channel.rate).limit_denominator(LARGEST_FRACTION)
    offset = np.median(volt_T)
    resampled: NDArray[np.float64] = resample_poly(volt_T - offset, ratio.numerator, ratio.denominator, padtype="line")
    return resampled + offset
