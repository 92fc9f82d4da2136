"""From checked configs to jobs: one script and one array for all of them, through submitit's executors."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths

from src.cluster.check import Checked
from src.cluster.request import Request
from src.cluster.submission import Submission, withdraw, write_submissions
from src.cluster.task import Task
from src.config.experiment import ExperimentConfig

SIGNALS = "HUP INT TERM USR1 USR2"
SHIELD = f"trap '' {SIGNALS}"
"""By default the task's shell would die of what asks the task to stop."""
BLOCK = f"env --block-signal={SIGNALS.replace(' ', ',')}"
"""Keeps what asks the task to stop until it has handlers for it: submitit takes seconds to start, and would answer
SIGUSR2 itself. The env of coreutils 8.31 (2019) and later can; elsewhere a signal that comes so early is ignored."""
TASK, TASK_APART = '"$0" "$@"', 'setsid "$0" "$@"'
"""What the shell becomes; apart from the terminal, whose Ctrl-C is for this command and not for its jobs."""
LET_TASKS_SAVE = f"trap : {SIGNALS}"
"""The job's script waits for its tasks when it is told to stop."""
PYTHON = f"{shlex.quote(sys.executable)} -P"
TIMEOUTS = 10**9
"""Of submitit's own count, which takes preemption for a time-out in short jobs; tasks count what was in vain."""
LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""What of SLURM's environment is about the cluster and not about a job."""


@dataclass(frozen=True)
class Job:
    """A job that was submitted."""

    submission: Submission
    handle: submitit.Job[Any]

    @property
    def number(self) -> str:
        """The cluster's: 12, or 12_3 of an array; a process where there is no cluster."""
        return str(self.handle.job_id)

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.submission.checked.folder

    def log(self, kind: str) -> Path:
        """Of task 0 (of the job's script, too): `out` or `err`."""
        paths = JobPaths(self.handle.paths.folder, self.number, 0)
        return paths.stdout if kind == "out" else paths.stderr


def submit(checked: list[Checked], request: Request, logs: Path, directory: Path) -> list[Job]:
    """Queue all jobs, or none.

    Raises:
        ValueError: the cluster refuses, in its own words.
    """
    before = _temporary(logs)
    submissions = write_submissions(checked, request, logs, directory)
    tasks = [Task(one.folder, one.code, one.config, directory, request.retries) for one in submissions]
    try:
        with _environment(request, submissions[0].code), _uninterrupted(request.cluster == "slurm"):
            executor = _executor(request, logs, submissions)
            with redirect_stderr(StringIO()):  # submitit prints what sbatch says, which is told as one sentence
                handles = executor.submit_array(tasks)
    except BaseException as error:
        _clean(logs, _temporary(logs) - before, submissions)
        withdraw(submissions)
        if isinstance(error, FailedJobError | FailedSubmissionError):
            raise ValueError(f"sbatch refuses the job: {_own_words(error)}") from None
        raise
    for submission, handle in zip(submissions, handles, strict=True):
        (submission.folder / "job").write_text(f"{request.cluster} {handle.job_id}\n")
    return [Job(submission, handle) for submission, handle in zip(submissions, handles, strict=True)]


def script(checked: list[Checked], request: Request, logs: Path) -> str:
    """The script that sbatch would be given, or the commands of a job on this machine."""
    submissions = [Submission(one.folder.absolute() / "submissions" / "NNNN", one) for one in checked]
    if request.cluster != "slurm":
        words = [sys.executable, str(submissions[0].code / "main.py"), "--fname", str(submissions[0].config)]
        return f"# {request.tasks_per_node} x\n{shlex.join(words)}\n"
    executor = _slurm(OnPaper, request, logs, submissions)
    if len(checked) > 1:
        executor.parameters["map_count"] = len(checked)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


