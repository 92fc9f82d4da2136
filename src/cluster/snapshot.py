"""The code as it is when a job is submitted: what waits in a queue does not change with the next edit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from src.run.environment import ROOT, SNAPSHOT, code_version

PARTS = ("main.py", "main_distributed.py", "requirements.txt", "src", "ssls", "configs", "tools")


def take_snapshot(target: Path) -> None:
    """Copy the code into a new folder, with the commit that it is of."""
    _place(list(code_files(ROOT)), ROOT, target, link=SNAPSHOT.is_file())
    (target / SNAPSHOT.name).write_text(code_version() + "\n")


def share_snapshot(taken: Path, target: Path) -> None:
    """The same snapshot for another job, which may outlive the first one's folder; takes no room where files link."""
    _place([path for path in taken.rglob("*") if path.is_file()], taken, target, link=True)


def code_files(root: Path) -> Iterator[Path]:
    """The files of the code: what git knows or would add in a checkout, elsewhere all but what Python leaves behind."""
    for path in _known_to_git(root) or sorted(_walked(root)):
        if path.is_file():  # one that was deleted is still known
            yield path


def _known_to_git(root: Path) -> list[Path]:
    """Empty outside a checkout whose root this is."""
    try:
        if SNAPSHOT.is_file() or Path(_git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root.resolve():
            return []
        listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [root / name for name in dict.fromkeys(listed.split("\0")) if name]


def _walked(root: Path) -> Iterator[Path]:
    for part in PARTS:
        inside = (root / part).rglob("*") if (root / part).is_dir() else [root / part]
        for path in inside:
            names = path.relative_to(root).parts
            if "__pycache__" not in names and not any(name.startswith(".") for name in names) and path.suffix != ".pyc":
                yield path


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout


def _place(files: list[Path], source: Path, target: Path, link: bool) -> None:
    """Put files below another folder: as links where asked and possible, else as copies."""
    target.mkdir(parents=True)
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            try:
                os.link(file, place)
                continue
            except OSError:  # another file system, or one without links
                link = False
        shutil.copy2(file, place)
