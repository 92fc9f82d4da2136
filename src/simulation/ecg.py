"""A cohort of simulated 12-lead ECGs as an archive that `python -m tools.build_shards ecg` reads.

`dynamics` makes the signal, `findings` says what it shows, `reports` what is written of it, `oracle` what can be known.
"""

# N records, K findings

from __future__ import annotations

import csv
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from src.simulation.dynamics import LEADS, quantised, render
from src.simulation.findings import FINDINGS, SPLITS, Records, draw_records
from src.simulation.oracle import oracle_scores
from src.simulation.reports import write_reports

RECIPE = 1
"""Counts changes of what the same numbers make."""
PATIENTS_AT_ONCE = 32
SIGNALS, TABLE, ORACLE, COHORT, README = "ecg.npy", "records.csv", "oracle.csv", "cohort.json", "README.txt"
ABOUT = """Simulated 12-lead ECGs: nobody's heart, and no evidence of anything in medicine.

{signals}    int16 [records, 12, samples] in microvolts, leads {leads}
{table}  a row for each: record, patient, age, sex, split, a 0 or 1 for each finding, report
{oracle}   record and the probability of each finding by a hand-written reader that knows the generator
{cohort}  patients, seed and rate; the same numbers make the same files

{command}
"""


@dataclass(frozen=True)
class Cohort:
    """What a cohort is a function of."""

    patients: int = 1500
    seed: int = 0
    sampling_rate: float = 100.0
    """Hz."""
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.patients < 1:
            raise ValueError(f"--patients {self.patients} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed} must be at least 0 and below 2^63")
        if not 80 <= self.sampling_rate <= 2000:
            raise ValueError(f"--sampling-rate {self.sampling_rate:g} must be 80 to 2000 Hz")
        if not 5 <= self.seconds <= 60:
            raise ValueError(f"--seconds {self.seconds:g} must be 5 to 60: rhythms need room")

    @property
    def length(self) -> int:
        """Samples of a record."""
        return round(self.seconds * self.sampling_rate)

    def parts(self) -> Iterator[Records]:
        """The records, some patients at a time."""
        for first in range(0, self.patients, PATIENTS_AT_ONCE):
            yield draw_records(self.seed, first, min(first + PATIENTS_AT_ONCE, self.patients))


def write_cohort(folder: Path, cohort: Cohort) -> int:
    """Write the archive; the folder appears when all is in it. Returns the number of records.

    Raises:
        ValueError: the folder exists and is not empty.
    """
    refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        count = _write_parts(draft, cohort)
        about = {
            **asdict(cohort),
            "records": count,
            "recipe": RECIPE,
            "leads": LEADS,
            "findings": FINDINGS,
            "splits": SPLITS,
        }
        (draft / COHORT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (draft / README).write_text(_about(folder, cohort), encoding="utf-8")
        draft.chmod(0o755)
        refuse_filled(folder)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft)
        raise
    return count


def refuse_filled(folder: Path) -> None:
    """Raise ValueError unless a new archive may be written there."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ValueError(f"{folder} exists already and is never overwritten: name a new folder with --output")


def _write_parts(folder: Path, cohort: Cohort) -> int:
    count = sum(len(records) for records in cohort.parts())
    signals = np.lib.format.open_memmap(
        folder / SIGNALS, mode="w+", dtype=np.int16, shape=(count, len(LEADS), cohort.length)
    )
    done = 0
    with _open(folder / TABLE) as table, _open(folder / ORACLE) as oracle, tqdm(total=count, unit=" records") as bar:
        rows, scores = csv.writer(table), csv.writer(oracle)
        rows.writerow(["record", "patient", "age", "sex", "split", *FINDINGS, "report"])
        scores.writerow(["record", *FINDINGS])
        for records in cohort.parts():
            signals[done : done + len(records)] = quantised(render(records, cohort.sampling_rate, cohort.seconds))
            rows.writerows(_rows(records))
            scores.writerows(_scores(records))
            done += len(records)
            bar.update(len(records))
    signals.flush()
    return count


def _open(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", newline="")


def record_names(records: Records) -> list[str]:
    """`p000012-1` is the second record of patient 12."""
    return [f"p{patient:06d}-{number}" for patient, number in zip(records.patient, records.number, strict=True)]


def _rows(records: Records) -> Iterator[list[Any]]:
    reports = write_reports(records)
    for row, name in enumerate(record_names(records)):
        labels = records.labels_NK[row].astype(int).tolist()
        sex = "F" if records.female[row] else "M"
        yield [name, name.partition("-")[0], records.age[row], sex, records.split[row], *labels, reports[row]]


def _scores(records: Records) -> Iterator[list[str]]:
    scores_NK = oracle_scores(records)
    for name, scores in zip(record_names(records), scores_NK, strict=True):
        yield [name, *(f"{score:.6g}" for score in scores)]


def build_command(folder: Path, cohort: Cohort) -> str:
    """The command line that makes shards of an archive; its ids name nobody and are kept."""
    signals, table, shards = (shlex.quote(str(path)) for path in (folder / SIGNALS, folder / TABLE, f"{folder}-shards"))
    return (
        f"python -m tools.build_shards ecg --input {signals} --table {table}"
        f" --source-rate {cohort.sampling_rate:g} --per-millivolt 1000 --patient-column patient --split-column split"
        f" --text-column report --label-columns {' '.join(FINDINGS)} --meta-columns record age sex --keep-ids"
        f" --output {shards}"
    )


def _about(folder: Path, cohort: Cohort) -> str:
    return ABOUT.format(
        signals=SIGNALS,
        table=TABLE,
        oracle=ORACLE,
        cohort=COHORT,
        leads=" ".join(LEADS),
        command=build_command(folder, cohort),
    )
