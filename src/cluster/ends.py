"""How the ranks of an attempt ended, as their tasks leave word of it for each other, and what became of the attempt.

Only ends that were bad are told. Task 0 reads them and decides; the other tasks read its word alone, so that a job of a
thousand tasks does not read a thousand files a thousand times.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from src.distributed.processes import STOPS
from src.files import replace_text
from src.run.failure import describe_hang, first_failure, hung_ranks

FINISHED, STOPPED, HUNG, LOST, FAILED = "finished", "stopped", "hung", "lost", "failed"
VERDICT = "verdict.json"
ENDS = "ends"
"""Folder where tasks leave word for each other; nothing is written there while all is well."""
BEGUN = "begun"
"""File with the step that the attempt has begun after."""


@dataclass(frozen=True)
class End:
    """The bad end of a rank."""

    rank: int
    code: int
    """The exit code of its process, negative for a signal that killed it."""
    time: float
    echo: bool = False
    """Whether its own task has killed it, because another one had ended."""

    @property
    def stop(self) -> signal.Signals | None:
        """The signal that has stopped it, whether it has saved (128 + number) or not (killed before it could)."""
        number = self.code - 128 if self.code > 128 else -self.code
        return signal.Signals(number) if number in STOPS else None

    @property
    def killed(self) -> bool:
        """Whether something has killed it: out of memory, a fault in a library."""
        return self.code < 0 and self.stop is None and not self.echo


def leave_word(folder: Path, rank: int, code: int, echo: bool = False) -> None:
    """Tell task 0 that a rank has ended badly."""
    replace_text(folder / f"rank-{rank}.end", json.dumps(asdict(End(rank, code, time.time(), echo))))


def known_ends(folder: Path) -> list[End]:
    """Those that are known, the first one first."""
    return sorted((End(**json.loads(path.read_text())) for path in folder.glob("rank-*.end")), key=lambda end: end.time)


def failures_of(submission: Path, job: str, restart: int) -> Path:
    """The folder for what an attempt's ranks leave, and what its tasks say of it."""
    return submission / "failures" / f"{job}-{restart}"


def later_attempts(submission: Path, job: str, restart: int) -> list[int]:
    """Those of a job that have begun after one, by number: SLURM starts none before it has ended all that it can."""
    numbers = (path.name.removeprefix(f"{job}-") for path in (submission / "failures").glob(f"{job}-*"))
    return sorted(number for text in numbers if text.isdecimal() and (number := int(text)) > restart)


def decide(ends: list[End], failures: Path, ranks: int) -> tuple[str, str]:
    """What became of an attempt of so many ranks, of which some have ended badly, and a sentence of why.

    A user's mistake is the cause wherever it happens. A rank that has hung takes the others with it as echoes, and so
    does one that was killed. Ranks that do not come together at the start are lost, and so is one of which there is no
    word: its node is gone. A stop is the cause wherever it stands, since a rank that has ended leaves the others with
    broken connections; else the first end is.
    """
    first, failure = ends[0], first_failure(failures)
    stops = [end.stop for end in ends if end.stop is not None]
    if failure is not None and failure.by_user and not failure.again:
        return FAILED, failure.message
    if hung := hung_ranks(failures):
        return HUNG, describe_hang(hung)
    if killed := [end for end in ends if end.killed]:
        name = signal.Signals(-killed[0].code).name
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return FAILED, f"rank {killed[0].rank} was killed by {name}{hint}"
    if stops:  # wherever it stands: a rank that ends at once leaves the others with a broken connection
        return STOPPED, stops[0].name
    if failure is not None and failure.again:
        return LOST, failure.message
    if silent := set(range(ranks)) - {end.rank for end in ends}:
        return LOST, f"no word of rank {', '.join(map(str, sorted(silent)[:8]))}: its node is gone"
    if failure is not None:
        return FAILED, f"rank {failure.rank}: {failure.message}"
    return FAILED, f"rank {first.rank} ended with code {first.code}"


def tell_verdict(folder: Path, outcome: str, why: str) -> None:
    """Task 0's word."""
    replace_text(folder / VERDICT, json.dumps([outcome, why]))


def told_verdict(folder: Path) -> tuple[str, str] | None:
    """Task 0's word, if it has come."""
    try:
        outcome, why = json.loads((folder / VERDICT).read_text())
    except FileNotFoundError:
        return None
    return outcome, why
