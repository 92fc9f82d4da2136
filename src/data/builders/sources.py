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
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from src.data.builders.records import HEADER
from src.data.index import TRAINING_SPLIT, Labels
from src.data.tars import KEY, check_split
from src.files import replace_text

NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
LONGEST_CELL = 100_000_000
Known = tuple[float | None, ...]
RESERVED = {
    *("id", "patient_id", "labels"),
    *("scale", "leads", "lead_keep", "flat_leads", "gaps", "sampling_rate"),
    *("image", "original_size", "video", "videos", "frames", "rate", "height", "width", "channels", "codec"),
    *("ct", "shape", "spacing", "orientation", "units", "stored", "windows", "source_shape", "source_spacing"),
    "oblique",
}
"""What the builders write into a sample's json."""


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
    parts: tuple[Path, ...] = ()
    """The files of a study or a series, in their order, where `path` is not all of it."""
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
    rows: Mapping[str, int] = field(default_factory=dict)
    """The row of a table that each record is in, from 1."""
    length: int = 0
    """Rows of that table, whether they can be used or not."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """Files of a folder that were not looked at, by suffix."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what."""

    path: str | None
    study: str | None = None
    """Rows of one study are one sample with several files."""
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
    rows = list(rows_of(path, wanted))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def header_of(path: Path) -> list[str]:
    """The names of a CSV's columns; none where it has no rows. Raises as `rows_of`."""
    return list(next(rows_of(path, ()), {}))


