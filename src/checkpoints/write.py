"""Writing a checkpoint: each rank its own ranges, then one rename that makes the folder a checkpoint."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.checkpoints.manifest import PARTIAL, Manifest, Range, RankFile, rank_file_from, write_manifest
from src.distributed.ranks import Ranks, barrier, gather_objects
from src.engines.engine import Piece
from src.files import replace_text, sha256_of, sync

TOLD = ".json"
"""A rank's word that its file is whole, for the rank that writes the manifest in the background."""
FAILED = ".failed"
POLL_SECONDS = 0.05


def write_checkpoint(folder: Path, manifest: Manifest, pieces: Iterable[Piece], ranks: Ranks) -> Path:
    """Write the pieces of all ranks into `folder`; called by every rank together.

    Written into `step-XXXXXXXX.attempt-M.partial`, synced to disk and renamed, so that whatever is called a checkpoint
    is a whole one; the attempt in the name keeps an orphaned process of an earlier attempt out of these files.
    """
    final, partial = _places(folder, manifest, ranks)
    own = _write_rank_file(partial / _file_name(ranks.rank), *_gathered(pieces))
    files = tuple(gather_objects(own))
    if ranks.first:
        _complete(partial, final, replace(manifest, files=files))
    barrier()
    return final


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
        self, folder: Path, manifest: Manifest, pieces: Iterable[Piece], written: Callable[[Path], object]
    ) -> None:
        """Copy the pieces and return; `written` is called on rank 0 with the finished checkpoint.

        Raises:
            OSError: what went wrong with the checkpoint before.
        """
        self.wait()
        final, partial = _places(folder, manifest, self.ranks)
        ranges, shapes, tensors = _gathered(pieces, copy=True)

        def work() -> None:
            try:
                own = _write_rank_file(partial / _file_name(self.ranks.rank), ranges, shapes, tensors)
                replace_text(partial / (_file_name(self.ranks.rank) + TOLD), json.dumps(asdict(own)))
                if self.ranks.first:
                    _complete(partial, final, replace(manifest, files=self._files(partial)))
                    written(final)
            except BaseException as error:  # told by the next call, on the thread that trains
                self._failure = error
                with suppress(OSError):
                    (partial / (_file_name(self.ranks.rank) + FAILED)).touch()

        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong so far; costs nothing, and is called after every step."""
        if self._failure is not None:
            self.wait()

    def wait(self) -> None:
        """Until this rank's last checkpoint is written.

        Raises:
            OSError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _files(self, partial: Path) -> tuple[RankFile, ...]:
        told = [partial / (_file_name(rank) + TOLD) for rank in range(self.ranks.world_size)]
        while not all(path.exists() for path in told):
            if failed := sorted(path.name for path in partial.glob("*" + FAILED)):
                raise OSError(f"{partial}: {failed[0].removesuffix(FAILED)} could not be written by its rank")
            time.sleep(POLL_SECONDS)
        files = tuple(rank_file_from(json.loads(path.read_text())) for path in told)
        for path in told:
            path.unlink()
        return files


def _places(folder: Path, manifest: Manifest, ranks: Ranks) -> tuple[Path, Path]:
    final = folder / f"step-{manifest.step:08d}.attempt-{manifest.attempt}"
    partial = final.with_name(final.name + PARTIAL)
    if ranks.first:
        partial.mkdir(parents=True, exist_ok=True)
    barrier()
    return final, partial


def _file_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _gathered(
    pieces: Iterable[Piece], copy: bool = False
) -> tuple[list[Range], dict[str, list[int]], dict[str, Tensor]]:
    """Ranges, whole shapes and values of the pieces on the CPU."""
    ranges: list[Range] = []
    shapes: dict[str, list[int]] = {}
    tensors: dict[str, Tensor] = {}
    for piece in pieces:
        owned = Range(piece.kind, piece.name, piece.start, piece.start + piece.values.numel())
        assert owned.key not in tensors, owned.key
        ranges.append(owned)
        shapes[owned.key] = list(piece.shape)
        tensors[owned.key] = piece.values.detach().to("cpu", copy=copy).contiguous()
    return ranges, shapes, tensors


def _write_rank_file(
    path: Path, ranges: list[Range], shapes: dict[str, list[int]], tensors: dict[str, Tensor]
) -> RankFile:
    save_file(tensors, path)
    sync(path)
    return RankFile(path.name, path.stat().st_size, sha256_of(path), tuple(ranges), shapes)


def _complete(partial: Path, final: Path, manifest: Manifest) -> None:
    sync(write_manifest(partial, manifest))
    sync(partial)
    partial.rename(final)
    sync(final.parent)
