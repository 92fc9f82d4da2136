"""Where a run goes on: its folder's newest whole checkpoint, if that belongs to the same experiment."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoints.manifest import MANIFEST, DamagedCheckpoint, read_manifest
from src.checkpoints.read import Checkpoint, checkpoint_folders, newest_checkpoint, open_checkpoint
from src.config.experiment import ExperimentConfig
from src.models.any_config import read_encoder_section
from src.models.config import EncoderSection
from src.models.resize import LEARNED, resized
from src.run.belongs import refuse_another_run
from src.run.folder import RunFolder
from src.transforms.plain import AnyPreprocessing, read_preprocessing


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


def checkpoint_of(folder: Path, step: int) -> Path:
    """The newest whole checkpoint of a step.

    Raises:
        ValueError: there is none.
    """
    found = [path for path in checkpoint_folders(folder) if path.name.startswith(f"step-{step:08d}.")]
    faults = []
    for path in found:
        try:
            return open_checkpoint(path).folder
        except DamagedCheckpoint as damaged:
            faults.append(damaged)
    why = f"is damaged ({_listed(faults)})" if faults else "is gone"
    raise ValueError(f"the best checkpoint, that of step {step} in {folder}, {why}: restore it from a copy")


def encoder_of_run(folder: RunFolder) -> tuple[EncoderSection, AnyPreprocessing] | None:
    """The encoder that a run folder's checkpoints are of, and how its input is made; None where there is none yet.

    Only read here, and not verified: whatever is wrong with the newest is told when the run continues from it.
    """
    for path in checkpoint_folders(folder.checkpoints):
        with suppress(DamagedCheckpoint):
            part = read_manifest(path).encoder
            if part is not None:
                return read_encoder_section(json.dumps(part["config"])), read_preprocessing(
                    json.dumps(part["preprocessing"])
                )
    return None


@dataclass(frozen=True)
class ResizedWeights:
    """The weights of a checkpoint for an encoder whose input has another size; nothing but weights."""

    checkpoint: Checkpoint
    wanted: EncoderSection

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @property
    def optimizer_steps(self) -> int:
        return self.checkpoint.optimizer_steps

    @property
    def state(self) -> dict[str, Any]:
        return self.checkpoint.state

    def names(self, kind: str) -> set[str]:
        return self.checkpoint.names(kind)

    def read(self, kind: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """As a checkpoint's, and learned positions interpolated.

        Raises:
            ValueError: the encoders differ in more than the size of the input; or as a checkpoint's.
        """
        part, saved = self.checkpoint.manifest.encoder, self.checkpoint.shape(kind, name)
        if part is None or saved == shape or not name.endswith(LEARNED):
            return self.checkpoint.read(kind, name, shape)
        old = read_encoder_section(json.dumps(part["config"]))
        return resized({name: self.checkpoint.read(kind, name, saved)}, old, self.wanted)[name]

    def read_range(self, kind: str, name: str, shape: tuple[int, ...], start: int, end: int) -> Tensor:
        """Elements [start, end) of the flattened tensor.

        Raises:
            ValueError: as `read`.
        """
        if self.checkpoint.shape(kind, name) == shape:
            return self.checkpoint.read_range(kind, name, shape, start, end)
        return self.read(kind, name, shape).flatten()[start:end]
