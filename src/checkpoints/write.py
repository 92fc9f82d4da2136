"""Writing a checkpoint: each rank its own ranges, then one rename that makes the folder a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.checkpoints.manifest import (
    FROZEN,
    PARTIAL,
    DamagedCheckpoint,
    Manifest,
    Range,
    RankFile,
    rank_file_from,
    read_manifest,
    write_manifest,
)
from src.checkpoints.read import checkpoint_folders
from src.distributed.ranks import Ranks, barrier, broadcast_object, gather_objects
from src.engines.engine import Piece
from src.files import replace_text, sha256_of, sync

TOLD = ".json"
"""A rank's word that its file is whole, for the rank that writes the manifest in the background."""
FAILED = ".failed"
POLL_SECONDS = 0.05


def always() -> None:
    """What is asked before a checkpoint gets its name, where nobody else could have taken the folder."""


def write_checkpoint(
    folder: Path,
    manifest: Manifest,
    pieces: Iterable[Piece],
    ranks: Ranks,
    allowed: Callable[[], object] = always,
) -> Path:
    """Write the pieces of all ranks into `folder`; called by every rank together.

    Written into `step-XXXXXXXX.attempt-M.partial`, synced to disk and renamed, so that whatever is called a checkpoint
    is a whole one; the attempt in the name keeps an orphaned process of an earlier attempt out of these files, and
    `allowed`, called on rank 0 before the rename, raises where it must not be renamed any more. Frozen pieces are in
    the folder's first checkpoint; the later ones link its files.
    """
    place = _place(folder, manifest, ranks)
    own = _write(place, ranks, _gathered(pieces, place))
    files = [file for files in gather_objects(own) for file in files]
    if ranks.first:
        _complete(place, manifest, files, allowed)
    barrier()
    return place.final


class BackgroundWriter:
    """Checkpoints copied at once and written by a thread while training goes on; no collectives in the thread.

    Rank 0 waits for the word that the others leave beside their files, so that a rank that dies leaves a `.partial`
    folder and nothing else.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def write(
        self,
        folder: Path,
        manifest: Manifest,
        pieces: Iterable[Piece],
        written: Callable[[Path], object],
        allowed: Callable[[], object] = always,
    ) -> None:
        """Copy the pieces and return; `written` is called on rank 0 with the finished checkpoint.

        Raises:
            Exception: what went wrong with the checkpoint before.
        """
        self.wait()
        place = _place(folder, manifest, self.ranks)
        contents = _gathered(pieces, place, copy=True)

        def work() -> None:
            try:
                own = _write(place, self.ranks, contents)
                word = json.dumps([asdict(file) for file in own])
                replace_text(place.partial / (_file_name(self.ranks.rank) + TOLD), word)
                if self.ranks.first:
                    _complete(place, manifest, self._files(place.partial), allowed)
                    written(place.final)
            except BaseException as error:  # told by the next call, on the thread that trains
                self._failure = error
                with suppress(OSError):
                    (place.partial / (_file_name(self.ranks.rank) + FAILED)).touch()

        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong so far; costs nothing, and is called after every step."""
        if self._failure is not None:
            self.wait()

    def wait(self) -> None:
        """Until this rank's last checkpoint is written.

        Raises:
            Exception: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _files(self, partial: Path) -> list[RankFile]:
        told = [partial / (_file_name(rank) + TOLD) for rank in range(self.ranks.world_size)]
        while not all(path.exists() for path in told):
            if failed := sorted(path.name for path in partial.glob("*" + FAILED)):
                raise OSError(f"{partial}: {failed[0].removesuffix(FAILED)} could not be written by its rank")
            time.sleep(POLL_SECONDS)
        files = [rank_file_from(file) for path in told for file in json.loads(path.read_text())]
        for path in told:
            path.unlink()
        return files


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint is written, and what of it an earlier one has."""

    final: Path
    partial: Path
    frozen: tuple[tuple[Path, RankFile], ...] = ()
    """The earlier files of frozen tensors, which rank 0 links."""
    written: frozenset[str] = frozenset()
    """The tensors in those files, which no rank writes."""

    @property
    def frozen_prefix(self) -> str:
        """How the names of new files of frozen tensors begin; later ones lie beside links to the earlier."""
        return f"{FROZEN}{self.final.name}."


@dataclass
class _Contents:
    """What one file will hold."""

    ranges: list[Range] = field(default_factory=list)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def _place(folder: Path, manifest: Manifest, ranks: Ranks) -> _Place:
    final = folder / f"step-{manifest.step:08d}.attempt-{manifest.attempt}"
    partial = final.with_name(final.name + PARTIAL)
    if ranks.first:
        partial.mkdir(parents=True, exist_ok=True)
    frozen = _frozen_files(folder) if ranks.first else ()
    written = broadcast_object(frozenset(part.key for _, file in frozen for part in file.ranges))
    return _Place(final, partial, frozen, written)


def _frozen_files(folder: Path) -> tuple[tuple[Path, RankFile], ...]:
    """Those of the newest checkpoint, which has them if any has; nothing where one of them is gone or cut off."""
    for newest in checkpoint_folders(folder)[:1]:
        if not any(newest.glob(f"{FROZEN}*")):  # most runs have none, and need not parse a manifest to know it
            return ()
        with suppress(DamagedCheckpoint, OSError):
            files = [file for file in read_manifest(newest).files if file.name.startswith(FROZEN)]
            if all((newest / file.name).stat().st_size == file.size for file in files):
                return tuple((newest / file.name, file) for file in files)
    return ()


def _file_name(rank: int, prefix: str = "rank-") -> str:
    return f"{prefix}{rank:05d}.safetensors"


def _gathered(pieces: Iterable[Piece], place: _Place, copy: bool = False) -> dict[str, _Contents]:
    """The pieces on the CPU, those of each file by its name's beginning; frozen ones only where they are missing."""
    found = {"rank-": _Contents()}
    for piece in pieces:
        owned = Range(piece.kind, piece.name, piece.start, piece.start + piece.values.numel())
        if owned.key in place.written:
            assert piece.frozen, f"{owned.key} was frozen in an earlier checkpoint"
            continue
        contents = found.setdefault(place.frozen_prefix if piece.frozen else "rank-", _Contents())
        assert owned.key not in contents.tensors, owned.key
        contents.ranges.append(owned)
        contents.shapes[owned.key] = list(piece.shape)
        contents.tensors[owned.key] = piece.values.detach().to("cpu", copy=copy).contiguous()
    return found


def _write(place: _Place, ranks: Ranks, contents: dict[str, _Contents]) -> list[RankFile]:
    written = []
    for prefix, found in contents.items():
        path = place.partial / _file_name(ranks.rank, prefix)
        save_file(found.tensors, path)
        sync(path)
        file = RankFile(path.name, path.stat().st_size, sha256_of(path), tuple(found.ranges), found.shapes)
        written.append(file)
    return written


def _complete(place: _Place, manifest: Manifest, files: list[RankFile], allowed: Callable[[], object]) -> None:
    for path, file in place.frozen:
        try:
            os.link(path, place.partial / file.name)
        except OSError:  # a disk without links
            shutil.copyfile(path, place.partial / file.name)
            sync(place.partial / file.name)
    files = [*files, *(file for _, file in place.frozen)]
    sync(write_manifest(place.partial, replace(manifest, files=tuple(files))))
    sync(place.partial)
    allowed()
    place.partial.rename(place.final)
    sync(place.final.parent)
