"""The one checkpoint format: a folder with a manifest and the ranges that each rank wrote.

    step-00001000.attempt-2/
        manifest.json               what the run was, where every range lies, size and sha256 of every file
        rank-00000.safetensors      1-D tensors `<kind>/<name>`, each a contiguous range of a flattened tensor
        frozen-step-00000100.attempt-1.00000.safetensors
                                    the same of networks that never change: a link to the first checkpoint's file

Everything is keyed by the bare module's parameter names, so a checkpoint belongs to no engine and no world size. The
manifest carries its own sha256. A folder without a readable manifest is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
FROZEN = "frozen-"
PARTIAL = ".partial"
REMOVED = ".removed"
DAMAGED = ".damaged"
FOLDER_NAME = re.compile(r"step-(\d{8,})\.attempt-(\d+)")


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not whole; the message names the file and what is wrong with it."""

    def __init__(self, folder: Path, message: str) -> None:
        super().__init__(message)
        self.folder = folder


@dataclass(frozen=True)
class Range:
    """Elements [start, end) of the flattened tensor `kind/name`."""

    kind: str
    name: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """Its name inside the safetensors file."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class RankFile:
    """What one rank wrote."""

    name: str
    size: int
    sha256: str
    ranges: tuple[Range, ...]
    shapes: dict[str, list[int]]
    """Whole shapes of the tensors, by `kind/name`."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself; all that is in it is JSON."""

    step: int
    """Steps completed, which is the next step to run."""
    samples: int
    """Samples consumed: step * batch_size."""
    attempt: int
    world_size: int
    engine: str
    optimizer_steps: int
    """Updates made: steps less the skipped ones."""
    identity: dict[str, Any]
    """The config sections that make the run what it is."""
    config_hash: str
    """sha256 of the identity."""
    data_sha256: str
    """Of the shards' index."""
    state: dict[str, Any]
    """Declared state that no function of the step gives."""
    encoder: dict[str, Any] | None = None
    """Which network is the encoder, the section that rebuilds it, and how its input is made."""
    files: tuple[RankFile, ...] = field(default=())
    format: int = FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest with its own checksum beside it in the file."""
    content = asdict(manifest)
    path = folder / MANIFEST
    path.write_text(json.dumps({"manifest": content, "sha256": _checksum(content)}, indent=1))
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DamagedCheckpoint: missing, cut off or altered.
        ValueError: whole, but of another format version.
    """
    path = folder / MANIFEST
    try:
        outer = json.loads(path.read_text())
        content = outer["manifest"]
        intact = outer["sha256"] == _checksum(content)
    except FileNotFoundError:
        raise DamagedCheckpoint(folder, f"{path} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise DamagedCheckpoint(folder, f"{path} is not readable as a manifest") from None
    if not intact:
        raise DamagedCheckpoint(folder, f"{path} does not match its own checksum")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {content['format']}, this version reads {FORMAT}: use the version it is from"
        )
    files = tuple(rank_file_from(file) for file in content.pop("files"))
    return Manifest(**content, files=files)


def rank_file_from(content: dict[str, Any]) -> RankFile:
    """A RankFile from its JSON."""
    return RankFile(**{**content, "ranges": tuple(Range(**part) for part in content["ranges"])})


def _checksum(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