class OnPaper(submitit.SlurmExecutor):
    """Writes scripts where there is no SLURM."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def _executor(request: Request, logs: Path, submissions: Sequence[Submission]) -> submitit.core.core.Executor:
    """The cluster is the one that was asked for: submitit would guess one from what is on PATH."""
    if request.cluster == "slurm":
        return _slurm(submitit.SlurmExecutor, request, logs, submissions)
    if request.cluster == "debug":
        return submitit.DebugExecutor(logs)
    executor = submitit.LocalExecutor(logs, TIMEOUTS, python=_python(request.setup, TASK_APART))
    executor.update_parameters(
        tasks_per_node=request.tasks_per_node,
        timeout_min=request.time,
        signal_delay_s=request.signal_delay,
        gpus_per_node=request.gpus_per_node or 0,
    )
    return executor


def _slurm(
    kind: type[submitit.SlurmExecutor], request: Request, logs: Path, submissions: Sequence[Submission]
) -> submitit.SlurmExecutor:
    executor = kind(logs, TIMEOUTS, python=_python([], TASK))
    processors = request.cpus_per_task or _processors(submissions)
    executor.update_parameters(
        job_name=request.name or _name(submissions),
        partition=request.partition,
        nodes=request.nodes,
        ntasks_per_node=request.tasks_per_node,
        time=request.time,
        mem=None if request.memory is None else f"{round(request.memory * 1024)}M",
        cpus_per_task=processors,
        gpus_per_node=request.gpus_per_node,
        account=request.account,
        qos=request.qos,
        constraint=request.constraint,
        exclude=request.exclude,
        nodelist=request.nodelist,
        comment=request.comment,
        wckey=None,
        array_parallelism=request.array_parallelism,
        signal_delay_s=request.signal_delay,
        setup=[LET_TASKS_SAVE, *request.setup, *_setup([submission.code for submission in submissions])],
        teardown=_teardown(request.retries),
        srun_args=["--kill-on-bad-exit=1", "--export=ALL", f"--cpus-per-task={processors}"],
        additional_parameters={
            "requeue": True,
            **({"reservation": request.reservation} if request.reservation else {}),
            **request.options,
        },
    )
    return executor


def _python(setup: Sequence[str], task: str) -> str:
    """The shell's words that start a task's Python, which finds the project by PYTHONPATH alone (-P)."""
    lines = [*setup, SHIELD, f"{BLOCK} sh -c : 2>/dev/null && exec {BLOCK} {task}", f"exec {task}"]
    return f"sh -c {shlex.quote('; '.join(lines))} {PYTHON}"


def _setup(codes: Sequence[Path]) -> list[str]:
    """Lines of the job's script, on its first node: where ranks meet, and which code tasks load, each job its own."""
    return [
        f"codes=({' '.join(shlex.quote(str(code)) for code in codes)})",
        'code="${codes[${SLURM_ARRAY_TASK_ID:-0}]}"',
        'export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"',
        SHIELD,
        f"meeting=$({PYTHON} -m src.cluster.master) || exit 1",
        LET_TASKS_SAVE,
        "export $meeting",
        "set +e",  # whatever --setup has set: what comes after srun must be reached
    ]


def _teardown(retries: int) -> list[str]:
    """Lines after srun: whoever has ended it, the job goes on, and a job that was good or bad stays so."""
    return [
        "ended=$?",
        SHIELD,
        f'{PYTHON} -m src.cluster.after "${{code%/code}}" {retries} $ended || [ $ended -ne 0 ] || ended=1',
        "exit $ended",
    ]


def _name(submissions: Sequence[Submission]) -> str:
    return submissions[0].checked.folder.name if len(submissions) == 1 else "medssl"


def _processors(submissions: Sequence[Submission]) -> int:
    """One for the rank, and one for each of its loader workers, in the job with the most."""
    configs = [submission.checked.config for submission in submissions]
    return 1 + max(config.data.workers if isinstance(config, ExperimentConfig) else 0 for config in configs)


@contextmanager
def _environment(request: Request, code: Path) -> Iterator[None]:
    """As it is, without what another job has left in it (a terminal may be one's), which this job would inherit.

    Processes of this machine also inherit to ignore what a terminal sends.
    """
    kept = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    inside = "SLURM_JOB_ID" in os.environ
    for name in kept:
        of_a_job = name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name not in CLUSTER
        if name in LAUNCH or name.startswith(("SUBMITIT_", "MEDSSL_JOB", "MEDSSL_RESTART")) or (inside and of_a_job):
            del os.environ[name]
    if request.cluster != "slurm":
        os.environ["PYTHONPATH"] = ":".join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
    for number in handlers if request.cluster == "local" else ():
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(kept)


def _temporary(logs: Path) -> set[Path]:
    """What submitit calls by a job's number once that is known."""
    names = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh|[0-9a-f]{32}\.pkl")
    return {path for path in logs.iterdir() if names.fullmatch(path.name)} if logs.is_dir() else set()


def _clean(logs: Path, left: set[Path], submissions: Sequence[Submission]) -> None:
    """Remove the files of jobs that were not queued; another command may be at work in the same folder."""
    owned = [[part.encode() for part in one.folder.parts[1:]] for one in submissions]
    for path in left:
        content = path.read_bytes()
        if any(all(part in content for part in parts) for parts in owned):
            path.unlink()
    if logs.is_dir() and not any(logs.iterdir()):
        logs.rmdir()


@contextmanager
def _uninterrupted(wanted: bool) -> Iterator[None]:
    """Ctrl-C waits: a job that sbatch has taken would stand in the queue with its code removed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT] if wanted else [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_words(error: Exception) -> str:
    """What sbatch said, of submitit's account of it."""
    said = [line.strip().removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
    found = [line for line in said if "failed:" in line or "invalid" in line.lower() or "unrecognized" in line]
    return "; ".join(dict.fromkeys(found or [line for line in said if line][-1:]))
