"""Videos that lie in a folder and those below it, and what DICOM files among them tell of whom they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from src.data.builders.about import with_what_files_tell
from src.data.builders.dicom import begins_as_dicom
from src.data.builders.folders import files_below
from src.data.builders.sources import Listing, Source
from src.data.builders.video_read import CONTAINERS, DICOM, about_video


def list_videos(root: Path, patients_are_folders: bool = False, studies_are_folders: bool = False) -> Listing:
    """Every video of a folder and those below it, DICOM files without suffix too; or every folder with videos in it.

    The videos of a study are in the order of their names, 2 before 10.

    Raises:
        ValueError: no folder, or no video in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds videos with --input, or a --table that lists them")
    rejected: list[tuple[str, str]] = []
    found = [path for path in files_below(root, "", rejected) if not _is_hidden(path.relative_to(root))]
    found = [path for path in found if _is_video(path)]
    if not found:
        raise ValueError(f"{root} holds no videos ({' '.join((*CONTAINERS, *DICOM))}): name their folder with --input")
    groups: dict[Path, list[Path]] = {}
    for path in found:
        groups.setdefault(path.parent if studies_are_folders else path, []).append(path)
    sources = []
    for place, own in groups.items():
        name = place.relative_to(root)
        patient = name.parts[0] if patients_are_folders and len(own[0].relative_to(root).parts) > 1 else None
        parts = tuple(sorted(own, key=natural)) if studies_are_folders else ()
        sources.append(Source(str(name), (parts or (place,))[0], patient=patient, parts=parts))
    return Listing(sources, rejected=rejected)


def natural(path: Path) -> list[tuple[int, str]]:
    """What sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _is_hidden(place: Path) -> bool:
    """Whether a path below the root is of a system's own files, ._clip.mp4 of macOS for instance."""
    return any(part.startswith((".", "__MACOSX")) for part in place.parts)


def _is_video(path: Path) -> bool:
    """By its suffix, or a DICOM file without one; no folder."""
    if path.is_dir():
        return False
    suffix = path.suffix.casefold()
    if suffix in (*CONTAINERS, *DICOM):
        return True
    unnamed = not suffix or suffix[1:].isdecimal()
    return unnamed and path.is_file() and path.name != "DICOMDIR" and begins_as_dicom(path)


def told_by_files(listing: Listing, patients: bool) -> Listing:
    """The listing with age and sex out of DICOM headers, and the patient too if `patients`.

    A study whose files are of several patients is rejected, whoever says whose it is.
    """
    mixed = {source.name for source in listing.sources if len(_patients(source.parts)) > 1}
    kept = [source for source in listing.sources if source.name not in mixed]
    refused = [(name, "the headers of its files name several patients: keep them apart") for name in sorted(mixed)]
    return with_what_files_tell(
        replace(listing, sources=kept, rejected=[*listing.rejected, *refused]), about_video, patients
    )


def _patients(parts: Iterable[Path]) -> set[str]:
    """Those that the headers of a study's files name; what can't be read is told later."""
    found = set()
    for path in parts:
        try:
            found.add(about_video(path).patient)
        except ValueError:
            continue
    return {patient for patient in found if patient is not None}
