"""Which checkpoints stay: the newest few, and multiples of a step for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from src.checkpoints.manifest import DAMAGED, FOLDER_NAME, PARTIAL, REMOVED, DamagedCheckpoint, read_manifest
from src.checkpoints.read import checkpoint_folders
from src.config.experiment import CheckpointConfig


def retain(folder: Path, config: CheckpointConfig, written: Path) -> None:
    """Remove what the config does not keep; `written`, just completed, always stays, and so does what later attempts
    have written, if this one is an orphan, and the best of those that the checkpoints that stay know of.

    A folder is renamed before its files go, so that a kill in between leaves nothing that looks like a checkpoint.
    """
    own = _attempt(written)
    found = [path for path in checkpoint_folders(folder) if _attempt(path) <= own]
    older = found[config.keep_last :]
    best = {best_step(path) for path in {written, *found[: config.keep_last]}} if older else set()
    for path in older:
        step = _step(path)
        if path == written or step in best or (config.keep_every and step % config.keep_every == 0):
            continue
        removed = path.with_name(path.name + REMOVED)
        path.rename(removed)
        shutil.rmtree(removed)


def best_step(path: Path) -> int | None:
    """The step of the best checkpoint, as one tells that was written since; None where nothing chooses among them."""
    try:
        best = read_manifest(path).state.get("best")
    except DamagedCheckpoint:
        return None
    return None if best is None else best["step"]


def _step(path: Path) -> int:
    match = FOLDER_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


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
