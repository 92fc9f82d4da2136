"""Which checkpoints stay: the newest few, and multiples of a step for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from src.checkpoints.manifest import DAMAGED, FOLDER_NAME, PARTIAL, REMOVED
from src.checkpoints.read import checkpoint_folders
from src.config.experiment import CheckpointConfig


def retain(folder: Path, config: CheckpointConfig, written: Path) -> None:
    """Remove what the config does not keep; `written`, just completed, always stays, and so does what later attempts
    have written, if this one is an orphan.

    A folder is renamed before its files go, so that a kill in between leaves nothing that looks like a checkpoint.
    """
    own = _attempt(written)
    for path in [path for path in checkpoint_folders(folder) if _attempt(path) <= own][config.keep_last :]:
        match = FOLDER_NAME.fullmatch(path.name)
        assert match is not None
        if path == written or (config.keep_every and int(match[1]) % config.keep_every == 0):
            continue
        removed = path.with_name(path.name + REMOVED)
        path.rename(removed)
        shutil.rmtree(removed)


def _attempt(path: Path) -> int:
    match = FOLDER_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2])


def clear_leftovers(folder: Path, attempt: int) -> None:
    """Remove what killed earlier attempts left half written or half removed.

    One of them may be an orphan that still writes: its folder is renamed first, so that it can't become a checkpoint
    any more, and what the orphan puts into it meanwhile is left to the next attempt.
    """
    found = [path for path in folder.iterdir() if path.suffix in (PARTIAL, REMOVED)] if folder.is_dir() else []
    for path in sorted(found, key=lambda path: path.suffix == PARTIAL):
        match = FOLDER_NAME.fullmatch(path.stem)
        if match and int(match[2]) < attempt:
            with suppress(FileNotFoundError):  # the orphan has just finished it
                removed = path.rename(path.with_suffix(REMOVED))
                shutil.rmtree(removed, ignore_errors=True)


def set_aside(damaged: Iterable[Path]) -> None:
    """Rename damaged checkpoints, so that no whole one is removed to keep them; nothing else ever touches them."""
    for path in damaged:
        path.rename(path.with_name(path.name + DAMAGED))
