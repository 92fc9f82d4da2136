"""A task of a job: it starts its rank, passes signals on to it, and puts the job back into the queue where it is due.

submitit calls `Task` in each task of a job. The rank is a process of its own, which dies with its task: it runs the
code that was submitted, has none of submitit's signal handlers, and may end as it likes. submitit's own way would put
a job back on SIGUSR2 alone, while ranks still train, and never after a hang; here a job goes back when its ranks have
saved, whoever was asked to stop and by which signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from src.cluster.ends import FAILED, known_ends, leave_word, verdict
from src.cluster.requeue import Ended, ended_attempts, newest_step, record, refusal, requeue
from src.distributed.processes import STOPS, block_stops
from src.distributed.variables import FAILURES, JOB, LAUNCHER, RESTART
from src.run.failure import hung_ranks, own_failure
from src.run.launch import HANG_SECONDS

ECHO_SECONDS = HANG_SECONDS + 5.0
"""So long a rank may go on when another one has ended badly: what it waits for in a collective may never come."""
ENDED_SECONDS = 120.0
"""So long SLURM may take to end the tasks of a job that is in the queue again."""
POLL_SECONDS, LOOK_SECONDS = 0.1, 2.0
"""Between looks at the own rank, and at the folder in which the others leave word."""
TOLD = "told"
"""The file that says that task 0 has told the cause: srun ends all tasks when the first one fails."""


class RankFailed(Exception):
    """What submitit tells of a task that failed."""


class Task:
    """Runs a submission's experiment; all tasks of a job call the same one."""

    def __init__(self, submission: Path, code: Path, config: Path, directory: Path, retries: int) -> None:
        self.submission, self.code, self.config = submission, code, config
        self.directory = directory
        """Where relative paths of the config begin."""
        self.retries = retries
        """Attempts that may hang, or end without a new step, before the job is given up."""

    def checkpoint(self) -> DelayedSubmission:
        """For submitit, which would put back only what has this."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Run this task's rank to its end.

        Raises:
            RankFailed: a rank has failed, or was stopped where there is no queue; submitit ends the task with 1.
        """
        place = JobEnvironment()
        restart = int(os.environ.get("SLURM_RESTART_COUNT", len(ended_attempts(self.submission, place.job_id))))
        words = self.submission / "failures" / f"{place.job_id}-{restart}"
        words.mkdir(parents=True, exist_ok=True)
        begun = newest_step(self._checkpoints)
        own = {FAILURES: str(words), JOB: place.job_id, RESTART: str(restart), LAUNCHER: str(os.getpid())}
        code = self._run(_environment_of_rank(place) | own, words)
        if code == 0:
            return
        leave_word(words, place.global_rank, code)
        outcome, why = _verdict(words, place.num_tasks)
        _tell(words, place.global_rank, outcome, why)
        if outcome == FAILED or place.cluster == "debug":
            raise RankFailed(why)
        if place.global_rank == 0:
            ended = Ended(place.job_id, restart, outcome, why, begun, newest_step(self._checkpoints), time.time())
            self._put_back(place, ended)
        if place.cluster == "slurm":
            time.sleep(ENDED_SECONDS)  # until SLURM ends all tasks: one that goes before would be taken for a failure
        sys.exit(1)

    @property
    def _checkpoints(self) -> Path:
        return self.submission.parents[1] / "checkpoints"

    def _run(self, environment: dict[str, str], words: Path) -> int:
        """The exit code of this task's rank, which is sent what this process is sent."""
        received: list[int] = []
        ranks: list[subprocess.Popen[bytes]] = []

        def pass_on(number: int, _: object) -> None:
            received.append(number)
            for rank in ranks:
                rank.send_signal(number)

        for number in STOPS:
            signal.signal(number, pass_on)
        rank = subprocess.Popen(
            [sys.executable, str(self.code / "main.py"), "--fname", str(self.config)],
            cwd=self.directory,
            env=environment,
            preexec_fn=block_stops,
        )
        ranks.append(rank)
        for earlier in received:  # before there was a rank; twice does no harm
            rank.send_signal(earlier)
        look, bad_since, state = 0.0, None, words.stat().st_mtime_ns
        while rank.poll() is None:
            time.sleep(POLL_SECONDS)
            if (now := time.monotonic()) < look:
                continue
            look = now + LOOK_SECONDS
            if bad_since is None and words.stat().st_mtime_ns != state and known_ends(words):
                bad_since = now
            if bad_since is not None and now - bad_since > ECHO_SECONDS:
                rank.kill()
        return rank.wait()

    def _put_back(self, place: JobEnvironment, ended: Ended) -> None:
        """Have the job started again.

        Raises:
            RankFailed: it has been for nothing too often, or SLURM refuses.
        """
        try:
            if place.cluster == "slurm" and (why_not := refusal(ended.job, ended.restart)):
                print(f"job {ended.job} is not put into the queue by this attempt: {why_not}", flush=True)
                return
            record(self.submission, ended, self.retries)
            print(f"job {ended.job} goes back into the queue: {ended.outcome}, {ended.why}", flush=True)
            if place.cluster == "slurm":
                requeue(ended.job)
            else:
                place._requeue(0)  # of submitit's executor on one machine: it looks at the exit code of its tasks
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise RankFailed(str(error)) from None


def _environment_of_rank(place: JobEnvironment) -> dict[str, str]:
    """As torchrun's; the address and the port are those that the job's script has chosen."""
    here = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + crc32(place.job_id.encode()) % 12000),
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // place.num_tasks)),
    }
    return {
        **({} if place.cluster == "slurm" else here),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP would advise to switch off what the engine needs
        **os.environ,
        "RANK": str(place.global_rank),
        "LOCAL_RANK": str(place.local_rank),
        "WORLD_SIZE": str(place.num_tasks),
        "LOCAL_WORLD_SIZE": str(place.num_tasks // place.num_nodes),
    }


def _verdict(words: Path, ranks: int) -> tuple[str, str]:
    """What became of the attempt, when all ranks have left word or will not."""
    patience = time.monotonic() + ECHO_SECONDS
    while len(known_ends(words)) < ranks and time.monotonic() < patience:
        time.sleep(POLL_SECONDS)
    return verdict(words)


def _tell(words: Path, rank: int, outcome: str, why: str) -> None:
    """Task 0 tells the cause, the others what their own ranks have left, and not before it."""
    told, patience = words / TOLD, time.monotonic() + ECHO_SECONDS
    if rank:
        while not told.exists() and time.monotonic() < patience:
            time.sleep(POLL_SECONDS)
    for number, stacks in hung_ranks(words).items():
        if rank in (0, number):
            print(f"--- rank {number} ---\n{stacks.rstrip()}", file=sys.stderr)
    if outcome == FAILED:
        if (failure := own_failure(words, rank)) and not failure.by_user:
            print(failure.trace, end="", file=sys.stderr)
        print(f"error: {why}", file=sys.stderr)
    sys.stderr.flush()
    if not rank:
        told.touch()
