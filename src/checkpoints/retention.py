"""Which checkpoints stay: the newest few, and multiples of a step for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from src.checkpoints.manifest import DAMAGED, FOLDER_NAME, PARTIAL, REMOVED
from src.checkpoints.read import checkpoint_folders
from src.config.experiment import CheckpointConfig


def retain(folder: Path, config: CheckpointConfig, written: Path) -> None:
    """Remove what the config does not keep; `written`, just completed, always stays.

    A folder is renamed before its files go, so that a kill in between leaves nothing that looks like a checkpoint.
    """
    for path in checkpoint_folders(folder)[config.keep_last :]:
        match = FOLDER_NAME.fullmatch(path.name)
        assert match is not None
        if path == written or (config.keep_every and int(match[1]) % config.keep_every == 0):
            continue
        removed = path.with_name(path.name + REMOVED)
        path.rename(removed)
        shutil.rmtree(removed)


def clear_leftovers(folder: Path, attempt: int) -> None:
    """Remove what killed earlier attempts left half written or half removed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        name, ending = path.stem, path.suffix
        match = FOLDER_NAME.fullmatch(name)
        if match and ending in (PARTIAL, REMOVED) and int(match[2]) < attempt:
            shutil.rmtree(path)


def set_aside(damaged: Iterable[Path]) -> None:
    """Rename damaged checkpoints, so that no whole one is removed to keep them; nothing else ever touches them."""
    for path in damaged:
        path.rename(path.with_name(path.name + DAMAGED))
