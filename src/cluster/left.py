"""What a rank leaves when it ends: on its own node while it runs, in the submission's folder afterwards.

The watchdog notes each step where its stacks would go: thousands of ranks would write at each step to the disk that all
nodes share.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.run.failure import STACKS_HEADER

ROOM = 2**20
"""Bytes that have to find room on the node: the stacks of a rank with many threads."""


@contextmanager
def left_by_rank(failures: Path, rank: int) -> Iterator[Path]:
    """A folder for a rank, on this node if it has room; afterwards `failures` has what is worth keeping of it."""
    own = _folder_of_node()
    if own is None:
        yield failures
        _forget_empty(failures, rank)
        return
    try:
        yield own
        _forget_empty(own, rank)
        for path in own.glob(f"rank-{rank}.*"):
            _keep(path, failures)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _keep(path: Path, failures: Path) -> None:
    """Copy what a rank has left, whole or not at all; where the shared disk takes nothing more it goes to stderr."""
    draft = failures / f".{path.name}"
    try:
        shutil.copyfile(path, draft)
        draft.replace(failures / path.name)
    except OSError as error:
        print(f"error: {failures} can't take {path.name} ({error}), which says:", file=sys.stderr)
        print(path.read_bytes().lstrip(b"\0").decode(errors="replace"), file=sys.stderr, flush=True)


def _forget_empty(folder: Path, rank: int) -> None:
    """Remove the file of stacks that holds none: a long run has many attempts, and each many ranks."""
    stacks = folder / f"rank-{rank}.stacks"
    if stacks.exists() and stacks.stat().st_size <= STACKS_HEADER:
        stacks.unlink()


def _folder_of_node() -> Path | None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="medssl-"))
    except OSError:
        return None
    try:
        (folder / "room").write_bytes(bytes(ROOM))
        (folder / "room").unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder
