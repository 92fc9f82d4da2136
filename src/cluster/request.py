"""What a job asks the cluster for, as the flags of main_distributed.py say it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

TIME = re.compile(r"(?:(?P<days>\d+)-(?P<rest>\d+(?::\d+){0,2})|(?P<clock>\d+(?::\d+){0,2}))")
OURS = {
    "array": "--seeds, --sweep or --batch-launch",
    "chdir": "the folder that you call main_distributed.py from",
    "error": "--folder",
    "job-name": "--name",
    "mem": "--memory",
    "ntasks": "--nodes and --tasks-per-node",
    "ntasks-per-node": "--tasks-per-node",
    "open-mode": "none: logs are always appended to",
    "output": "--folder",
    "signal": "--signal-delay",
    "time": "--time",
}
"""Options of sbatch that --slurm does not take, and what to use."""


@dataclass(frozen=True)
class Request:
    """None leaves a resource to the cluster's own default."""

    cluster: str = "slurm"
    partition: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    time: int = 1440
    """Minutes."""
    memory: float | None = None
    """GB of each node."""
    cpus_per_task: int | None = None
    """One and one more for each loader worker, where it is None."""
    gpus_per_node: int | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    comment: str | None = None
    name: str | None = None
    setup: tuple[str, ...] = ()
    """Lines of shell before the tasks start."""
    slurm: tuple[str, ...] = ()
    """Other options of sbatch, key=value or key."""
    array_parallelism: int = 256
    signal_delay: int = 120
    """Seconds between the signal and the time limit."""
    retries: int = 3
    """Attempts in a row that hang or save nothing before the job is given up."""

    @property
    def processes(self) -> int:
        """Ranks of each job."""
        return self.nodes * self.tasks_per_node

    @property
    def options(self) -> dict[str, str | bool]:
        """`slurm` by key; an option without a value is True."""
        pairs = [word.partition("=") for word in self.slurm]
        return {key.lstrip("-").replace("_", "-"): value if equals else True for key, equals, value in pairs}

    def check(self) -> None:
        """Refuse what no cluster could do.

        Raises:
            ValueError: names the flag.
        """
        if self.cluster != "slurm" and self.nodes > 1:
            raise ValueError(f"--nodes {self.nodes}: --cluster {self.cluster} runs on this machine; use --nodes 1")
        if self.cluster == "debug" and self.tasks_per_node > 1:
            raise ValueError(
                f"--tasks-per-node {self.tasks_per_node}: --cluster debug is one process; use 1, or --cluster local"
            )
        if self.signal_delay >= 60 * self.time:
            raise ValueError(
                f"--signal-delay {self.signal_delay} seconds is not less than --time, {self.time} minutes: the job "
                f"would be told to stop before it begins; lower one or raise the other"
            )
        given = {field.name.replace("_", "-") for field in fields(self)} - {"slurm", "setup", "memory", "time", "name"}
        for key in self.options:
            if key in OURS or key in given:
                raise ValueError(f"--slurm {key}: that has a flag of its own, use {OURS.get(key, f'--{key}')}")
            if not re.fullmatch(r"[a-z][a-z-]*", key):
                raise ValueError(f"--slurm {key}: write an option of sbatch, KEY=VALUE or KEY")

    def ignored(self) -> list[str]:
        """Flags that were given and that only SLURM knows."""
        if self.cluster == "slurm":
            return []
        names = ["partition", "memory", "cpus_per_task", "account", "qos", "constraint", "reservation"]
        names += ["exclude", "nodelist", "comment", "slurm", "array_parallelism"]
        names += ["setup", "gpus_per_node", "time", "signal_delay"] if self.cluster == "debug" else []
        plain = Request()
        return [_flag(name) for name in names if getattr(self, name) != getattr(plain, name)]

    def words(self) -> list[str]:
        """The flags that ask for the same again."""
        plain, found = Request(), []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                found += [f"{_flag(field.name)}={word}" for word in value]  # a line may begin with a dash
            elif value != getattr(plain, field.name):
                found += [_flag(field.name), str(value)]
        return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def minutes(text: str) -> int:
    """A length of time as SLURM writes it (90, 1:30:00, 1-12:00:00), rounded up to the whole minutes that it counts in.

    Raises:
        ValueError: it is none, or nothing.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time: write minutes (90) or days-hours:minutes:seconds (1-12:00:00)")
    parts = [int(part) for part in (match["rest"] or match["clock"]).split(":")]
    if match["days"] is not None:
        hours, mins, seconds = (*parts, 0, 0)[:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, mins, seconds = parts
    else:
        hours, (mins, seconds) = 0, (*parts, 0)[:2]
    total = math.ceil((hours * 3600 + mins * 60 + seconds) / 60)
    if total < 1:
        raise ValueError(f"{text!r} is no time at all: write at least 1 minute")
    return total
