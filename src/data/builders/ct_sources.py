"""The volumes of a folder or a table before any is read: files, and DICOM series out of the headers of their slices."""

from __future__ import annotations

import os
import re
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


def list_volumes(root: Path, patients_are_folders: bool = False) -> Listing:
    """Every volume of a folder and those below it: files by their names, DICOM slices series by series.

    A series is called after its folder, with a number where a folder holds several.

    Raises:
        ValueError: no folder, or no volume in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds volumes with --input")
    rejected: list[tuple[str, str]] = []
    sources: list[Source] = []
    folders: dict[Path, list[Path]] = {}
    for path in files_below(root, "", rejected):
        if path.name.casefold().endswith(SUFFIXES):
            sources.append(Source(name=str(path.relative_to(root)), path=path))
        elif _is_slice(path):
            folders.setdefault(path.parent, []).append(path)
    for folder, paths in folders.items():
        sources += _series_of(root, folder, paths, rejected)
    if not sources and not rejected:
        raise ValueError(f"{root} holds no volume ({', '.join(SUFFIXES)} or DICOM): name their folder with --input")
    if patients_are_folders:
        sources = [replace(source, patient=_outer_folder(source)) for source in sources]
    return Listing(sorted(sources, key=lambda source: source.name), rejected=rejected)


def with_series(root: Path, listing: Listing) -> Listing:
    """The listing with the slices of each path that is a folder, or a slice; several series in one are rejected."""
    sources: list[Source] = []
    rejected = list(listing.rejected)
    for source in listing.sources:
        if source.path.name.casefold().endswith(SUFFIXES) or not source.path.exists():
            sources.append(source)
            continue
        try:
            sources.append(_only_series(root, source))
        except ValueError as error:
            rejected.append((source.name, str(error)))
    return replace(listing, sources=sources, rejected=rejected)


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
    """Whether a file is DICOM, or is called so."""
    if not path.is_file():
        return False
    if path.name.casefold().endswith(SLICE_SUFFIXES):
        return True
    with path.open("rb") as file:  # storage that fails must not make a series shorter
        return is_dicom(file.read(HEAD))


def _series_of(root: Path, folder: Path, paths: Iterable[Path], rejected: list[tuple[str, str]]) -> Iterator[Source]:
    """The series of a folder's slices in the order of their first files; what is no slice of a CT is rejected."""
    found = list(_grouped(root, paths, rejected).values())
    name = os.fspath(folder.relative_to(root))
    for number, series in enumerate(found, 1):
        called = name if len(found) == 1 else os.fspath(folder.relative_to(root) / f"series-{number}")
        yield Source(
            name=called,
            path=folder,
            parts=tuple(series.parts),
            patient=series.about.patient,
            meta=series.about.meta(),
        )


def _grouped(root: Path, paths: Iterable[Path], rejected: list[tuple[str, str]]) -> dict[str, _Series]:
    series: dict[str, _Series] = {}
    for path in paths:
        try:
            header = open_dicom(path, ("SeriesInstanceUID", "ImageType"))
            refuse_other_than_ct(header)
            if not (uid := text_of(header, "SeriesInstanceUID")):
                raise Unusable("it names no series")
        except ValueError as error:
            rejected.append((os.fspath(path.relative_to(root)), str(error)))
            continue
        series.setdefault(uid, _Series(about_of(header))).parts.append(path)
    return series


def _only_series(root: Path, source: Source) -> Source:
    if source.path.is_file():
        raise Unusable(
            "it is a file that ends like no volume; of a DICOM series name the folder"
            if not _is_slice(source.path)
            else "it is one DICOM slice: name the folder of its series"
        )
    wrong: list[tuple[str, str]] = []
    found = list(_grouped(root, (path for path in files_below(source.path, "", []) if _is_slice(path)), wrong).values())
    if not found:
        raise Unusable(f"its folder holds no slice of a CT{f' ({wrong[0][1]})' if wrong else ''}")
    if len(found) > 1:
        counts = ", ".join(str(len(series.parts)) for series in found)
        raise Unusable(f"its folder holds {len(found)} series (of {counts} slices): give each a folder of its own")
    about = found[0].about
    patient = source.patient if source.patient is not None else about.patient
    return replace(source, parts=tuple(found[0].parts), patient=patient, meta={**about.meta(), **source.meta})


def _outer_folder(source: Source) -> str | None:
    parts = Path(source.name).parts
    return parts[0] if len(parts) > 1 or source.parts else None


def dicom_names(sources: Sequence[Source]) -> bool:
    """Whether some patient may be as a hospital's DICOM calls it."""
    return any(source.parts for source in sources)
