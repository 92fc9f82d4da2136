"""What a build starts from: the list of records, with split, patient, labels and report, before any is read."""

from __future__ import annotations

import bisect
import csv
import difflib
import hashlib
import hmac
import io
import itertools
import math
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src.data.builders.records import HEADER
from src.data.index import TRAINING_SPLIT, Labels
from src.data.write_shards import KEY, check_split
from src.files import replace_text

NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
LONGEST_CELL = 100_000_000
Known = tuple[float | None, ...]
RESERVED = {"id", "patient_id", "labels", "scale", "leads", "lead_keep", "flat_leads", "gaps", "sampling_rate"}


@dataclass(frozen=True, slots=True)
class Source:
    """A record that is still to be read."""

    name: str
    """What its owner knows it by: its path below the input; it goes nowhere but into the private files."""
    path: Path
    split: str = TRAINING_SPLIT
    patient: str | None = None
    """As its owner knows it; private too."""
    row: int | None = None
    """Its place in a file of many records."""
    key: str = ""
    patient_id: str | None = None
    """What the shards call the patient."""
    labels: Known = ()
    text: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """All records of an input."""

    sources: list[Source]
    labels: Labels = Labels()
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason of those that are refused unread."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what."""

    path: str | None
    patient: str | None = None
    text: str | None = None
    split: str | None = None
    labels: tuple[str, ...] = ()
    """One number each, nothing where unknown: a multilabel vector."""
    category: str | None = None
    """One word out of several: a multiclass vector."""
    meta: tuple[str, ...] = ()


