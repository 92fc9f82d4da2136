"""What is said when jobs are submitted: their numbers, where they write, how to watch and to end them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from src.cluster.request import Request
from src.cluster.states import partitions
from src.cluster.submit import Job


def notes(request: Request) -> Iterator[str]:
    """What may not be meant."""
    for flag in request.ignored():
        yield f"{flag} is for SLURM, and not used by --cluster {request.cluster}"
    asks_for_gpus = request.gpus_per_node or any("gpu" in word or word.startswith("gres") for word in request.slurm)
    if request.cluster == "slurm" and request.partition is not None and not asks_for_gpus:
        gpus = (partitions() or {}).get(request.partition, "")
        if "gpu" in gpus:
            yield (
                f"partition {request.partition} has GPUs ({gpus}) and none is asked for: the job trains on CPUs;"
                f" --gpus-per-node {request.tasks_per_node} gives one to each task"
            )


def whole_jobs(jobs: Sequence[Job]) -> list[str]:
    """Their numbers, an array's once."""
    return list(dict.fromkeys(re.sub(r"^(\d+)_\d+$", r"\1", job.number) for job in jobs))


def cancel(jobs: Sequence[Job], cluster: str) -> str:
    """The command that ends all of them."""
    return " ".join(["scancel" if cluster == "slurm" else "kill", *whole_jobs(jobs)])


def how_to_go_on(jobs: Sequence[Job], request: Request) -> str:
    """Lines for a terminal."""
    numbers = whole_jobs(jobs)
    shape = f"{request.nodes} x {request.tasks_per_node} processes"
    lines = [f"submitted {len(jobs)} job{'s' if len(jobs) > 1 else ''}, {shape}, {request.time} minutes at a time"]
    width = max(len(job.number) for job in jobs)
    lines += [f"  {job.number:{width}}  {job.folder}" for job in jobs]
    out = [str(job.log("out")) for job in jobs]
    lines.append(f"logs    {out[0]} and .err{', ...' if len(out) > 1 else ''}")
    if request.cluster == "slurm":
        lines.append(f"state   squeue -j {','.join(numbers)}")
    if request.cluster != "debug":
        lines.append(f"watch   tail -F {shlex.quote(out[0])}")
        lines.append(f"cancel  {cancel(jobs, request.cluster)}")
    lines.append(f"again   sh {shlex.quote(str(jobs[0].submission.again))}")
    return "\n".join(lines)
