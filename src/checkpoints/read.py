"""Reading a checkpoint: found, verified, and given out tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from src.checkpoints.manifest import (
    FOLDER_NAME,
    DamagedCheckpoint,
    Manifest,
    Range,
    RankFile,
    read_manifest,
)
from src.files import sha256_of


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint as a source of whole tensors."""

    folder: Path
    manifest: Manifest

    @property
    def optimizer_steps(self) -> int:
        return self.manifest.optimizer_steps

    @property
    def state(self) -> dict[str, Any]:
        return self.manifest.state

    def names(self, kind: str) -> set[str]:
        """Names of the tensors of a kind: model, buffer, exp_avg or exp_avg_sq."""
        return {name for owner, name in self._by_tensor if owner == kind}

    def shapes(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Kind, name and whole shape of every tensor."""
        for (kind, name), ((file, part), *_) in self._by_tensor.items():
            yield kind, name, tuple(file.shapes[part.key])

    def shape(self, kind: str, name: str) -> tuple[int, ...]:
        """Whole shape of the tensor `kind/name`."""
        file, part = self._by_tensor[kind, name][0]
        return tuple(file.shapes[part.key])

    def read(self, kind: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor `kind/name`, put together from its ranges.

        Raises:
            ValueError: it has another shape; the message names it.
            DamagedCheckpoint: its ranges leave a gap.
        """
        return self.read_range(kind, name, shape, 0, math.prod(shape)).view(shape)

    def read_range(self, kind: str, name: str, shape: tuple[int, ...], start: int, end: int) -> Tensor:
        """Elements [start, end) of the flattened tensor `kind/name` of this whole shape; nothing else is read.

        Raises:
            As `read`.
        """
        found, saved = self._by_tensor[kind, name], self.shape(kind, name)
        if saved != shape:
            raise ValueError(f"{self.folder}: {kind} {name} has shape {list(saved)}, the model wants {list(shape)}")
        parts, reached = [], start
        for file, part in found:
            if part.end <= start or part.start >= end:
                continue
            if part.start > reached:
                break
            with safe_open(self.folder / file.name, "pt") as tensors:
                stop = min(end, part.end)
                parts.append(tensors.get_slice(part.key)[reached - part.start : stop - part.start])
            reached = stop
        if reached < end:
            raise DamagedCheckpoint(self.folder, f"{self.folder}: the ranges of {kind} {name} end at element {reached}")
        return torch.cat(parts) if parts else torch.empty(0)

    @cached_property
    def _by_tensor(self) -> dict[tuple[str, str], list[tuple[RankFile, Range]]]:
        """The files and ranges of each tensor, in the order of its elements."""
        table: dict[tuple[str, str], list[tuple[RankFile, Range]]] = {}
        for file in self.manifest.files:
            for part in file.ranges:
                table.setdefault((part.kind, part.name), []).append((file, part))
        return {tensor: sorted(parts, key=lambda entry: entry[1].start) for tensor, parts in table.items()}


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint after checking its manifest and the size and sha256 of every file.

    Raises:
        DamagedCheckpoint: names the file that is missing, cut off or altered.
    """
    manifest = read_manifest(folder)
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file():
            raise DamagedCheckpoint(folder, f"{path} is missing")
        if path.stat().st_size != file.size:
            raise DamagedCheckpoint(folder, f"{path} has {path.stat().st_size} bytes instead of {file.size}")
        if sha256_of(path) != file.sha256:
            raise DamagedCheckpoint(folder, f"{path} does not match its sha256")
    return Checkpoint(folder, manifest)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Every finished checkpoint folder, newest first: by step, then by attempt."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := FOLDER_NAME.fullmatch(path.name):
            found.append(((int(match[1]), int(match[2])), path))
    return [path for _, path in sorted(found, reverse=True)]


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[DamagedCheckpoint]]:
    """The newest whole checkpoint, if any, and what is wrong with the newer ones."""
    damages: list[DamagedCheckpoint] = []
    for path in checkpoint_folders(folder):
        try:
            return open_checkpoint(path), damages
        except DamagedCheckpoint as damage:
            damages.append(damage)
    return None, damages
