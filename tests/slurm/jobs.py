"""Runs of the small ECG config as jobs of a cluster, and what must hold of them when they have been disturbed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.commands import ROOT, audit, lines, logged, metrics, same_tensors, wait_until
from tests.slurm.cluster import Cluster

STEPS, EVERY = 120, 10
CONFIG = "configs/jepa/ecg_debug.yaml"
SETTINGS = [
    "optimization.epochs=null",
    f"optimization.steps={STEPS}",
    f"checkpoint.every={EVERY}",
    "logging.every=1",
]
START_SECONDS, END_SECONDS = 120, 240


def words(folder: Path, shards: Path, *settings: str) -> list[str]:
    """A run of the small config, for main.py and main_distributed.py."""
    return ["--fname", CONFIG, "--set", f"logging.folder={folder}", f"data.root={shards}", *SETTINGS, *settings]


def submit(cluster: Cluster, run: list[str], logs: Path, *flags: str, nodes: int = 2, tasks: int = 1) -> str:
    """Submit a run as one job of so many nodes and tasks; returns its number."""
    (job,) = submit_all(cluster, run, logs, "--nodes", str(nodes), "--tasks-per-node", str(tasks), *flags)
    return job


def submit_all(cluster: Cluster, run: list[str], logs: Path, *flags: str) -> list[str]:
    """Submit with main_distributed.py; returns the numbers of what it says it has submitted."""
    out = cluster.run(sys.executable, "main_distributed.py", *run, "--folder", str(logs), *flags, timeout=60)
    jobs = re.findall(r"^  (\d+(?:_\d+)?) +\S", out, flags=re.MULTILINE)
    assert jobs, out
    return jobs


FAULTY = """\
import runpy
import sys

sys.argv[1:1] = ["--fault", "{fault}"]
runpy.run_path("{root}/tests/distributed/faulty_main.py", run_name="__main__")
"""


def submit_faulty(cluster: Cluster, fault: str, run: list[str], folder: Path, *flags: str) -> str:
    """Submit a run of two nodes, into `folder`/run, whose code as it was submitted has a seeded fault."""
    job = submit(cluster, run, folder / "logs", *flags, "--slurm", "hold")
    (code,) = folder.glob("run/submissions/*/code/main.py")
    code.write_text(FAULTY.format(fault=fault, root=ROOT))
    cluster.run("scontrol", "release", job)
    return job


def wait_for_steps(cluster: Cluster, job: str, folder: Path, count: int, seconds: float = START_SECONDS) -> None:
    """Poll until a run has logged so many steps; its job must not have ended before."""
    cluster.wait_for(job, "RUNNING", seconds)
    wait_until(lambda: logged(folder) >= count, seconds, f"{count} steps of job {job}")


def starts(folder: Path) -> list[int]:
    """The step that each attempt started from."""
    return [json.loads(path.read_text())["start"] for path in sorted((folder / "attempts").iterdir())]


def health(folder: Path) -> list[dict[str, Any]]:
    """The records of health.jsonl without their times."""
    return [
        {key: value for key, value in record.items() if key != "seconds"} for record in lines(folder / "health.jsonl")
    ]


def same_run(folder: Path, reference: Path) -> None:
    """Nothing repeated, nothing skipped, the same bits at the end."""
    assert metrics(folder) == metrics(reference)
    assert audit(folder) == audit(reference)
    assert same_tensors(folder, reference)
    assert health(folder) == health(reference)


def stops(folder: Path) -> list[int]:
    """The steps after which a run says it was stopped and has saved."""
    return [int(step) for step in re.findall(r"stopped after (\d+) steps", (folder / "training.log").read_text())]
