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
from contextlib import suppress
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from src.cluster.ends import (
    BEGUN,
    ENDS,
    FAILED,
    FINISHED,
    HUNG,
    STOPPED,
    End,
    decide,
    failures_of,
    known_ends,
    later_attempts,
    leave_word,
    tell_verdict,
    told_verdict,
)
from src.cluster.left import left_by_rank
from src.cluster.requeue import Ended, ended_attempts, give_back, newest_step, record, seconds_left
from src.distributed.processes import STOPS, block_stops, unblock_stops
from src.distributed.slurm import port
from src.distributed.variables import FAILURES, JOB, LAUNCHER, RESTART
from src.files import replace_text
from src.run.failure import own_failure, tell_stands
from src.run.launch import HANG_SECONDS

ECHO_SECONDS = HANG_SECONDS + 5.0
"""So long a rank may go on when another one has ended badly: what it waits for in a collective may never come."""
WORD_SECONDS = ECHO_SECONDS + 20.0
"""So long task 0 waits for the word of all: a rank may be killed as an echo first."""
TOO_LATE_SECONDS = 20.0
"""Before the end of its time a job goes back into the queue, saved or not: one that is out of time never does."""
ENDED_SECONDS = 7200.0
"""So long SLURM may take to end the tasks of a job that goes back, or to see that the node of task 0 is gone."""
POLL_SECONDS = 0.1
"""Between looks at the own rank."""
STARTS_HERE = 6
"""So often does submitit start a job on this machine, whatever its exit code (`max_retry` of its Controller.run)."""
LOOK_SECONDS, SELDOM_SECONDS = 2.0, 10.0
"""Between looks of task 0, and of each other one, into the folder where tasks leave word: there may be a thousand."""


class RankFailed(Exception):
    """What submitit tells of a task that failed."""


class Task:
    """Runs a submission's experiment; all tasks of a job call the same one."""

    def __init__(self, submission: Path, code: Path, config: Path, directory: Path, retries: int) -> None:
        self.submission, self.code, self.config = submission, code, config
        self.directory = directory
        """Where relative paths of the config begin."""
        self.retries = retries
        """Attempts in a row that may hang, or end without a new step, before the job is given up."""

    def checkpoint(self) -> DelayedSubmission:
        """For submitit, which would put back only what has this."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Run this task's rank to its end.

        Raises:
            RankFailed: a rank has failed, or was stopped where there is no queue; submitit ends the task with 1.
        """
        signals = _Signals()
        attempt = Attempt(self, JobEnvironment(), signals)
        try:
            attempt.run()
        except RankFailed:
            raise
        except Exception as error:
            attempt.give_up(f"task {attempt.rank}: {type(error).__name__}: {error}")
            raise


