"""HDF5: the layout of CODE-15%, and what keeps any HDF5 file from reaching out of itself or unpacking without end.

Ribeiro et al., CODE-15%: a large scale annotated dataset of 12-lead ECGs, Zenodo 4916206, 2021: exams.csv beside
exams_part0.hdf5, ..., each with `tracings` [N, 4096, 12] at 400 Hz and `exam_id` [N].
"""

# N exams of a file, T samples of a lead

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.builders.about import age_of, patient_of
from src.data.builders.records import LARGEST_RECORD, Unusable, refuse_special, told
from src.data.builders.signals import Channel
from src.data.builders.sources import Listing, Source, inside, plain, read_table
from src.data.index import Labels

TABLE = "exams.csv"
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
COLUMNS = ("exam_id", "age", "is_male", *LABELS, "patient_id", "trace_file")
"""Those that are looked at; predicted age, death and follow-up go nowhere."""
TRACINGS, EXAMS = "tracings", "exam_id"
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""DI, DII, DIII, AVR, AVL, AVF, V1 ... V6 in the authors' words."""
SAMPLING_RATE = 400.0
"""Hz."""
MOST_EXAMS = 10_000_000
"""In one file; all of CODE-15% are 345,779."""


@dataclass(frozen=True)
class TracingFiles:
    """Exams of CODE-15%: the row of a file of many."""

    per_millivolt: float = 1.0
    """Values for 1 mV."""

    def rate(self, path: Path, row: int | None) -> float:
        """The rate that all have, Hz."""
        return SAMPLING_RATE

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The leads of an exam, less the padding: samples at both ends where all leads are exactly 0.

        Raises:
            ValueError: the file is missing, damaged, or has another layout.
        """
        with told(path, "HDF5"), opened(path) as file:
            tracings = dataset(file, TRACINGS)
            if tracings.ndim != 3 or tracings.shape[2] != len(LEADS) or tracings.dtype.kind not in "iuf":
                raise Unusable(
                    f"its {TRACINGS} are {tracings.dtype} {list(tracings.shape)}, expected are numbers"
                    f" [exams, samples, {len(LEADS)}]"
                )
            if row is None or row >= len(tracings):
                raise Unusable(f"its {TRACINGS} are of {len(tracings)} exams, row {row} is asked for")
            refuse_large(tracings, math.prod(tracings.shape[1:]))
            array_T12 = tracings[row]
        there = np.flatnonzero((array_T12 != 0).any(axis=1))  # NaN is not 0
        array_T12 = array_T12[there[0] : there[-1] + 1] if there.size else array_T12[:0]
        values_12T = array_T12.T.astype(np.int64 if array_T12.dtype.kind in "iu" else np.float64)
        return [
            Channel(name, "mV", SAMPLING_RATE, values_T, self.per_millivolt)
            for name, values_T in zip(LEADS, values_12T, strict=True)
        ]


def list_code15(root: Path) -> Listing:
    """The exams of exams.csv with their six labels, age and sex (0 male, 1 female).

    Raises:
        ValueError: the table is not the published one, or a row of it.
    """
    rows = read_table(root / TABLE, COLUMNS)
    counts = Counter(row["exam_id"].strip() for row in rows)
    if (often := counts.most_common(1)[0])[1] > 1:
        raise ValueError(f"{root / TABLE} has {often[1]} rows of the exam {often[0]}: keep one of them")
    sources: list[Source] = []
    rejected: list[tuple[str, str]] = []
    places: dict[str, dict[int, int] | str] = {}
    for line, row in enumerate(rows):
        exam, name = row["exam_id"].strip(), row["trace_file"].strip()
        known = tuple(_label(root, line + 1, column, row[column]) for column in LABELS)
        path = inside(root, name) if name else root
        if name not in places:
            places[name] = _places(path) if name else f"{TABLE} names no trace_file for it"
        place = _place(places[name], exam)
        if isinstance(place, str):
            rejected.append((f"{name} exam {exam}", place))
            continue
        male = plain(row["is_male"])
        meta = {"age": age_of(row["age"]), "sex": {1.0: 0.0, 0.0: 1.0}.get(male) if isinstance(male, float) else None}
        sources.append(
            Source(
                name=f"{name} exam {exam}",
                path=path,
                patient=patient_of(re.sub(r"\.0+$", "", row["patient_id"].strip())),
                row=place,
                labels=known,
                meta={key: value for key, value in meta.items() if value is not None},
            )
        )
    return Listing(sources, Labels(names=LABELS), rejected)


def _label(root: Path, line: int, column: str, text: str) -> float | None:
    value = plain(text)
    if isinstance(value, str) or value not in (None, 0.0, 1.0):
        raise ValueError(f"{root / TABLE}: row {line}: {column} is {text!r}, expected is True or False")
    return value


def _place(places: dict[int, int] | str, exam: str) -> int | str:
    """The row of an exam, or why there is none."""
    if isinstance(places, str):
        return places
    row = places.get(int(exam)) if exam.isdecimal() else None
    if row is None:
        return "its file does not hold that exam"
    return row if row >= 0 else "its file holds that exam twice"


def _places(path: Path) -> dict[int, int] | str:
    """The row of each exam of a file, -1 where it has two; or why the file can't be used."""
    try:
        with told(path, "HDF5"), opened(path) as file:
            exams = dataset(file, EXAMS)
            if exams.ndim != 1 or exams.dtype.kind not in "iu":
                raise Unusable(f"its {EXAMS} is {exams.dtype} {list(exams.shape)}, expected are integers [exams]")
            refuse_large(exams, len(exams))
            if len(exams) > MOST_EXAMS:
                raise Unusable(
                    f"it says that it holds {len(exams):,} exams, more than the {MOST_EXAMS:,} of any archive"
                )
            exams_N = exams[:].tolist()
    except ValueError as error:
        return str(error)
    counts = Counter(exams_N)
    return {exam: row if counts[exam] == 1 else -1 for row, exam in enumerate(exams_N)}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading; failing storage is an OSError that says so."""
    import h5py

    refuse_special(path)
    with path.open("rb"):  # says by itself what is wrong with the path
        pass
    try:
        with h5py.File(os.fspath(path), "r", locking=False) as file:
            yield file
    except OSError as error:
        if error.errno is None and (number := re.search(r"errno = ([1-9]\d*)", str(error))):
            raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from error
        raise


def dataset(file: Any, name: str) -> Any:
    """A dataset that lies in the file itself.

    Raises:
        ValueError: there is none, or it is a link to somewhere else.
    """
    import h5py

    if name not in file:
        raise Unusable(f"it has no {name}: it has {', '.join(list(file)[:20]) or 'nothing'}")
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise Unusable(f"its {name} is no array of its own")
    if found.external or found.is_virtual:
        raise Unusable(f"its {name} lies in other files")
    return found


def refuse_large(found: Any, values: int) -> None:
    """Refuse to read so many values of a dataset where they, or the chunks they lie in, are out of proportion."""
    most = max(values, math.prod(found.chunks or (0,))) * found.dtype.itemsize
    if most > LARGEST_RECORD:
        raise Unusable(f"its array unpacks to {most:,} bytes, more than the {LARGEST_RECORD:,} that a record may have")
