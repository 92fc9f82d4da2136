"""Reads one record's channels: WFDB through the wfdb library, arrays through numpy. Nothing is unpickled."""

# C channels, T samples of one

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.signals import Channel

HEADER = ".hea"
LONGEST_HEADER = 1 << 20
OF_THE_PATH = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
"""What is wrong with one record's path, and not with the storage."""


@dataclass(frozen=True)
class WFDBFiles:
    """Records with a header: `.hea` beside `.dat` or `.mat`, named by their path without suffix."""

    verify: bool = True
    """Compare each signal with the checksum that its header has."""

    def rate(self, path: Path, row: int | None) -> float:
        """The highest rate of the record's channels, Hz."""
        with told(path, "WFDB"):
            import wfdb

            _look_at_header(path)
            header = wfdb.rdheader(os.fspath(path))
            return _rate(header) * max(header.samps_per_frame or [1])

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record.

        Raises:
            ValueError: a file is missing, damaged, or none that wfdb reads.
        """
        with told(path, "WFDB"):
            import wfdb

            _look_at_header(path)
            record = wfdb.rdrecord(os.fspath(path), physical=False, smooth_frames=False)
            volts = record.dac(expanded=True)
            sums = record.calc_checksum(expanded=True) if self.verify else record.checksum
            return [
                _channel(record, number, np.isnan(volts[number]), sums[number] if sums else None)
                for number in range(record.n_sig)
            ]


class Unusable(ValueError):
    """A record whose fault is said already."""


LARGEST_RECORD = 1 << 30
"""Bytes that one record may unpack to: a day of 12 leads at 500 Hz in 16 bits. More is a bomb, or no record."""


def _look_at_header(path: Path) -> None:
    """Refuse what wfdb would not come back from: pipes instead of files, and headers of several segments."""
    header = Path(f"{path}{HEADER}")
    refuse_special(header)
    with header.open("rb") as file:
        lines = [line for line in file.read(LONGEST_HEADER).splitlines() if line.strip() and not line.startswith(b"#")]
    if lines and re.match(rb"\s*\S+/\d", lines[0]):
        raise Unusable("it is the header of several segments, which are records of their own here")
    for name in {line.split()[0].decode(errors="replace") for line in lines[1:]}:
        refuse_special(header.with_name(Path(name).name))


def refuse_special(path: Path) -> None:
    """Refuse what would never end: a pipe, a device."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise Unusable(f"{path.name} is a pipe or a device, no file")


def _rate(record: Any) -> float:
    if not record.fs > 0:  # nor NaN
        raise Unusable(f"its header states a sampling rate of {record.fs:g} Hz")
    return float(record.fs)


@contextmanager
def told(path: Path, form: str) -> Iterator[None]:
    """Whatever reading a record may cause, as a ValueError; only failing storage goes on as it is."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"there is no {Path(error.filename or path).name}") from None
    except OSError as error:
        if error.errno is None:  # a library's own, on what a file holds
            raise ValueError(f"{path.name} can't be read as {form} ({error})") from error
        if error.errno not in OF_THE_PATH:
            raise
        raise ValueError(f"{Path(error.filename or path).name} can't be opened ({error.strerror})") from None
    except Unusable:
        raise
    except Exception as error:  # the libraries let through whatever a broken header causes
        raise ValueError(f"{path.name} can't be read as {form} ({type(error).__name__}: {error})") from error


def whole_rate(rate: float) -> float:
    """The rate, less what binary fractions make of a whole number of Hz: 1 / 0.001 for instance."""
    return float(round(rate)) if math.isfinite(rate) and abs(rate - round(rate)) < 1e-6 * abs(rate) else rate


def _channel(record: Any, number: int, missing_T: NDArray[np.bool_], found: int | None) -> Channel:
    stated = record.checksum[number] if record.checksum and not record.skew[number] else None  # skew shifts samples out
    damaged = stated is not None and found is not None and (stated - found) % 65536 != 0
    return Channel(
        name=record.sig_name[number] or f"{number + 1}, which has no name",
        unit=record.units[number],
        rate=_rate(record) * record.samps_per_frame[number],
        values_T=record.e_d_signal[number].astype(np.int64) - record.baseline[number],
        gain=float(record.adc_gain[number]),
        missing_T=missing_T if missing_T.any() else np.zeros(0, np.bool_),
        fault="is damaged: its checksum is not the header's (--ignore-checksums takes it as it is)" if damaged else "",
    )


@dataclass(frozen=True)
class NumpyFiles:
    """Arrays [C, T] or [T, C], one in each .npy, or many in one [N, C, T]."""

    names: tuple[str, ...]
    """Of the C channels."""
    sampling_rate: float
    """Hz."""
    per_millivolt: float = 1.0
    """Values for 1 mV."""

    def rate(self, path: Path, row: int | None) -> float:
        """The rate that all have, Hz."""
        return self.sampling_rate

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record; `row` is its place in an array of many.

        Raises:
            ValueError: the file is missing, damaged, or of another shape or type.
        """
        return channels_of(_load(path, row), self.names, self.sampling_rate, self.per_millivolt)


def channels_of(array: NDArray[Any], names: Sequence[str], rate: float, per_millivolt: float) -> list[Channel]:
    """The rows, or columns, of an array as channels.

    Raises:
        ValueError: it has another number of them, or holds no numbers.
    """
    if array.ndim != 2 or len(names) not in array.shape:
        raise ValueError(
            f"its array is {list(array.shape)}, with {len(names)} leads ({' '.join(names)}) expected is"
            f" [{len(names)}, samples] or [samples, {len(names)}]: name the leads with --source-leads"
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"its array is of type {array.dtype}, expected are integers or floats")
    array_CT = array if len(array) == len(names) else array.T
    array_CT = array_CT.astype(np.int64 if array.dtype.kind in "iu" else np.float64)
    return [Channel(name, "mV", rate, values_T, per_millivolt) for name, values_T in zip(names, array_CT, strict=True)]


def _load(path: Path, row: int | None) -> NDArray[Any]:
    with told(path, "a .npy of numbers"):
        array: NDArray[Any] = np.load(path, mmap_mode="r" if row is not None else None, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is an archive, expected is a .npy with one array")
    return array if row is None else np.array(array[row])


def check_rows(path: Path, table: Path, rows: int) -> None:
    """Refuse a table that has not one row for each record of an array of many.

    Raises:
        ValueError: so, or the array can't be read.
    """
    with told(path, "a .npy of numbers"):
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if len(shape) != 3 or shape[0] != rows:
        raise ValueError(
            f"{path} is {list(shape)} and {table} has {rows} rows: expected is [{rows}, leads, samples], a record for"
            " each row"
        )
