"""What SLURM says of jobs: asked of squeue, then of sacct where there is accounting, then of scontrol.

squeue knows a job that has ended for MinJobAge (five minutes by default), sacct for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from src.cluster.ask import ask, read_jobs

COLUMNS = {"JobArrayID": 40, "State": 20, "Reason": 80, "RestartCnt": 12, "NodeList": 400}
"""Of squeue, with their widths: fields of fixed width are what all versions of SLURM write alike."""
ASK_SECONDS = 30.0
REQUEUED_FROM = frozenset({"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"})
"""States that a job may pass through on its way back into the queue."""
ENDED = REQUEUED_FROM | {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED"}
FORGOTTEN = "FORGOTTEN"
"""Ours, of a job that SLURM knows nothing of any more."""
NEVER = {
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionTimeLimit": "--time is longer than the partition allows",
    "PartitionNodeLimit": "--nodes is more than the partition has, or allows",
    "BadConstraints": "no node fits what is asked for",
    "DependencyNeverSatisfied": "the job that it waits for has not ended as it should",
    "InvalidAccount": "--account is not valid",
    "InvalidQOS": "--qos is not valid",
    "AccountNotAllowed": "the partition does not allow this --account",
    "QOSNotAllowed": "the partition does not allow this --qos",
    "JobHeldUser": "it is held: `scontrol release` it",
    "JobHeldAdmin": "an administrator holds it",
    "JobLaunchFailure": "it could not be started",
    "launch failed requeued held": "it could not be started and is held: look at the node, then `scontrol release` it",
    "ReqNodeNotAvail": "a node that it asks for is down or reserved",
    "ReservationDeleted": "its --reservation is gone",
    "MaxRequeue": "it was requeued too often",
}
"""Reasons for which a job stays PENDING until somebody does something, by the beginning of SLURM's word."""


@dataclass(frozen=True)
class State:
    """Of one job, or one task of an array."""

    name: str
    """SLURM's: PENDING, RUNNING, COMPLETED, ..."""
    reason: str = ""
    restarts: int = 0
    """How often it was put back into the queue."""
    nodes: str = ""

    @property
    def ended(self) -> bool:
        return self.name in ENDED or self.name == FORGOTTEN

    @property
    def never(self) -> str:
        """Why a pending job will not start by itself; empty where it may."""
        if self.name != "PENDING":
            return ""
        limit = "a limit of the account or QOS is too low for it" if "MaxWall" in self.reason else ""
        return next((why for word, why in NEVER.items() if self.reason.startswith(word)), limit)

    def __str__(self) -> str:
        text = self.name
        if self.name == "PENDING" and self.reason not in ("", "None"):
            text += f", {self.reason}"
        if self.nodes and self.name in ("RUNNING", "COMPLETING"):
            text += f" on {self.nodes}"
        elif self.name not in ("PENDING", "RUNNING", "COMPLETED") and self.reason not in ("", "None"):
            text += f", {self.reason}"
        if self.restarts:
            text += f", requeued {self.restarts} time{'s' if self.restarts > 1 else ''}"
        return text


def ask_states(jobs: Sequence[str]) -> dict[str, State]:
    """The state of each job (12, or 12_3 of an array) as SLURM knows it now.

    None of them where SLURM does not answer, which passes; FORGOTTEN are those of which it does answer, and not know.
    """
    main = ",".join(dict.fromkeys(job.split("_")[0] for job in jobs))
    layout = ",".join(f"{column}:{width}" for column, width in COLUMNS.items())
    queue = _answer("squeue", "--states=all", "--noheader", "--array", f"--Format={layout}", f"--jobs={main}")
    if queue is None:
        return {}
    found = dict(read_squeue(queue))
    if set(jobs) - found.keys():
        accounting = _answer("sacct", "-n", "-P", "-X", "-j", main, "-o", "JobID,State,NodeList")
        found = dict(read_sacct(accounting or "")) | found
    for job in set(jobs) - found.keys():
        told = _answer("scontrol", "show", "job", "-o", job)
        if told is None:
            return {job: state for job, state in found.items() if job in jobs}
        found |= dict(read_scontrol(told))
    return {job: found.get(job, State(FORGOTTEN)) for job in jobs}


def partitions() -> dict[str, str] | None:
    """The generic resources (GPUs) of each partition, as sinfo tells them; None where it does not answer."""
    told = _answer("sinfo", "--noheader", "--format=%R|%G")
    if told is None:
        return None
    found: dict[str, set[str]] = {}
    for line in told.splitlines():
        name, _, resources = line.partition("|")
        found.setdefault(name.strip(), set()).add(resources.strip())
    return {name: ", ".join(sorted(kinds - {"(null)", ""})) for name, kinds in found.items()}


def read_squeue(text: str) -> Iterator[tuple[str, State]]:
    """Jobs and states from squeue's lines of COLUMNS."""
    for line in text.splitlines():
        cells, start = [], 0
        for width in COLUMNS.values():
            cells.append(line[start : start + width].strip())
            start += width
        job, name, reason, restarts, nodes = cells
        if job:
            yield job, State(name, reason, int(restarts) if restarts.isdigit() else 0, nodes)


def read_sacct(text: str) -> Iterator[tuple[str, State]]:
    """Jobs and states from `sacct -P -o JobID,State,NodeList`; waiting tasks of an array share a line, 12_[3-5%2]."""
    for line in text.splitlines():
        job, _, rest = line.partition("|")
        name, _, nodes = rest.partition("|")
        if name and not job.startswith("JobID") and "." not in job:
            state = State(name.split(" ")[0], nodes="" if nodes == "None assigned" else nodes)
            for one in _each(job):
                yield one, state


def read_scontrol(text: str) -> Iterator[tuple[str, State]]:
    """Jobs and states from `scontrol show job -o`."""
    for fields in read_jobs(text):
        array, task = fields.get("ArrayJobId"), fields.get("ArrayTaskId")
        jobs = _each(f"{array}_[{task}]") if array and task else [fields["JobId"]]
        reason, nodes = (fields.get(key, "") for key in ("Reason", "NodeList"))
        state = State(fields["JobState"], reason, int(fields.get("Restarts", 0)), nodes.replace("(null)", ""))
        for job in jobs:
            yield job, state


def _each(job: str) -> list[str]:
    """12_[0-2,5%2] is 12_0 12_1 12_2 12_5."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if match is None:
        return [job]
    found = []
    for part in match[2].split(","):
        low, _, high = part.partition("-")
        found += [f"{match[1]}_{number}" for number in range(int(low), int(high or low) + 1)]
    return found


def _answer(*words: str) -> str | None:
    """What a command of SLURM says; empty where it knows no such job, None where it does not answer."""
    try:
        return ask(*words, seconds=ASK_SECONDS)
    except OSError as error:
        return "" if "Invalid job id" in str(error) else None