def read_table(path: Path, wanted: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV (comma, semicolon or tab; UTF-8) that has the columns wanted.

    Raises:
        ValueError: no such file, no such column, a row of another length, no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is not there: name the CSV with the records") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None
    csv.field_size_limit(LONGEST_CELL)
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(lines, [])
        for name in wanted:
            if header.count(name) != 1:
                close = difflib.get_close_matches(name, header, 1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(header)}"
                raise ValueError(f"{path} has {'no' if name not in header else 'two'} column {name}: {hint}")
        for values in lines:
            if not values:
                continue
            if len(values) != len(header):
                raise ValueError(f"{path}, line {lines.line_num}: {len(values)} values for {len(header)} columns")
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def list_table(table: Path, root: Path, columns: Columns) -> Listing:
    """The records that a CSV lists: `root` is the folder of its paths, or one .npy with a record for each row.

    Raises:
        ValueError: the table can't be used; a row, a column or a value is named.
    """
    named = [columns.path, columns.patient, columns.text, columns.split, columns.category]
    rows = read_table(table, [name for name in (*named, *columns.labels, *columns.meta) if name])
    if taken := sorted(RESERVED & set(columns.meta)):
        raise ValueError(f"--meta-columns {taken[0]} is a name that every sample has already: rename that column")
    labels, known = _labels(table, rows, columns)
    sources: dict[str, Source] = {}
    line_of: dict[str, int] = {}
    for number, row in enumerate(rows):
        path, place = (root, number) if columns.path is None else (record_path(root, row[columns.path].strip()), None)
        name = f"{table.name} row {number + 1}" if place is not None else str(path.relative_to(root))
        if name in sources:
            raise ValueError(
                f"{table}: rows {line_of[name]} and {number + 1} are both of the record {name}: keep one of them"
            )
        line_of[name] = number + 1
        sources[name] = Source(
            name=name,
            path=path,
            row=place,
            split=_word(row[columns.split]) if columns.split else TRAINING_SPLIT,
            patient=_patient(row[columns.patient]) if columns.patient else None,
            labels=known[number],
            text=_word(row[columns.text]) or None if columns.text else None,
            meta={column: value for column in columns.meta if (value := plain(row[column])) is not None},
        )
    return Listing(list(sources.values()), labels)


def record_path(root: Path, path: str) -> Path:
    """Where a record lies; WFDB records are named without suffix. What leads out of `root` is refused."""
    record = Path(path)
    if not path or record.is_absolute() or ".." in record.parts:
        raise ValueError(f"the path {path!r} in the table must lead to a record below {root}")
    return root / (record.with_suffix("") if record.suffix in (HEADER, ".dat", ".mat") else record)


def _labels(table: Path, rows: Sequence[Mapping[str, str]], columns: Columns) -> tuple[Labels, list[Known]]:
    if columns.category is not None:
        words = [_word(row[columns.category]) for row in rows]
        names = tuple(sorted(set(words) - {""}))
        known: list[Known] = [tuple(float(word == name) if word else None for name in names) for word in words]
        return Labels(names=names, kind="multiclass"), known
    values: list[Known] = []
    for number, row in enumerate(rows):
        numbers = [plain(row[column]) for column in columns.labels]
        for column, value in zip(columns.labels, numbers, strict=True):
            if isinstance(value, str):
                raise ValueError(
                    f"{table}: row {number + 1}: the label {column} is {value!r}, expected is a number, or nothing"
                    " where it is unknown; --class-column takes words"
                )
        values.append(tuple(number if isinstance(number, float) else None for number in numbers))
    return Labels(names=columns.labels), values


def _word(text: str) -> str:
    """A cell; empty for what tables write where they know nothing."""
    word = text.strip()
    return "" if word.casefold() in ("nan", "na", "n/a", "null", "none") else word


def _patient(text: str) -> str | None:
    """One spelling of a patient: 12.0, which pandas makes of 12 where some are unknown, is 12."""
    patient = " ".join(unicodedata.normalize("NFC", _word(text)).split())
    return re.sub(r"^(\d+)\.0+$", r"\1", patient) or None


def plain(text: str) -> float | str | None:
    """A number, a word (007 and 1_0 are words), or None for nothing."""
    word = _word(text)
    if word.casefold() in ("true", "false"):
        return float(word.casefold() == "true")
    if not NUMBER.fullmatch(word) or not math.isfinite(float(word)):
        return word or None
    return float(word)


def list_wfdb(root: Path, patients_are_folders: bool = False) -> Listing:
    """Every record of a folder and those below it, by its header.

    Raises:
        ValueError: no folder, or none in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds WFDB records with --input")
    sources: list[Source] = []
    rejected: list[tuple[str, str]] = []
    for path in _files(root, rejected):
        relative = path.relative_to(root).with_suffix("")
        if path.suffix != HEADER:
            rejected.append((str(relative), f"its header is called {path.name}: WFDB wants {HEADER}"))
            continue
        patient = relative.parts[0] if patients_are_folders and len(relative.parts) > 1 else None
        sources.append(Source(name=str(relative), path=path.with_suffix(""), patient=patient))
    if not sources:
        raise ValueError(f"{root} holds no WFDB record (*{HEADER}): name their folder with --input")
    return Listing(sources, rejected=rejected)


def _files(root: Path, rejected: list[tuple[str, str]]) -> list[Path]:
    """Headers below a folder, through links too, each folder once; what can't be looked into is rejected."""

    def refuse(error: OSError) -> None:
        rejected.append((str(Path(error.filename).relative_to(root)), f"the folder can't be read ({error.strerror})"))

    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:
            below.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below.sort()
        found += [Path(folder, name) for name in [*below, *names] if name.casefold().endswith(HEADER)]
    return sorted(found)


def refuse_without_patient(listing: Listing) -> Listing:
    """The listing without the records of nobody."""
    named = [source for source in listing.sources if source.patient is not None]
    nobody = [(source.name, "it has no patient") for source in listing.sources if source.patient is None]
    return replace(listing, sources=named, rejected=[*listing.rejected, *nobody])


def split_by_patient(listing: Listing, shares: Mapping[str, float], seed: int) -> Listing:
    """Give each patient a split at random by its share, the same in every build; one without patient counts by name."""
    splits, ends = list(shares), list(itertools.accumulate(shares.values()))

    def split(source: Source) -> str:
        digest = hashlib.sha256(f"{seed}/{source.patient or source.name}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return splits[min(bisect.bisect_right(ends, place), len(splits) - 1)]

    return replace(listing, sources=[replace(source, split=split(source)) for source in listing.sources])


def check_splits(listing: Listing) -> None:
    """Refuse a patient in two splits or in two spellings, and names that can't be part of a file's."""
    seen: dict[str, Source] = {}
    numbers: dict[str, Source] = {}
    for source in listing.sources:
        check_split(source.split)
        if source.patient is not None and source.patient.isdecimal():
            other = numbers.setdefault(source.patient.lstrip("0"), source)
            if other.patient != source.patient:
                raise ValueError(
                    f"the patients of {other.name} and {source.name} are one number, with zeros before it and without:"
                    " write each patient in one way"
                )
        if source.patient is not None:
            other = seen.setdefault(source.patient, source)
            if other.split != source.split:
                raise ValueError(
                    f"{other.name} in {other.split} and {source.name} in {source.split} are of one patient:"
                    " keep each patient in one split"
                )


@dataclass(frozen=True)
class Pseudonyms:
    """Names that tell nothing: a keyed hash, or, without a salt, the ids that the source gave out itself."""

    salt: bytes | None

    def apply(self, listing: Listing) -> Listing:
        """Give each record its key, and each patient the name that the shards know."""
        sources = [
            replace(
                source,
                key=source.key or self.key(source.name),
                patient_id=None if source.patient is None else self.patient(source.patient),
            )
            for source in listing.sources
        ]
        first: dict[str, Source] = {}
        for source in sources:
            if (other := first.setdefault(source.key, source)) is not source:
                raise ValueError(f"{other.name} and {source.name} would both have the key {source.key}: rename one")
        return replace(listing, sources=sources)

    def key(self, name: str) -> str:
        """The key of a record."""
        if self.salt is not None:
            return self._hash("record", name)
        key = "".join(letter if KEY.fullmatch(letter) or letter in "-_" else "-" for letter in name).strip("-_")
        if not KEY.fullmatch(key):
            raise ValueError(
                f"{name} gives no key of 1 to 80 letters, digits, - and _: rename it, or leave out --keep-ids"
            )
        return key

    def patient(self, patient: str) -> str:
        """The name of a patient."""
        return patient if self.salt is None else self._hash("patient", patient)

    def _hash(self, kind: str, name: str) -> str:
        assert self.salt is not None
        return hmac.new(self.salt, f"{kind}/{name}".encode(), hashlib.sha256).hexdigest()[:20]


def salt_of(folder: Path) -> bytes:
    """The salt kept in a private folder; drawn and kept where there is none yet."""
    path = folder / "salt"
    if not path.exists():
        replace_text(path, secrets.token_hex(32), mode=0o600)
    salt = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", salt):
        raise ValueError(f"{path} is no salt of 64 hexadecimal digits: restore it, or delete it for new pseudonyms")
    return salt.encode()
