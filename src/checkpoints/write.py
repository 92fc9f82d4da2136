"""Writing a checkpoint: each rank its own ranges, then one rename that makes the folder a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.checkpoints.manifest import PARTIAL, Manifest, Range, RankFile, write_manifest
from src.distributed.ranks import Ranks, barrier, gather_objects
from src.engines.engine import Piece
from src.files import sha256_of, sync


def write_checkpoint(folder: Path, manifest: Manifest, pieces: Iterable[Piece], ranks: Ranks) -> Path:
    """Write the pieces of all ranks into `folder`; called by every rank together.

    Written into `step-XXXXXXXX.attempt-M.partial`, synced to disk and renamed, so that whatever is called a checkpoint
    is a whole one; the attempt in the name keeps an orphaned process of an earlier attempt out of these files.
    """
    final = folder / f"step-{manifest.step:08d}.attempt-{manifest.attempt}"
    partial = final.with_name(final.name + PARTIAL)
    if ranks.first:
        partial.mkdir(parents=True, exist_ok=True)
    barrier()
    own = _write_rank_file(partial / f"rank-{ranks.rank:05d}.safetensors", pieces)
    files = tuple(gather_objects(own))
    if ranks.first:
        sync(write_manifest(partial, replace(manifest, files=files)))
        sync(partial)
        partial.rename(final)
        sync(folder)
    barrier()
    return final


def _write_rank_file(path: Path, pieces: Iterable[Piece]) -> RankFile:
    ranges: list[Range] = []
    shapes: dict[str, list[int]] = {}
    tensors: dict[str, Tensor] = {}
    for piece in pieces:
        owned = Range(piece.kind, piece.name, piece.start, piece.start + piece.values.numel())
        assert owned.key not in tensors, owned.key
        ranges.append(owned)
        shapes[owned.key] = list(piece.shape)
        tensors[owned.key] = piece.values.detach().cpu().contiguous()
    save_file(tensors, path)
    sync(path)
    return RankFile(path.name, path.stat().st_size, sha256_of(path), tuple(ranges), shapes)
