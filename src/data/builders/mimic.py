"""The layout of MIMIC-IV-ECG: record_list.csv and machine_measurements.csv beside files/ with WFDB records.

Gow et al., MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset, PhysioNet, 2023.
"""

from __future__ import annotations

from pathlib import Path

from src.data.builders.sources import Listing, Source, record_path, rows_of

TABLE, MEASUREMENTS = "record_list.csv", "machine_measurements.csv"
COLUMNS = ("subject_id", "study_id", "path")
REPORTS = tuple(f"report_{number}" for number in range(18))
FILES = "files"


def list_mimic(root: Path) -> Listing:
    """The records with the machine's report, its lines joined; the times of the tables are not read.

    Without machine_measurements.csv no record has a report.

    Raises:
        ValueError: a table is not the published one, or a row of it.
    """
    reports = _reports(root / MEASUREMENTS) if (root / MEASUREMENTS).is_file() else {}
    sources: list[Source] = []
    seen: set[str] = set()
    for line, row in enumerate(rows_of(root / TABLE, COLUMNS), 1):
        subject, study = _number(root / TABLE, line, row, "subject_id"), _number(root / TABLE, line, row, "study_id")
        if study in seen:
            raise ValueError(f"{root / TABLE}: row {line} is of the study {study}, which an earlier row is of")
        seen.add(study)
        try:
            path = record_path(root, row["path"].strip())
            if path.relative_to(root).parts[0] != FILES:
                raise ValueError(f"the path {row['path']!r} must lead below {FILES}")
        except ValueError as error:
            raise ValueError(f"{root / TABLE}: row {line}: {error}") from None
        name = str(path.relative_to(root))
        sources.append(
            Source(name=name, path=path, key=f"mimic-{study}", patient=subject, text=reports.get((subject, study)))
        )
    if not sources:
        raise ValueError(f"{root / TABLE} has no rows")
    return Listing(sources)


def _reports(path: Path) -> dict[tuple[str, str], str]:
    found = {}
    for line, row in enumerate(rows_of(path, ("subject_id", "study_id", *REPORTS)), 1):
        text = "; ".join(word for name in REPORTS if (word := " ".join(row[name].split())))
        if text:
            found[_number(path, line, row, "subject_id"), _number(path, line, row, "study_id")] = text
    return found


def _number(path: Path, line: int, row: dict[str, str], column: str) -> str:
    value = row[column].strip()
    if not (value.isascii() and value.isdecimal()):
        raise ValueError(f"{path}: row {line}: {column} is {value!r}, expected is a whole number")
    return value