class _Signals:
    """What this process was sent, and passes on to its rank."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._rank: subprocess.Popen[bytes] | None = None
        for number in STOPS:
            signal.signal(number, self._receive)
        unblock_stops()  # those that came while this process started are received now

    def pass_on_to(self, rank: subprocess.Popen[bytes]) -> None:
        """Also what came before there was a rank; twice does no harm."""
        self._rank = rank
        for number in list(self.received):
            rank.send_signal(number)

    def _receive(self, number: int, _: object) -> None:
        self.received.append(number)
        if self._rank is not None:
            self._rank.send_signal(number)


class Attempt:
    """One start of a job, as one of its tasks sees it."""

    def __init__(self, task: Task, place: JobEnvironment, signals: _Signals) -> None:
        self.task, self.place, self.signals = task, place, signals
        self.job, self.rank = place.job_id, place.global_rank
        restart = os.environ.get("SLURM_RESTART_COUNT")
        self.restart = len(ended_attempts(task.submission, self.job)) if restart is None else int(restart)
        self.failures = failures_of(task.submission, self.job, self.restart)
        self.words = self.failures / ENDS
        self.words.mkdir(parents=True, exist_ok=True)
        self._checkpoints = task.submission.parents[1] / "checkpoints"
        self._begun = newest_step(self._checkpoints)
        self._look_seconds = SELDOM_SECONDS if self.rank else LOOK_SECONDS
        if self.rank == 0:
            replace_text(self.failures / BEGUN, str(self._begun))

    def run(self) -> None:
        """The rank, and what has to be done when it has ended badly."""
        with left_by_rank(self.failures, self.rank) as folder:
            code, echo = self._run_rank(folder)
        if code == 0:
            if self.rank == 0:
                tell_verdict(self.failures, FINISHED, "")
            return
        self._end_if_orphan()
        leave_word(self.words, self.rank, code, echo)
        if self.rank:
            outcome, why = self._wait_for_verdict()
        else:
            outcome, why = decide(self._all_ends(), self.failures, self.place.num_tasks)
            self._end_if_orphan()  # a job that runs elsewhere by now is not put back
        self._tell(outcome, why)
        if self.rank == 0:
            tell_verdict(self.failures, outcome, why)
        if outcome == FAILED or self.place.cluster == "debug":
            raise RankFailed(why if outcome == FAILED else f"stopped by {why}")
        if self.rank == 0:
            self._put_back(outcome, why)
        if self.place.cluster == "slurm":
            self._wait_for_the_end()
        sys.exit(1)

    def _end_if_orphan(self) -> None:
        """End where the job runs elsewhere: SLURM had given this node up, and will not end what is left on it."""
        if later := later_attempts(self.task.submission, self.job, self.restart):
            print(f"job {self.job} goes on elsewhere, as its attempt {later[-1]}: this is what a lost node had left")
            sys.exit(1)

    def _wait_for_the_end(self) -> None:
        """Until SLURM ends all tasks: one that goes before would be taken for a failure."""
        patience = time.monotonic() + ENDED_SECONDS
        while time.monotonic() < patience:
            time.sleep(self._look_seconds)
            self._end_if_orphan()

    def _run_rank(self, folder: Path) -> tuple[int, bool]:
        """The exit code of this task's rank, and whether it was killed here as the echo of another one's end."""
        task, own = self.task, {FAILURES: folder, JOB: self.job, RESTART: self.restart, LAUNCHER: os.getpid()}
        rank = subprocess.Popen(
            [sys.executable, str(task.code / "main.py"), "--fname", str(task.config)],
            cwd=task.directory,
            env=_environment_of_rank(self.place, self.restart) | {name: str(value) for name, value in own.items()},
            preexec_fn=block_stops,
        )
        self.signals.pass_on_to(rank)
        look, bad_since, echo = 0.0, None, False
        try:
            while rank.poll() is None:
                time.sleep(POLL_SECONDS)
                if (now := time.monotonic()) < look:
                    continue
                look = now + self._look_seconds
                self._end_if_orphan()  # its rank may wait for one that is gone: gloo does not see each end
                if self.rank == 0 and self.signals.received:
                    self._leave_in_time()
                if bad_since is None and any(self.words.iterdir()):
                    bad_since = now
                if bad_since is not None and now - bad_since > ECHO_SECONDS:
                    rank.kill()
                    echo = True
            return rank.wait(), echo
        finally:
            rank.kill()

    def _leave_in_time(self) -> None:
        """Put the job back before its time is over, though its ranks have not saved: afterwards nobody would."""
        if self.place.cluster == "slurm" and seconds_left(self.job) < TOO_LATE_SECONDS:
            self._put_back(STOPPED, "its time was over before it had saved")
            self._wait_for_the_end()

    def _all_ends(self) -> list[End]:
        """The ends of all ranks, when all tasks have left word or will not."""
        patience = time.monotonic() + WORD_SECONDS
        while len(ends := known_ends(self.words)) < self.place.num_tasks and time.monotonic() < patience:
            time.sleep(5 * POLL_SECONDS)
        return ends

    def _wait_for_verdict(self) -> tuple[str, str]:
        """Task 0's word; without it the node of task 0 is gone, and SLURM will see that."""
        patience, look = time.monotonic() + ENDED_SECONDS, 0.0
        while (told := told_verdict(self.failures)) is None and (now := time.monotonic()) < patience:
            if now >= look:
                self._end_if_orphan()
                look = now + self._look_seconds
            time.sleep(5 * POLL_SECONDS)
        if told is None or told[0] == FINISHED:
            return FAILED, f"rank {self.rank} has ended badly, and rank 0 has not"
        return told

    def _tell(self, outcome: str, why: str) -> None:
        """Task 0 tells the cause and all stacks, the others what their own ranks have left."""
        if outcome == HUNG and self.rank == 0:
            tell_stands(self.failures, self.place.num_tasks)
        elif outcome != STOPPED:
            failure = own_failure(self.failures, self.rank)
            if failure is not None and not failure.by_user:
                print(failure.trace, end="", file=sys.stderr)
        if outcome == FAILED:
            print(f"error: {why}", file=sys.stderr)
        sys.stderr.flush()

    def _put_back(self, outcome: str, why: str) -> None:
        """Have the job started again.

        Raises:
            RankFailed: it has been for nothing too often, or SLURM refuses.
        """
        reached = newest_step(self._checkpoints)
        ended = Ended(self.job, self.restart, outcome, why, self._begun, reached, time.time())
        try:
            if self.place.cluster == "slurm":
                give_back(self.task.submission, ended, self.task.retries)
            else:
                self._start_again_here(ended)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            tell_verdict(self.failures, FAILED, str(error))
            raise RankFailed(str(error)) from None

    def give_up(self, why: str) -> None:
        """Say that the attempt has failed, if nothing is said of it yet: else it would be taken for lost."""
        with suppress(OSError):
            if told_verdict(self.failures) is None:
                tell_verdict(self.failures, FAILED, why)

    def _start_again_here(self, ended: Ended) -> None:
        """submitit's executor on one machine looks at the exit code of its tasks.

        Raises:
            ValueError: it would not start them again.
        """
        if ended.why in (signal.SIGTERM.name, signal.SIGINT.name):
            raise ValueError(
                f"cancelled by {ended.why} after {ended.reached} steps, which are saved; submit it again to go on"
            )
        record(self.task.submission, ended, self.task.retries)
        if self.restart + 1 >= STARTS_HERE:
            raise ValueError(
                f"started {STARTS_HERE} times, which is all that --cluster local does; submit it again with"
                f" {self.task.submission / 'submit.sh'} to go on from step {ended.reached}"
            )
        print(f"job {self.job} is started again: {ended.outcome}, {ended.why}", flush=True)
        self.place._requeue(0)


def _environment_of_rank(place: JobEnvironment, restart: int) -> dict[str, str]:
    """As torchrun's; the address and the port are those that the job's script has chosen."""
    here = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port(place.job_id, "0", restart)),
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // place.num_tasks)),
    }
    return {
        **({} if place.cluster == "slurm" else here),
        **os.environ,
        "RANK": str(place.global_rank),
        "LOCAL_RANK": str(place.local_rank),
        "WORLD_SIZE": str(place.num_tasks),
        "LOCAL_WORLD_SIZE": str(place.num_tasks // place.num_nodes),
    }
