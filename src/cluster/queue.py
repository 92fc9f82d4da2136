"""What the cluster itself says against a submission: no such partition, or a run that is in its queue already."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from src.cluster.check import Checked
from src.cluster.request import Request
from src.cluster.states import FORGOTTEN, ask_states, partitions
from src.cluster.submission import SUBMISSIONS


def faults_of_cluster(checked: list[Checked], request: Request, dry_run: bool) -> list[str]:
    """A sentence for each; a dry run needs no cluster."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        told = f"{' and '.join(missing)} not on PATH: call it on a login node of the cluster, or use --cluster local"
        return [] if dry_run else [f"--cluster slurm: {told}"]
    known = partitions() if request.partition is not None else None
    faults = []
    for partition in (request.partition or "").split(","):
        if known and partition and partition not in known:
            close = difflib.get_close_matches(partition, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            faults.append(f"--partition {partition}: the cluster has {', '.join(known)}{hint}")
    return faults + already_queued(checked)


def already_queued(checked: list[Checked]) -> list[str]:
    """A sentence for each run folder whose newest submission waits or runs: its owner would refuse the second one."""
    records = [(one, job) for one in checked if (job := _newest_job(one.folder)) is not None]
    if not records:
        return []
    states = ask_states([job for _, job in records])
    return [
        f"{one.wanted.place}: job {job} is {state.name} with the same run folder, {one.folder}; wait for it, or"
        f" cancel it with `scancel {job}`"
        for one, job in records
        if (state := states.get(job)) is not None and not state.ended and state.name != FORGOTTEN
    ]


def _newest_job(folder: Path) -> str | None:
    """The cluster's number of a run folder's newest submission."""
    written = sorted((folder / SUBMISSIONS).glob("[0-9]*/job"), key=lambda path: int(path.parent.name))
    if not written:
        return None
    cluster, _, number = written[-1].read_text().strip().partition(" ")
    return number if cluster == "slurm" else None
