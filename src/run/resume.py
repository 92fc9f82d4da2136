"""Where a run goes on: its folder's newest whole checkpoint, if that belongs to the same experiment."""

from __future__ import annotations

from pathlib import Path

from src.checkpoints.manifest import MANIFEST, Manifest
from src.checkpoints.read import Checkpoint, newest_checkpoint, open_checkpoint
from src.config.identity import first_difference, identity
from src.config.sections import ExperimentConfig
from src.run.folder import RunFolder


def find_checkpoint(folder: RunFolder, config: ExperimentConfig, data_sha256: str) -> tuple[Path | None, list[str]]:
    """The checkpoint to continue from (None where the run has not got that far), and what was damaged and skipped.

    Raises:
        ValueError: the folder belongs to another config or other data, or it has trained and none of its checkpoints is
            whole: it is never started over, because that would erase it.
    """
    newest, damages = newest_checkpoint(folder.checkpoints)
    if newest is not None:
        _refuse_another_run(newest.folder, newest.manifest, config, data_sha256)
        return newest.folder, damages
    if damages:
        raise ValueError(
            f"no checkpoint in {folder.checkpoints} is whole ({'; '.join(damages)}); restore one from a copy, or set "
            f"another logging.folder to start over"
        )
    last = folder.last_logged_step()
    if last is not None and last >= config.checkpoint.every:
        raise ValueError(
            f"{folder.root} has metrics up to step {last} but no checkpoint; restore its checkpoints, or set another "
            f"logging.folder to start over"
        )
    return None, []


def _refuse_another_run(path: Path, manifest: Manifest, config: ExperimentConfig, data_sha256: str) -> None:
    difference = first_difference(manifest.identity, identity(config))
    if difference is not None:
        key, before, after = difference
        raise ValueError(
            f"{path} was trained with {key} = {before}, but the config says {after}; put {key} back to continue, or "
            f"set another logging.folder (and init_from, to start from these weights)"
        )
    if manifest.data_sha256 != data_sha256:
        raise ValueError(
            f"{path} was trained on other shards than those in data.root {config.data.root}: their index.json differs; "
            f"restore it to continue, or set another logging.folder"
        )


def initial_weights(path: Path) -> Checkpoint:
    """The checkpoint that `init_from` names: a checkpoint folder, or a run folder whose newest whole one is meant.

    Raises:
        ValueError: neither of these, or damaged.
    """
    if (path / MANIFEST).is_file():
        return open_checkpoint(path)
    newest, damages = newest_checkpoint(path / "checkpoints")
    if newest is None:
        found = f"its checkpoints are damaged ({'; '.join(damages)})" if damages else "it has no checkpoint"
        raise ValueError(f"init_from: {path} is neither a checkpoint nor a run folder to start from: {found}")
    return newest
