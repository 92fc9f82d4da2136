"""The volumes of a folder or a table before any is read: files, and DICOM series out of the headers of their slices."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from src.data.builders.about import About
from src.data.builders.ct import SUFFIXES
from src.data.builders.dicom import HEAD, about_of, is_dicom, open_dicom, text_of
from src.data.builders.folders import files_below
from src.data.builders.records import Unusable
from src.data.builders.series import refuse_other_than_ct
from src.data.builders.sources import Listing, Source

SLICE_SUFFIXES = (".dcm", ".ima")


class _Series:
    """Slices of one series in one folder."""

    def __init__(self, about: About) -> None:
        self.parts: list[Path] = []
        self.about = about
        self.patients: set[str] = set()
        """That its slices name."""


class _Slices:
    """What the files of a folder are, by their headers."""

    def __init__(self) -> None:
        self.series: dict[str, _Series] = {}
        self.others: list[tuple[Path, str]] = []
        """What is no slice of a CT, and why."""
        self.unread: list[tuple[Path, str]] = []
        """What may be a slice of any of the series: nobody knows."""

    def fault_of(self, series: _Series) -> str:
        """Why a series can't be used; empty where it can."""
        if self.unread:
            path, why = self.unread[0]
            return f"{len(self.unread):,} files beside its slices may be of it and can't be read, as {path.name}: {why}"
        if len(series.patients) > 1:
            return f"the headers of its slices name {len(series.patients)} patients: keep them apart"
        return ""


def list_volumes(root: Path, patients_are_folders: bool = False) -> Listing:
    """Every volume of a folder and those below it: files by their names, DICOM slices series by series.

    A series is called after its folder, with a number where a folder holds several; one that lies in two folders is
    rejected in both.

    Raises:
        ValueError: no folder, or no volume in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds volumes with --input")
    rejected: list[tuple[str, str]] = []
    sources: list[Source] = []
    folders: dict[Path, list[Path]] = {}
    places: dict[str, list[str]] = {}
    passed: Counter[str] = Counter()
    for path in files_below(root, "", rejected):
        if path.name.casefold().endswith(SUFFIXES):
            sources.append(Source(name=str(path.relative_to(root)), path=path))
        elif _is_slice(path):
            folders.setdefault(path.parent, []).append(path)
        elif not path.is_dir():
            passed[_kind(path)] += 1
    for folder, paths in folders.items():
        sources += _series_of(root, folder, paths, rejected, places)
    sources = _in_one_place(sources, places, rejected)
    if not sources and not rejected:
        raise ValueError(f"{root} holds no volume ({', '.join(SUFFIXES)} or DICOM): name their folder with --input")
    if patients_are_folders:
        sources = [replace(source, patient=_outer_folder(root, source)) for source in sources]
    return Listing(sorted(sources, key=lambda source: source.name), rejected=rejected, passed=passed)


def with_series(listing: Listing, patients: bool) -> Listing:
    """The listing with the slices of each path that is a folder; several series in one are rejected.

    Their patient is that of the DICOM headers if `patients`, else who the listing says, or nobody.
    """
    sources: list[Source] = []
    rejected = list(listing.rejected)
    places: dict[str, list[str]] = {}
    for source in listing.sources:
        if source.path.name.casefold().endswith(SUFFIXES) or not source.path.exists():
            sources.append(source)
            continue
        try:
            sources.append(_only_series(source, patients, places))
        except ValueError as error:
            rejected.append((source.name, str(error)))
    return replace(listing, sources=_in_one_place(sources, places, rejected), rejected=rejected)


def found_by_name(root: Path) -> Callable[[Path, str], Path]:
    """Finds a volume by its file's name alone, wherever it lies below a folder.

    Raises:
        ValueError: by what it returns: there is no such file, or several.
    """
    places: dict[str, list[Path]] = {}
    for path in files_below(root, SUFFIXES, []):
        places.setdefault(path.name, []).append(path)

    def place(_: Path, path: str) -> Path:
        found = places.get(Path(path).name, [])
        if len(found) != 1:
            many = f"{len(found)} files" if found else "no file"
            raise ValueError(f"--by-name: {many} below {root} has the name {Path(path).name}")
        return found[0]

    return place


def with_patient_pattern(listing: Listing, pattern: str) -> Listing:
    """The listing with the patient that the first group of a regular expression finds in each file's name.

    Raises:
        ValueError: it is no regular expression, or has no group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--patient-pattern {pattern} is no regular expression ({error})") from None
    if compiled.groups < 1:
        raise ValueError(f"--patient-pattern {pattern} needs parentheses around the patient, as in ^(train_\\d+)_")

    def patient(source: Source) -> str | None:
        found = compiled.search(Path(source.name).name)
        return (found[1] or None) if found else None

    return replace(listing, sources=[replace(source, patient=patient(source)) for source in listing.sources])


