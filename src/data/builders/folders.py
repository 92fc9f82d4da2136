"""Records that lie in a folder and those below it, found by how their files end."""

from __future__ import annotations

import os
from pathlib import Path

from src.data.builders.edf import SUFFIX as EDF
from src.data.builders.records import HEADER
from src.data.builders.sources import Listing, Source
from src.data.builders.xml import SUFFIX as XML

SUFFIXES = {"wfdb": HEADER, "edf": EDF, "xml": XML}
CALLED = {"wfdb": "WFDB record", "edf": "EDF file", "xml": "XML file"}


def list_folder(root: Path, form: str, patients_are_folders: bool = False) -> Listing:
    """Every record of a folder and those below it: WFDB by its header, EDF and XML by their files.

    Raises:
        ValueError: no folder, or none in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds {CALLED[form]}s with --input")
    suffix = SUFFIXES[form]
    sources: list[Source] = []
    rejected: list[tuple[str, str]] = []
    for path in files_below(root, suffix, rejected):
        relative = path.relative_to(root)
        if form == "wfdb":
            relative = relative.with_suffix("")
            if path.suffix != suffix:
                rejected.append((str(relative), f"its header is called {path.name}: WFDB wants {suffix}"))
                continue
            path = path.with_suffix("")
        patient = relative.parts[0] if patients_are_folders and len(relative.parts) > 1 else None
        sources.append(Source(name=str(relative), path=path, patient=patient))
    if not sources:
        others = [other for other in SUFFIXES if other != form and files_below(root, SUFFIXES[other], [])]
        hint = f"it holds {CALLED[others[0]]}s, --format {others[0]}" if others else "name their folder with --input"
        raise ValueError(f"{root} holds no {CALLED[form]} (*{suffix}): {hint}")
    return Listing(sources, rejected=rejected)


def files_below(root: Path, suffix: str | tuple[str, ...], rejected: list[tuple[str, str]]) -> list[Path]:
    """What ends so below a folder, through links too, each folder once; what can't be looked into is rejected."""

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
        found += [Path(folder, name) for name in [*below, *names] if name.casefold().endswith(suffix)]
    return sorted(found)
