"""How a rank tells who started it why it died: small files, so that the first cause is told, not its echoes."""

from __future__ import annotations

import errno
import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from src.distributed.variables import FAILURES

STACKS_HEADER = 128
"""Bytes at the beginning of rank-N.stacks that say where the rank is; the stacks of its threads follow if it hangs."""

BEYOND_THE_CODE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""A full disk or a folder that may not be written: the operating system's sentence names the file."""


@dataclass(frozen=True)
class Failure:
    """Why a rank ended."""

    rank: int
    time: float
    message: str
    by_user: bool
    """Something the user can mend: the message is the whole story."""
    trace: str


def record_failure(rank: int, error: BaseException) -> Failure:
    """Describe an error, and leave it for the launcher where there is one."""
    failure = Failure(
        rank,
        time.time(),
        str(error) or type(error).__name__,
        isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in BEYOND_THE_CODE),
        "".join(traceback.format_exception(error)),
    )
    if folder := os.environ.get(FAILURES):
        path = Path(folder) / f"rank-{rank}.json"
        path.with_suffix(".draft").write_text(json.dumps(asdict(failure)))
        path.with_suffix(".draft").replace(path)  # whole or not there: the launcher may end this process any moment
    return failure


def first_failure(folder: Path) -> Failure | None:
    """The earliest failure that any rank left."""
    failures = [Failure(**json.loads(path.read_text())) for path in folder.glob("rank-*.json")]
    return min(failures, key=lambda failure: failure.time, default=None)


def own_failure(folder: Path, rank: int) -> Failure | None:
    """The failure that a rank left."""
    path = folder / f"rank-{rank}.json"
    return Failure(**json.loads(path.read_text())) if path.exists() else None


def hung_ranks(folder: Path) -> dict[int, str]:
    """The stacks of each rank that the watchdog has ended, below a line that says at which step; empty if none has."""
    hung = {}
    for path in folder.glob("rank-*.stacks"):
        written = path.read_bytes()
        if len(written) > STACKS_HEADER:
            where, stacks = written[:STACKS_HEADER].decode(), written[STACKS_HEADER:].decode(errors="replace")
            hung[int(path.stem.split("-")[1])] = f"{where.rstrip()}\n{stacks}"
    return dict(sorted(hung.items()))


def describe_hang(hung: dict[int, str]) -> str:
    """Which ranks have hung, and at which step they were, as a sentence."""
    ranks_at: dict[str, list[str]] = {}
    for rank, stacks in hung.items():
        ranks_at.setdefault(stacks.splitlines()[0], []).append(str(rank))
    return "; ".join(f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)} {where}" for where, ranks in ranks_at.items())
