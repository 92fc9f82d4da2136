"""How the ranks of an attempt ended, as their tasks leave word of it for each other: the first end is the cause."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from src.distributed.processes import STOPS
from src.run.failure import describe_hang, first_failure, hung_ranks

STOPPED, HUNG, FAILED = "stopped", "hung", "failed"


@dataclass(frozen=True)
class End:
    """The end of a rank."""

    rank: int
    code: int
    """The exit code of its process, negative for a signal that killed it."""
    time: float

    @property
    def stop(self) -> signal.Signals | None:
        """The signal that has stopped it, whether it has saved (128 + number) or not (killed before it could)."""
        number = self.code - 128 if self.code > 128 else -self.code
        return signal.Signals(number) if number in STOPS else None


def leave_word(folder: Path, rank: int, code: int) -> End:
    """Tell the other tasks that a rank has ended badly."""
    end = End(rank, code, time.time())
    path = folder / f"rank-{rank}.end"
    path.with_suffix(".draft").write_text(json.dumps(asdict(end)))
    path.with_suffix(".draft").replace(path)
    return end


def known_ends(folder: Path) -> list[End]:
    """Those that are known, the first one first."""
    return sorted((End(**json.loads(path.read_text())) for path in folder.glob("rank-*.end")), key=lambda end: end.time)


def verdict(folder: Path) -> tuple[str, str]:
    """What became of an attempt, by what is known of its ranks (one has ended badly), and a sentence of why.

    A user's mistake is the cause wherever it happens. A rank that has hung takes the others with it as echoes. Else
    the first rank that ended otherwise than well is the cause: what the others say when one is gone is an echo.
    """
    first, failure = known_ends(folder)[0], first_failure(folder)
    if failure is not None and failure.by_user:
        return FAILED, failure.message
    if hung := hung_ranks(folder):
        return HUNG, describe_hang(hung)
    if first.stop is not None:
        return STOPPED, first.stop.name
    if first.code < 0:
        name = signal.Signals(-first.code).name
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return FAILED, f"rank {first.rank} was killed by {name}{hint}"
    if failure is not None:
        return FAILED, f"rank {failure.rank}: {failure.message}"
    return FAILED, f"rank {first.rank} ended with code {first.code}"
