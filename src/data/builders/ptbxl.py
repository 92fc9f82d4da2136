"""The layout of PTB-XL: ptbxl_database.csv and scp_statements.csv beside the folders of records.

Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Scientific Data 7:154, 2020.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from src.data.builders.sources import Listing, Source, plain, read_table, record_path
from src.data.index import Labels

TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
COLUMNS = ("ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr", "age", "sex")
RATES = {100.0: "filename_lr", 500.0: "filename_hr"}
FOLDS = {"train": tuple(range(1, 9)), "val": (9,), "test": (10,)}
"""The authors' own: folds 9 and 10 were checked by a person."""
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
GROUPS = {"superclass": "diagnostic_class", "subclass": "diagnostic_subclass"}
SETS = ("superclass", "subclass", "diagnostic", "form", "rhythm", "all")


def list_ptbxl(root: Path, rate: float, sets: Iterable[str], folds: Mapping[str, Iterable[int]]) -> Listing:
    """The records of PTB-XL with labels, report, age, sex and fold.

    A label is 1 where a statement is given at any likelihood, as in the authors' benchmark (Strodthoff et al. 2021).
    Ages of 300 stand for more than 89. Records at a rate that is not `rate` are read at 500 Hz.

    Raises:
        ValueError: a table is not the published one, or a row of it.
    """
    statements = read_table(root / STATEMENTS, ("", "diagnostic", "form", "rhythm", *GROUPS.values()))
    names_of = _names(statements, tuple(sets))
    names = _vector(names_of)
    split_of = {fold: split for split, own in folds.items() for fold in own}
    sources: list[Source] = []
    rejected: list[tuple[str, str]] = []
    for row in read_table(root / TABLE, COLUMNS):
        try:
            fold, number = int(float(row["strat_fold"])), int(row["ecg_id"])
            patient = str(int(float(row["patient_id"]))) if row["patient_id"] else None
            given = {label for code in _codes(row["scp_codes"], names_of) for label in names_of[code]}
            name = row[RATES.get(rate, "filename_hr")]
            path, meta = record_path(root, name), _meta(row, fold)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{root / TABLE}: the row of ecg_id {row['ecg_id']} can't be read: {error}") from None
        if fold not in split_of:
            rejected.append((name, f"its fold {fold} is in no split"))
            continue
        sources.append(
            Source(
                name=name,
                path=path,
                key=f"ptbxl-{number:05d}",
                split=split_of[fold],
                patient=patient,
                labels=tuple(float(label in given) for label in names),
                text=row["report"].strip() or None,
                meta=meta,
            )
        )
    return Listing(sources, Labels(names=names), rejected)


def _codes(text: str, known: Mapping[str, Any]) -> dict[str, float]:
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        codes = None
    if not isinstance(codes, dict):
        raise ValueError(f"scp_codes is {text!r}, expected is {{statement: likelihood, ...}}")
    if unknown := [code for code in codes if code not in known]:
        raise ValueError(f"the statement {unknown[0]!r} is not in {STATEMENTS}")
    return codes


def _names(statements: list[dict[str, str]], sets: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The labels that each statement gives: its superclass, its subclass, itself.

    With several sets the superclasses and subclasses are called superclass/MI and subclass/AMI, since AMI is both a
    subclass and a statement.
    """
    names: dict[str, tuple[str, ...]] = {}
    for row in statements:
        own = []
        for kind, column in GROUPS.items():
            if kind in sets and row[column]:
                own.append(row[column] if len(sets) == 1 else f"{kind}/{row[column]}")
        if "all" in sets or any(kind in sets and row[kind] for kind in ("diagnostic", "form", "rhythm")):
            own.append(row[""])
        names[row[""]] = tuple(own)
    return names


def _vector(names_of: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The superclasses in the authors' order, then the others in that of the table."""
    found = list(dict.fromkeys(name for own in names_of.values() for name in own))
    classes = [f"superclass/{name}" for name in SUPERCLASSES] if any("/" in name for name in found) else SUPERCLASSES
    return tuple(sorted(found, key=lambda name: classes.index(name) if name in classes else len(classes)))


def _meta(row: Mapping[str, str], fold: int) -> dict[str, Any]:
    """What may be told of a public record: age in years, sex (0 male, 1 female), the fold, site and device."""
    meta: dict[str, Any] = {"fold": fold}
    for column in ("age", "sex", "site"):
        if row.get(column) and (value := plain(row[column])) is not None:
            if isinstance(value, str):
                raise ValueError(f"{column} is {value!r}, expected is a number")
            meta[column] = value
    if row.get("device", "").strip():
        meta["device"] = row["device"].strip()
    return meta