def _is_slice(path: Path) -> bool:
    """Whether a file is DICOM, is called so, or is a link that leads nowhere: a series must not get shorter by it."""
    if not path.is_file():
        return path.is_symlink() and not path.exists()
    if path.name.casefold() == "dicomdir":
        return False
    if path.name.casefold().endswith(SLICE_SUFFIXES):
        return True
    with path.open("rb") as file:  # storage that fails must not make a series shorter
        return is_dicom(file.read(HEAD))


def _kind(path: Path) -> str:
    """What a file is counted as: its suffix, if that is one."""
    suffix = path.suffix.casefold()
    return suffix if re.fullmatch(r"\.[a-z][a-z0-9]{0,7}", suffix) else "without a suffix"


def _series_of(
    root: Path, folder: Path, paths: Iterable[Path], rejected: list[tuple[str, str]], places: dict[str, list[str]]
) -> Iterator[Source]:
    """The series of a folder's slices in the order of their first files; what is no slice of a CT is rejected.

    `places` is told the names of each series.
    """
    found = _grouped(paths)
    rejected += [(os.fspath(path.relative_to(root)), why) for path, why in (*found.others, *found.unread)]
    name = os.fspath(folder.relative_to(root))
    alone = len(found.series) == 1 and folder != root
    for number, (uid, series) in enumerate(found.series.items(), 1):
        called = name if alone else os.fspath(folder.relative_to(root) / f"series-{number}")
        places.setdefault(uid, []).append(called)
        if fault := found.fault_of(series):
            rejected.append((called, fault))
            continue
        yield Source(
            name=called,
            path=folder,
            parts=tuple(series.parts),
            patient=series.about.patient,
            meta=series.about.meta(),
        )


def _in_one_place(
    sources: Iterable[Source], places: dict[str, list[str]], rejected: list[tuple[str, str]]
) -> list[Source]:
    """The sources without the series of which each place has but a part, or another copy."""
    split = {name: names for names in places.values() if len(names) > 1 for name in names}
    kept = []
    for source in sources:
        if source.parts and (names := split.get(source.name)):
            where = " and in ".join(names[:2])
            rejected.append((source.name, f"slices of its series lie in {where}: put them into one folder"))
        else:
            kept.append(source)
    return kept


def _grouped(paths: Iterable[Path]) -> _Slices:
    found = _Slices()
    for path in paths:
        try:
            header = open_dicom(path, ("SeriesInstanceUID", "ImageType"))
        except ValueError as error:
            found.unread.append((path, str(error)))
            continue
        try:
            refuse_other_than_ct(header)
        except ValueError as error:
            found.others.append((path, str(error)))
            continue
        if not (uid := text_of(header, "SeriesInstanceUID")):
            found.unread.append((path, "it names no series"))
            continue
        about = about_of(header)
        series = found.series.setdefault(uid, _Series(about))
        series.parts.append(path)
        if about.patient is not None:
            series.patients.add(about.patient)
    return found


def _only_series(source: Source, patients: bool, places: dict[str, list[str]]) -> Source:
    if source.path.is_file():
        raise Unusable(
            "it is a file that ends like no volume; of a DICOM series name the folder"
            if not _is_slice(source.path)
            else "it is one DICOM slice: name the folder of its series"
        )
    found = _grouped(path for path in files_below(source.path, "", []) if _is_slice(path))
    for uid in found.series:
        places.setdefault(uid, []).append(source.name)
    if not found.series:
        wrong = [*found.others, *found.unread]
        raise Unusable(f"its folder holds no slice of a CT{f' ({wrong[0][1]})' if wrong else ''}")
    several = list(found.series.values())
    if len(several) > 1:
        counts = ", ".join(str(len(series.parts)) for series in several)
        raise Unusable(f"its folder holds {len(several)} series (of {counts} slices): give each a folder of its own")
    if fault := found.fault_of(several[0]):
        raise Unusable(fault)
    about = several[0].about
    patient = about.patient if patients else source.patient
    return replace(source, parts=tuple(several[0].parts), patient=patient, meta={**about.meta(), **source.meta})


def _outer_folder(root: Path, source: Source) -> str | None:
    """The folder right below the root; nobody for what lies in the root itself."""
    folder = source.path if source.parts else source.path.parent
    return next(iter(folder.relative_to(root).parts), None)


def dicom_names(sources: Sequence[Source]) -> bool:
    """Whether some patient may be as a hospital's DICOM calls it."""
    return any(source.parts for source in sources)
