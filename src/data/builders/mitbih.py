"""Reads beats cut from the MIT-BIH Arrhythmia Database, out of one .npz.

Moody & Mark, IEEE Eng. Med. Biol. 20(3), 2001; Goldberger et al., Circulation 101(23), 2000; ODC-By 1.0. The .npz holds
one second around each annotated beat, resampled to 128 Hz, in the patient split DS1 / DS2 of de Chazal et al. 2004.
The two channels are electrodes that differ from record to record, so they carry numbers and no names of leads.
A patient is a record; the database says that 201 and 202 are one man, and this customary split has them apart.
"""

# N beats, T samples of a lead

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.index import Labels
from src.data.write_shards import Description, Record
from src.files import sha256_of

SAMPLING_RATE = 128.0
"""Hz."""
SCALE = 0.005
"""mV per unit."""
LEADS = ("ECG1", "ECG2")
CLASSES = ("N", "S", "V", "F")
"""AAMI EC57: normal and bundle branch block, supraventricular ectopic, ventricular ectopic, fusion."""
SPLITS = ("train", "test")
FIELDS = {"x": "int16 [N, 2, T]", "aami": "[N]", "symbol": "[N]", "record": "[N]", "split": "[N]"}


@dataclass(frozen=True)
class Beats:
    """The arrays of the .npz."""

    path: Path
    x_N2T: NDArray[np.int16]
    aami_N: NDArray[np.int64]
    """Class 0 .. 3."""
    symbol_N: NDArray[np.str_]
    """The annotators' beat code."""
    record_N: NDArray[np.int64]
    split_N: NDArray[np.int64]
    """0 train, 1 test."""

    def __len__(self) -> int:
        return len(self.x_N2T)

    def records(self) -> Iterator[Record]:
        """The beats in the file's order, numbered within their record."""
        numbers: Counter[int] = Counter()
        for beat in range(len(self)):
            record = int(self.record_N[beat])
            yield self._record(beat, record, numbers[record])
            numbers[record] += 1

    def _record(self, beat: int, record: int, number: int) -> Record:
        name = f"{record}-{number:05d}"
        meta: dict[str, Any] = {
            "id": name,
            "patient_id": str(record),
            "symbol": str(self.symbol_N[beat]),
            "labels": [int(self.aami_N[beat] == label) for label in range(len(CLASSES))],
            "scale": [SCALE] * len(LEADS),
        }
        return Record(SPLITS[self.split_N[beat]], f"mitdb-{name}", self.x_N2T[beat], meta)

    def description(self) -> Description:
        """What the index says of them."""
        source = {
            "name": "MIT-BIH Arrhythmia Database",
            "licence": "ODC-By 1.0",
            "reader": "mitbih",
            "file": self.path.name,
            "sha256": sha256_of(self.path),
        }
        return Description(LEADS, SAMPLING_RATE, Labels(names=CLASSES, kind="multiclass"), source)


def read_beats(path: Path) -> Beats:
    """Open the .npz; nothing in it is unpickled.

    Raises:
        ValueError: there is no such file, it is damaged or has another layout.
    """
    arrays = _load(path)
    if set(arrays) != set(FIELDS):
        raise ValueError(f"{path} holds the fields {_names(arrays)}, expected are {_names(FIELDS)}: is it a beats.npz?")
    x = arrays["x"]
    if x.dtype != np.int16 or x.ndim != 3 or x.shape[1] != len(LEADS):
        raise ValueError(f"{path}: x is {x.dtype} {list(x.shape)}, expected is {FIELDS['x']}")
    for name in ("aami", "symbol", "record", "split"):
        kinds = "U" if name == "symbol" else "iu"
        if arrays[name].shape != x.shape[:1] or arrays[name].dtype.kind not in kinds:
            raise ValueError(
                f"{path}: {name} is {arrays[name].dtype} {list(arrays[name].shape)}, expected is"
                f" {'text' if name == 'symbol' else 'integers'} [{len(x)}], one for each beat of x"
            )
    _check_range(path, "aami", arrays["aami"], len(CLASSES))
    _check_range(path, "split", arrays["split"], len(SPLITS))
    numbers = {name: arrays[name].astype(np.int64) for name in ("aami", "record", "split")}
    return Beats(path, x, numbers["aami"], arrays["symbol"], numbers["record"], numbers["split"])


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with file:
            return dict(file)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: name the .npz with --input") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} can't be read as an .npz of plain arrays ({error}): make or fetch it again"
        ) from error


def _names(fields: dict[str, Any]) -> str:
    return "[" + ", ".join(sorted(fields)) + "]"


def _check_range(path: Path, name: str, values_N: NDArray[Any], count: int) -> None:
    wrong = np.flatnonzero((values_N < 0) | (values_N >= count))
    if wrong.size:
        raise ValueError(f"{path}: {name} of beat {wrong[0]} is {values_N[wrong[0]]}, expected is 0 .. {count - 1}")
