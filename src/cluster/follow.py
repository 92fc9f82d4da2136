"""Waiting for jobs: what state each is in, how far its run is, and how it ended."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.cluster.states import REQUEUED_FROM, State, ask_states
from src.cluster.submit import Job
from src.cluster.tell import cancel
from src.config.experiment import ExperimentConfig
from src.optimization.schedules import count_steps
from src.run.folder import steps_from_the_end

FIRST_SECONDS, LAST_SECONDS, SLOWER = 1.0, 15.0, 0.02
"""Between questions: slurmctld serves everybody. The pause grows by SLOWER of the time that was waited already."""
SETTLE_SECONDS = 10.0
"""A job in one of REQUEUED_FROM may be on its way back into the queue; it has ended if it is still there then."""
TELL_SECONDS = 60.0
"""Between lines on progress where there is no terminal for a bar."""
TAIL_BYTES = 64 * 2**10


@dataclass
class Followed:
    """What is known of a job."""

    job: Job
    total: int | None
    """Steps of its run."""
    state: State = State("")
    since: float = field(default_factory=time.monotonic)
    """When it got into this state."""
    told: float = field(default_factory=time.monotonic)
    bar: Any = None

    @property
    def ended(self) -> bool:
        settled = time.monotonic() - self.since > SETTLE_SECONDS
        return self.state.ended and (self.state.name not in REQUEUED_FROM or settled)

    @property
    def good(self) -> bool:
        return self.state.name == "COMPLETED"


def follow(jobs: Sequence[Job], cluster: str) -> int:
    """Tell each change until all jobs have ended; 0 if all completed, 1 if not, 130 if Ctrl-C ended the waiting."""
    followed = [Followed(job, _total_steps(job)) for job in jobs]
    ask = _ask_cluster if cluster == "slurm" else _ask_here
    begun = time.monotonic()
    try:
        while True:
            _look(followed, ask)
            if all(one.ended for one in followed):
                break
            waited = time.monotonic() - begun
            time.sleep(min(LAST_SECONDS, FIRST_SECONDS + SLOWER * waited))
    except KeyboardInterrupt:
        _say(f"waiting has stopped, the jobs go on: `{cancel(jobs, cluster)}` ends them")
        return 130
    finally:
        for one in followed:
            if one.bar is not None:
                one.bar.close()
    for one in followed:
        _say(_last_line(one))
    return 0 if all(one.good for one in followed) else 1


def run_here(jobs: Sequence[Job]) -> int:
    """Run jobs one after the other in this process, as `--cluster debug` has it; 0 if all went well."""
    for job in jobs:
        os.environ.update(job.handle.environ)  # type: ignore[attr-defined]
        if (error := job.handle.exception()) is not None:  # without submitit's debugger at its prompt
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def _look(followed: list[Followed], ask: Callable[[Sequence[Job]], dict[str, State]]) -> None:
    """Ask once, and tell what is new."""
    states = ask([one.job for one in followed if not one.ended])
    for place, one in enumerate(followed):
        state = states.get(one.job.number)
        if state is not None and state != one.state:
            one.state, one.since = state, time.monotonic()
            _say(f"{time.strftime('%H:%M:%S')} job {one.job.number} ({one.job.folder}): {state}")
            if state.never:
                _say(f"         it will not start by itself: {state.never}")
        if one.state.name == "RUNNING" or one.bar is not None:
            _show_progress(one, place)


def _ask_cluster(jobs: Sequence[Job]) -> dict[str, State]:
    return ask_states([job.number for job in jobs])


def _ask_here(jobs: Sequence[Job]) -> dict[str, State]:
    """The states of processes on this machine, in SLURM's words."""
    states = {}
    for job in jobs:
        if job.handle.state == "RUNNING":
            states[job.number] = State("RUNNING")
        else:
            states[job.number] = State("FAILED" if job.handle.exception() else "COMPLETED")
    return states


def _show_progress(one: Followed, place: int) -> None:
    """A bar on a terminal, else a line from time to time."""
    record = last_record(one.job.folder / "metrics.jsonl")
    if record is None:
        return
    step, loss = record["step"] + 1, record.get("loss")
    told = "no finite loss" if loss is None else f"loss {loss:.4f}"
    if sys.stderr.isatty():
        if one.bar is None:
            one.bar = tqdm(total=one.total, unit="step", position=place, desc=one.job.number, dynamic_ncols=True)
        one.bar.set_postfix_str(told, refresh=False)
        one.bar.update(step - one.bar.n)
    elif time.monotonic() - one.told >= TELL_SECONDS:
        one.told = time.monotonic()
        of_total = "" if one.total is None else f"/{one.total}"
        _say(f"{time.strftime('%H:%M:%S')} job {one.job.number} ({one.job.folder}): step {step}{of_total}, {told}")


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole line of metrics.jsonl; None before there is one."""
    try:
        end, _ = next(steps_from_the_end(path))
        with path.open("rb") as file:
            file.seek(max(0, end - TAIL_BYTES))
            record: dict[str, Any] = json.loads(file.read(min(end, TAIL_BYTES)).splitlines()[-1])
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return record


def _last_line(one: Followed) -> str:
    line = f"job {one.job.number}: {one.state}, run folder {one.job.folder}"
    if one.good:
        return line
    return f"{line}\n  {last_error(one.job.log('err')) or 'it has left no error'}; its log: {one.job.log('err')}"


def last_error(log: Path) -> str:
    """The last sentence after `error: ` in a job's log, one of SLURM's if there is no other; empty without any."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    last_first = [line.strip() for line in reversed(lines) if "error: " in line]
    return next((line for line in last_first if line.startswith("error: ")), next(iter(last_first), ""))


def _total_steps(job: Job) -> int | None:
    config, samples = job.submission.checked.config, job.submission.checked.samples
    if not isinstance(config, ExperimentConfig):
        return None
    if config.data.synthetic is not None:
        samples = 0  # of which a share is held out
    if config.optimization.steps is None and not samples:
        return None
    return count_steps(config.optimization, config.data.batch_size, samples)


def _say(line: str) -> None:
    """A line that does not tear the bars."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
