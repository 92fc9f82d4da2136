"""Reads EDF and EDF+ through edfio (Apache-2.0); Kemp & Olivan, Clinical Neurophysiology 114(9), 2003."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from src.data.builders.about import About, age_between, patient_of, sex_of
from src.data.builders.records import LARGEST_RECORD, Unusable, refuse_special, told, whole_rate
from src.data.builders.signals import Channel

SUFFIX = ".edf"
WHOLE = 1e-6
"""Units by which an offset may miss a whole number: EDF writes its ranges in 8 characters."""


@dataclass(frozen=True)
class EDFFiles:
    """One record in each `.edf`."""

    def rate(self, path: Path, row: int | None) -> float:
        """The highest rate of the record's channels, Hz."""
        return max((channel.rate for channel in self.read(path, row)), default=0.0)

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record, annotations aside.

        Raises:
            ValueError: the file is missing, cut off, discontinuous, or no EDF.
        """
        with told(path, "EDF"):
            edf = _open(path)
            if edf.reserved.startswith("EDF+D"):
                raise Unusable("it is discontinuous (EDF+D): cut it into its stretches")
            found = [_channel(signal) for signal in edf.signals]
        if not found:
            raise ValueError("it holds no signals")
        return found


def about_edf(path: Path) -> About:
    """Of whom a record is: the code, sex and birth date of EDF+; plain EDF has free text there, which is not read.

    Raises:
        ValueError: as for its signals.
    """
    with told(path, "EDF"):
        edf = _open(path)
        if not edf.reserved.startswith("EDF+"):
            return About()
        birth = start = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would print dates
            patient = edf.patient
            with suppress(ValueError):  # 'X' where it was taken out
                birth, start = patient.birthdate, edf.startdate
        return About(patient_of(patient.code), age_between(_day(birth), _day(start)), sex_of(patient.sex))


def _open(path: Path) -> Any:
    import edfio

    refuse_special(path)
    size = path.stat().st_size
    if size > LARGEST_RECORD:
        raise Unusable(f"{path.name} has {size:,} bytes, more than the {LARGEST_RECORD:,} that a record may have")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns where a file is cut off
        return edfio.read_edf(path, lazy_load_data=True)


def _channel(signal: Any) -> Channel:
    """Whole units where the header's ranges allow it, else values in its unit."""
    (low, high), (least, most) = signal.digital_range, signal.physical_range
    name, unit, rate = signal.label, signal.physical_dimension, whole_rate(float(signal.sampling_frequency))
    if low >= high or not np.isfinite([least, most]).all() or least == most:
        return Channel(name, unit, rate, np.zeros(0), fault=f"has the ranges {low} .. {high} and {least:g} .. {most:g}")
    units_T = signal.digital.astype(np.int64)
    gain = (high - low) / (most - least)
    zero = low - least * gain
    if abs(zero - round(zero)) > WHOLE:
        return Channel(name, unit, rate, (units_T - low) / gain + least)
    turned = -1 if gain < 0 else 1
    return Channel(name, unit, rate, turned * (units_T - round(zero)), abs(gain))


def _day(value: Any) -> date | None:
    return value if isinstance(value, date) else None
