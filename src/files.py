"""Files that are the old ones or the new ones at any moment, and what they are identified by."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COPIED_AT_ONCE = 2**24


def replace_text(path: Path, text: str, mode: int = 0o666, errors: str = "strict") -> None:
    """Write a small file so that it is the old one or the new one at any moment, a power cut included.

    `mode` are its permissions, less the umask; `errors` is what becomes of text that is not UTF-8.
    """
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode, exist_ok=False)
    with draft.open("w", encoding="utf-8", errors=errors, newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def cut_copy(path: Path, size: int) -> None:
    """Put a copy of a file's first `size` bytes in its place: whoever has it open no longer writes into what is there.

    The old one or the new one at any moment, as above.
    """
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    with path.open("rb") as old, draft.open("wb") as new:
        while part := old.read(min(size - new.tell(), COPIED_AT_ONCE)):
            new.write(part)
        new.flush()
        os.fsync(new.fileno())
    draft.replace(path)


def always() -> None:
    """Nothing forbids it."""


@contextmanager
def replacing_folder(folder: Path, allowed: Callable[[], object] = always) -> Iterator[Path]:
    """An empty draft of a folder, which takes its place once all of it is on disk.

    `allowed` is called before the draft is begun and before it takes the place, and raises where it must not.
    """
    draft, old = folder.with_name(folder.name + ".draft"), folder.with_name(folder.name + ".old")
    allowed()
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    for path in (*draft.rglob("*"), draft):
        sync(path)
    allowed()
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file's or folder's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
