"""Putting a job back into the queue: whether it may be, how often it was for nothing, and asking for it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from src.checkpoints.manifest import FOLDER_NAME
from src.cluster.ends import HUNG

REQUEUES = "requeues.jsonl"
"""Of a submission: a line for each attempt that ended before the run did."""
ASK_SECONDS, ASK_AGAIN_SECONDS = 60.0, 5.0
"""So long may slurmctld take to answer one question, and so long it is left alone after it failed to."""
TIMES = 5


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
    """Those of a job that did not finish the run, in their order."""
    path = submission / REQUEUES
    if not path.exists():
        return []
    return [ended for line in path.read_text().splitlines() if (ended := Ended(**json.loads(line))).job == job]


def record(submission: Path, ended: Ended, retries: int) -> None:
    """Write down how an attempt ended.

    Raises:
        ValueError: it has hung, or was in vain, once more than is allowed.
    """
    with (submission / REQUEUES).open("a") as file:
        file.write(json.dumps(asdict(ended)) + "\n")
    vain = sum(other.in_vain for other in ended_attempts(submission, ended.job))
    if ended.in_vain and vain > retries:
        raise ValueError(
            f"job {ended.job} has hung or ended without a new step {vain} times (the last time: {ended.why}), more"
            f" often than --retries {retries} allows, and is not put into the queue again: look for the cause in its"
            f" logs, and submit it again with {submission / 'submit.sh'}"
        )


def refusal(job: str, restart: int) -> str | None:
    """Why slurmctld would not want this attempt to put its job back into the queue; None if nothing speaks against it.

    A job that is not running was cancelled, is over its time, or is in the queue again already. One that has been
    started since is another attempt's: this one is an orphan, whose node slurmctld had given up.

    Raises:
        ValueError: slurmctld does not answer.
    """
    told = _ask("scontrol", "show", "job", "-o", job)
    state, restarts = re.search(r"\bJobState=(\w+)", told), re.search(r"\bRestarts=(\d+)", told)
    if state is None or restarts is None:
        return f"scontrol does not tell its state: {told[:200]!r}"
    if int(restarts[1]) != restart:
        return f"it has been started {restarts[1]} times again, and this is the attempt after {restart}"
    return None if state[1] == "RUNNING" else f"it is {state[1]}"


def requeue(job: str) -> None:
    """Have SLURM end all processes of a job and start it again when it is its turn.

    Raises:
        ValueError: SLURM refuses.
    """
    _ask("scontrol", "requeue", job)


def _ask(*words: str) -> str:
    """What a command of SLURM says; asked again where slurmctld is busy or away."""
    for left in reversed(range(TIMES)):
        try:
            return subprocess.run(words, check=True, capture_output=True, text=True, timeout=ASK_SECONDS).stdout
        except subprocess.TimeoutExpired:
            problem = f"no answer within {ASK_SECONDS:.0f} s"
        except subprocess.CalledProcessError as error:
            problem = error.stderr.strip()
        if left:
            time.sleep(ASK_AGAIN_SECONDS)
    raise ValueError(f"`{' '.join(words)}` fails: {problem}")
