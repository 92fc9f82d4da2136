"""Where a run goes on: its folder's newest whole checkpoint, if that belongs to the same experiment."""

from __future__ import annotations

from pathlib import Path

from src.checkpoints.manifest import MANIFEST, DamagedCheckpoint
from src.checkpoints.read import Checkpoint, newest_checkpoint, open_checkpoint
from src.config.experiment import ExperimentConfig
from src.run.belongs import refuse_another_run
from src.run.folder import RunFolder


def find_checkpoint(
    folder: RunFolder, config: ExperimentConfig, data_sha256: str
) -> tuple[Path | None, list[DamagedCheckpoint]]:
    """The checkpoint to continue from (None where the run has not got that far), and what was damaged and skipped.

    Raises:
        ValueError: the folder belongs to another config or other data, or it has trained and none of its checkpoints is
            whole: it is never started over, because that would erase it.
    """
    newest, damages = newest_checkpoint(folder.checkpoints)
    if newest is not None:
        manifest = newest.manifest
        refuse_another_run(newest.folder, manifest.identity, manifest.data_sha256, config, data_sha256)
        return newest.folder, damages
    if damages:
        raise ValueError(
            f"no checkpoint in {folder.checkpoints} is whole ({_listed(damages)}); restore one from a copy, or set "
            f"another logging.folder to start over"
        )
    attempt, last = folder.last_attempt(), folder.last_logged_step()
    if attempt is not None and last is not None:
        refuse_another_run(folder.root, attempt.identity, attempt.data_sha256, config, data_sha256)
        if attempt.start or last >= attempt.checkpoint_every:
            raise ValueError(
                f"{folder.root} has trained up to step {last} but holds no checkpoint; restore its checkpoints, or set "
                f"another logging.folder to start over"
            )
    return None, []


def _listed(damages: list[DamagedCheckpoint]) -> str:
    return "; ".join(map(str, damages))


def initial_weights(path: Path) -> Checkpoint:
    """The checkpoint that `init_from` names: a checkpoint folder, or a run folder whose newest whole one is meant.

    Raises:
        ValueError: neither of these, or damaged.
    """
    if (path / MANIFEST).is_file():
        return open_checkpoint(path)
    newest, damages = newest_checkpoint(path / "checkpoints")
    if newest is None:
        found = f"its checkpoints are damaged ({_listed(damages)})" if damages else "it has no checkpoint"
        raise ValueError(f"init_from: {path} is neither a checkpoint nor a run folder to start from: {found}")
    return newest
