"""Putting a job back into the queue: whether it may be, how often it was for nothing, and asking for it."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from src.checkpoints.manifest import FOLDER_NAME
from src.cluster.ask import ask, show_job
from src.cluster.ends import HUNG, STOPPED

REQUEUES = "requeues.jsonl"
"""Of a submission: a line for each attempt that ended before the run did."""
AGAIN_SECONDS = 10.0
"""So long is slurmctld left alone after it failed to answer."""
PATIENCE_SECONDS = 1800.0
"""A slurmctld that is away comes back, or another one takes over; the job holds its nodes meanwhile."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended that did not finish the run."""

    job: str
    restart: int
    outcome: str
    why: str
    begun: int
    """The step of the newest checkpoint when it began."""
    reached: int
    """The same when it ended."""
    time: float

    @property
    def in_vain(self) -> bool:
        """Whether it has hung, or the next attempt would begin where this one did."""
        return self.outcome == HUNG or self.reached <= self.begun


def newest_step(checkpoints: Path) -> int:
    """The step of the newest checkpoint in a folder, whole or not; 0 without one."""
    found = [FOLDER_NAME.fullmatch(path.name) for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(match[1]) for match in found if match), default=0)


def ended_attempts(submission: Path, job: str) -> list[Ended]:
    """Those of a job that did not finish the run, in their order; a line that a dying node has torn is passed over."""
    path, found = submission / REQUEUES, []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError):
            found.append(Ended(**json.loads(line)))
    return [ended for ended in found if ended.job == job]


def record(submission: Path, ended: Ended, retries: int) -> None:
    """Write down how an attempt ended, if that has not been done.

    Raises:
        ValueError: it was in vain, and so were as many before it as are allowed in a row: since one was stopped that
            had got further.
    """
    attempts = ended_attempts(submission, ended.job)
    if all(other.restart != ended.restart for other in attempts):
        with (submission / REQUEUES).open("a") as file:
            file.write(json.dumps(asdict(ended)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        attempts.append(ended)
    vain = 0
    for other in attempts:
        vain = vain + 1 if other.in_vain else 0 if other.outcome == STOPPED else vain
    if vain > retries:
        raise ValueError(
            f"job {ended.job} has hung or ended without a new step {vain} times in a row (the last time: {ended.why}),"
            f" more often than --retries {retries} allows, and is not put into the queue again: look for the cause in"
            f" its logs, and submit it again with {submission / 'submit.sh'}"
        )


def give_back(submission: Path, ended: Ended, retries: int) -> None:
    """Write down how an attempt ended, and have its job started again, unless slurmctld knows better.

    Raises:
        ValueError: it was in vain too often, or SLURM refuses.
    """
    record(submission, ended, retries)
    print(f"job {ended.job} goes back into the queue: {ended.outcome}, {ended.why}", flush=True)
    if why_not := put_back(ended.job, ended.restart):
        print(f"job {ended.job} is not put into the queue by this attempt: {why_not}", flush=True)


def put_back(job: str, restart: int) -> str | None:
    """Have SLURM end all processes of a job and start it again when it is its turn; or why that was not to be done.

    Raises:
        ValueError: SLURM refuses, or is away for too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if why_not := refusal(job, restart):
                return why_not
            ask("scontrol", "requeue", job)
            return None
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(f"job {job} could not be put into the queue: {error}") from None
            print(f"asking again: {error}", flush=True)
        time.sleep(AGAIN_SECONDS)


def refusal(job: str, restart: int) -> str | None:
    """Why slurmctld would not want this attempt to put its job back into the queue; None if nothing speaks against it.

    A job that is not running was cancelled, is over its time, or is in the queue again already. One that has been
    started since is another attempt's: this one is an orphan, whose node slurmctld had given up.

    Raises:
        OSError: slurmctld does not answer.
    """
    told = next(iter(show_job(job)), {})
    if "Restarts" not in told:
        return f"scontrol does not tell its state: {told}"
    if int(told["Restarts"]) != restart:
        return f"it has been started {told['Restarts']} times again, and this is the attempt after {restart}"
    return None if told["JobState"] == "RUNNING" else f"it is {told['JobState']}"


def seconds_left(job: str) -> float:
    """Until a job's time is over; infinite where nobody knows."""
    try:
        end = datetime.fromisoformat(show_job(job)[0]["EndTime"])
    except (OSError, ValueError, LookupError):
        return float("inf")
    return (end - datetime.now()).total_seconds()
