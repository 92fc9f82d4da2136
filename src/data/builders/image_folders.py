"""Images in folders: SPLIT/CLASS/x.png, CLASS/x.png, SPLIT/x.png or x.png, perhaps with one for each patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from src.data.builders.folders import files_below
from src.data.builders.images import SUFFIXES
from src.data.builders.sources import Listing, Source
from src.data.index import TRAINING_SPLIT, Labels

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "inference": "inference",
}
"""What a folder is called, and its split."""


def list_images(
    root: Path,
    classes_are_folders: bool = False,
    patients_are_folders: bool = False,
    patient_pattern: re.Pattern[str] | None = None,
) -> Listing:
    """Every image of a folder and those below it, in the splits that the folders' names tell.

    Args:
        root: the folder.
        classes_are_folders: the folder right below it, or below that of a split, is the class of its images. Not by
            itself: names of classes go into the shards, and folders may be called as patients.
        patients_are_folders: the folder right below it, or below those of splits and classes, is the patient of its
            images, however deep they lie.
        patient_pattern: its first group, found in an image's path below `root`, is its patient.

    Raises:
        ValueError: no folder, no image in it, no classes, or splits beside other folders.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: name one that holds images with --input")
    rejected: list[tuple[str, str]] = []
    paths = [path.relative_to(root) for path in files_below(root, SUFFIXES, rejected)]
    paths = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    if not paths:
        raise ValueError(f"{root} holds no image ({' '.join(SUFFIXES)}): name their folder with --input")
    splits = _splits(root, paths)
    below = [path.parts[len(splits) > 0 : -1] for path in paths]
    if patients_are_folders:
        patients = [next(iter(folders[classes_are_folders:]), None) for folders in below]
    else:
        patients = [_patient(path, patient_pattern) for path in paths]
    below = [folders if classes_are_folders else () for folders in below]
    names = tuple(sorted({folders[0] for folders in below if folders}))
    if classes_are_folders and not names:
        raise ValueError(f"{root} holds no folders that could be classes: leave out --class-folders")
    sources = [
        Source(
            name=str(path),
            path=root / path,
            split=splits[path.parts[0]] if splits else TRAINING_SPLIT,
            patient=patient,
            labels=tuple(float(folders[0] == name) if folders else None for name in names),
        )
        for path, folders, patient in zip(paths, below, patients, strict=True)
    ]
    return Listing(sources, Labels(names=names, kind="multiclass" if names else "multilabel"), rejected=rejected)


def _splits(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """The split of each folder right below the root; nothing where these are no splits."""
    tops = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    found = {top: SPLITS[top.casefold()] for top in tops if top.casefold() in SPLITS}
    if not found:
        return {}
    others = [top for top in tops if top not in found] + [path.name for path in paths if len(path.parts) == 1]
    if others:
        raise ValueError(
            f"{root} holds the split {next(iter(found))} and beside it {others[0]}, which is none"
            f" ({', '.join(SPLITS)}): keep nothing else beside splits"
        )
    return found


def _patient(path: Path, pattern: re.Pattern[str] | None) -> str | None:
    found = pattern.search(path.as_posix()) if pattern else None
    return found[1] if found else None
