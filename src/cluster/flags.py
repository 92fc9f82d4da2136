"""The flags of main_distributed.py."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from src.cluster.request import Request, minutes

PLAIN = Request()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train experiments on a SLURM cluster; see docs/slurm.md.")
    _what(parser.add_argument_group("what to run"))
    _where(parser.add_argument_group("where"))
    _how(parser.add_argument_group("how"))
    words = parser.parse_args()
    if (words.fname is None) == (words.batch_launch is None):
        parser.error("give one of --fname and --batch-launch")
    return words


def request_of(words: argparse.Namespace) -> Request:
    """What the flags ask the cluster for."""
    given: Any = {field.name: getattr(words, field.name) for field in fields(Request)}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Request(**given)


def _what(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    pairs: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--fname", type=Path, metavar="CONFIG", help="YAML file of the experiment")
    listed = "YAML list of configs, or of {fname: CONFIG, set: [KEY=VALUE]}"
    add("--batch-launch", type=Path, metavar="FILE", help=listed)
    add("--set", **pairs, metavar="KEY=VALUE", help="override keys of every config")
    add("--seeds", nargs="+", type=natural, default=[], metavar="N", help="a run for each, in <logging.folder>/seed-N")
    add("--sweep", **pairs, metavar="KEY=V1,V2", help="a run for each value, and for each combination of several keys")


def _where(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    lines: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    kinds = "local: processes of this machine, six starts at most; debug: this process; default: %(default)s"
    add("--cluster", choices=("slurm", "local", "debug"), default=PLAIN.cluster, help=kinds)
    add("--folder", type=Path, default=Path("logs"), help="logs of the jobs, seen by all nodes; default: %(default)s")
    add("--partition", help="default: the cluster's")
    add("--nodes", type=count, default=PLAIN.nodes, help="default: %(default)s")
    add("--tasks-per-node", type=count, default=PLAIN.tasks_per_node, help="processes; default: %(default)s")
    add("--gpus-per-node", type=natural, help="one for each task; default: none, and training on CPUs")
    add("--cpus-per-task", type=count, help="default: 1, and 1 for each of data.workers")
    add("--memory", type=gigabytes, metavar="GB", help="of each node; default: the cluster's")
    longer = "also 1-12:00:00; a run that takes longer is queued again; default: %(default)s"
    add("--time", type=duration, default=PLAIN.time, metavar="MINUTES", help=longer)
    for name in ("account", "qos", "constraint", "reservation", "exclude", "nodelist", "comment"):
        add(f"--{name}", help="as sbatch has it")
    add("--slurm", **lines, metavar="KEY=VALUE", help="other options of sbatch")
    add("--setup", **lines, metavar="LINE", help="shell before the tasks start")
    add("--name", help="of the jobs; default: that of the run folder")
    at_once = "jobs of an array that run at the same time; default: %(default)s"
    add("--array-parallelism", type=count, default=PLAIN.array_parallelism, metavar="N", help=at_once)


def _how(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    delay = "a run is told to save so long before its time is over; default: %(default)s"
    add("--signal-delay", type=count, default=PLAIN.signal_delay, metavar="SECONDS", help=delay)
    vain = "times that a job may hang or end without a new checkpoint; default: %(default)s"
    add("--retries", type=natural, default=PLAIN.retries, metavar="N", help=vain)
    add("--wait", action="store_true", help="until the jobs have ended; Ctrl-C ends the waiting, not the jobs")
    add("--dry-run", action="store_true", help="check everything, print the script, submit and write nothing")


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not (number := natural(text)):
        raise argparse.ArgumentTypeError("0 is too few")
    return number


def gigabytes(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text.removesuffix("GB").removesuffix("G"))
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GB")
    return number


def duration(text: str) -> int:
    """Minutes."""
    try:
        return minutes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