def rows_of(path: Path, wanted: Iterable[str]) -> Iterator[dict[str, str]]:
    """The rows one by one, for tables of which little is kept; raises as `read_table`, but none for no rows."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is not there: name the CSV with the records") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None
    csv.field_size_limit(LONGEST_CELL)
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
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
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from None


def list_table(
    table: Path,
    root: Path,
    columns: Columns,
    prefix: str | None = None,
    wrong: Callable[[int, str], None] | None = None,
    place: Callable[[Path, str], Path] | None = None,
) -> Listing:
    """The records that a CSV lists: `root` is the folder of its paths, or one .npy with a record for each row.

    Args:
        table: the CSV.
        root: what its paths begin in.
        columns: which of its columns say what.
        prefix: what its absolute paths begin with instead of `root`.
        wrong: told (row, what is wrong with it) instead of raising, and the row is left out.
        place: where a path below `root` leads; default: WFDB's way, in which a record is named without suffix.

    Raises:
        ValueError: the table can't be used; a row, a column or a value is named.
    """
    named = [columns.path, columns.study, columns.patient, columns.text, columns.split, columns.category]
    rows = read_table(table, [name for name in (*named, *columns.labels, *columns.meta) if name])
    if taken := sorted(RESERVED & set(columns.meta)):
        raise ValueError(f"--meta-columns {taken[0]} is a name that every sample has already: rename that column")
    paths = None if columns.path is None else [_rerooted(row[columns.path].strip(), prefix) for row in rows]
    if prefix is not None and (paths is None or paths == [row[columns.path or ""].strip() for row in rows]):
        raise ValueError(f"--root {prefix} does nothing for {table}, in which no path begins so: leave it out")
    if place is None and paths is not None:
        place = partial(record_path, headers=_have_headers(root, paths))
    names = _categories(rows, columns)
    line_of: dict[str, int] = {}
    sources: list[Source] = []
    studies: dict[str, list[Source]] = {}
    for number, row in enumerate(rows):
        try:
            path = root if paths is None or place is None else place(root, paths[number])
            name = f"{table.name} row {number + 1}" if paths is None else str(path.relative_to(root))
            if name in line_of:
                raise ValueError(
                    f"{table}: rows {line_of[name]} and {number + 1} are both of the record {name}: keep one of them"
                )
            line_of[name] = number + 1
            source = Source(
                name=name,
                path=path,
                row=number if paths is None else None,
                split=_word(row[columns.split]) if columns.split else TRAINING_SPLIT,
                patient=_patient(row[columns.patient]) if columns.patient else None,
                labels=_known(table, number, row, columns, names),
                text=_word(row[columns.text]) or None if columns.text else None,
                meta={column: value for column in columns.meta if (value := plain(row[column])) is not None},
            )
            studies.setdefault(_study(row, columns) or name, []).append(source)
        except ValueError as error:
            if wrong is None:
                raise
            wrong(number + 1, str(error))
    for study, own in studies.items():
        try:
            sources.append(own[0] if columns.study is None else _whole_study(table, study, own, line_of))
        except ValueError as error:
            if wrong is None:
                raise
            wrong(line_of[own[0].name], str(error))
    labels = Labels(names=names, kind="multilabel" if columns.category is None else "multiclass")
    return Listing(sources, labels, rows=line_of, length=len(rows))


def _study(row: Mapping[str, str], columns: Columns) -> str | None:
    if columns.study is None:
        return None
    study = _patient(row[columns.study])  # one spelling, as for patients
    if study is None:
        raise ValueError(f"it names no study in the column {columns.study}: name one, or leave the row out")
    return study


def _whole_study(table: Path, study: str, own: Sequence[Source], line_of: dict[str, int]) -> Source:
    """The rows of a study as one source, which all of them must describe alike."""
    first = own[0]
    for other in own[1:]:
        for what in ("patient", "split", "labels", "text", "meta"):
            if getattr(other, what) != getattr(first, what):
                raise ValueError(
                    f"{table}: rows {line_of[first.name]} and {line_of[other.name]} are of the study {study} and differ"
                    f" in {what}: give both the same, or leave one of them out"
                )
    line_of[study] = line_of[first.name]
    return replace(first, name=study, parts=tuple(source.path for source in own))


def _rerooted(path: str, prefix: str | None) -> str:
    """The path less the prefix, by whole folders; what does not begin so stays, and is refused if it is absolute."""
    if prefix is None:
        return path
    if "\\" in prefix:  # of a machine with Windows
        path, prefix = path.replace("\\", "/"), prefix.replace("\\", "/")
    try:
        return str(PurePosixPath(path).relative_to(PurePosixPath(prefix)))
    except ValueError:
        return path


def _have_headers(root: Path, paths: Iterable[str]) -> bool:
    """Whether the .mat files of a table are the signals of WFDB records: then one of them has a header beside it."""
    below = (root / path for path in paths if PurePosixPath(path).suffix == ".mat")
    return any(path.with_suffix(HEADER).is_file() for path in below)


def record_path(root: Path, path: str, headers: bool = True) -> Path:
    """Where a record lies; WFDB records are named without suffix. What leads out of `root` is refused."""
    record = inside(root, path)
    return record.with_suffix("") if record.suffix in (HEADER, ".dat", *([".mat"] if headers else [])) else record


def inside(root: Path, path: str) -> Path:
    """A path below `root`; what leads out of it is refused."""
    record = Path(path)
    if not path or record.is_absolute() or ".." in record.parts or record == Path() or "\0" in path:
        raise ValueError(f"the path {path!r} in the table must lead to a record below {root}")
    return root / record


def _categories(rows: Sequence[Mapping[str, str]], columns: Columns) -> tuple[str, ...]:
    """The names of the labels."""
    if columns.category is None:
        return columns.labels
    return tuple(sorted({_word(row[columns.category]) for row in rows} - {""}))


def _known(table: Path, number: int, row: Mapping[str, str], columns: Columns, names: Sequence[str]) -> Known:
    """The labels of a row."""
    if columns.category is not None:
        word = _word(row[columns.category])
        return tuple(float(word == name) if word else None for name in names)
    values = [plain(row[column]) for column in columns.labels]
    for column, value in zip(columns.labels, values, strict=True):
        if isinstance(value, str):
            raise ValueError(
                f"{table}: row {number + 1}: the label {column} is {value!r}, expected is a number, or nothing"
                " where it is unknown; --class-column takes words"
            )
    return tuple(value if isinstance(value, float) else None for value in values)


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


def refuse_without_patient(listing: Listing) -> Listing:
    """The listing without the records of nobody."""
    named = [source for source in listing.sources if source.patient is not None]
    nobody = [(source.name, "it has no patient") for source in listing.sources if source.patient is None]
    return replace(listing, sources=named, rejected=[*listing.rejected, *nobody])


def split_by_patient(listing: Listing, shares: Mapping[str, float], seed: int) -> Listing:
    """Give each patient a split at random by its share, the same in every build; one without patient counts by name."""
    splits, ends = list(shares), list(itertools.accumulate(shares.values()))

    def split(source: Source) -> str:
        digest = hashlib.sha256(f"{seed}/{source.patient or source.name}".encode(errors="surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return splits[min(bisect.bisect_right(ends, place), len(splits) - 1)]

    return replace(listing, sources=[replace(source, split=split(source)) for source in listing.sources])


def check_splits(listing: Listing) -> None:
    """Refuse a patient in two splits or in two spellings, and names that can't be part of a file's."""
    for _, problem in split_problems(listing):
        raise ValueError(problem)


def split_problems(listing: Listing) -> Iterator[tuple[str, str]]:
    """Each record, and what is wrong with its split or its patient among the others."""
    seen: dict[str, Source] = {}
    numbers: dict[str, Source] = {}
    for source in listing.sources:
        try:
            check_split(source.split)
        except ValueError as error:
            yield source.name, str(error)
        if source.patient is not None and source.patient.isdecimal():
            other = numbers.setdefault(source.patient.lstrip("0"), source)
            if other.patient != source.patient:
                yield (
                    source.name,
                    f"the patients of {other.name} and {source.name} are one number, with zeros before it and without:"
                    " write each patient in one way",
                )
        if source.patient is not None:
            other = seen.setdefault(source.patient, source)
            if other.split != source.split:
                yield (
                    source.name,
                    f"{other.name} in {other.split} and {source.name} in {source.split} are of one patient:"
                    " keep each patient in one split",
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
        return hmac.new(self.salt, f"{kind}/{name}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:20]


def salt_of(folder: Path) -> bytes:
    """The salt kept in a private folder; drawn and kept where there is none yet."""
    path = folder / "salt"
    if not path.exists():
        replace_text(path, secrets.token_hex(32), mode=0o600)
    salt = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", salt):
        raise ValueError(f"{path} is no salt of 64 hexadecimal digits: restore it, or delete it for new pseudonyms")
    return salt.encode()
