"""A task of a SLURM step becomes a rank, by what srun tells it; free of torch.

`srun -N 2 --ntasks-per-node 4 python main.py ...` starts every rank by itself. Who starts ranks otherwise (torchrun,
`--devices`, a job of main_distributed.py) has told them already, and is not overruled.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import MutableMapping
from hashlib import sha256

from src.distributed.variables import JOB, RESTART

PORTS = range(20000, 32768)
"""Below those that Linux gives to outgoing connections (32768 to 60999), which may be taken at any moment."""

Environment = MutableMapping[str, str]


def adopt_slurm(environment: Environment, launches: bool = False) -> None:
    """Fill in what a rank is told, where this process is one of several tasks of a step; what is set stays as it is.

    `launches`: this process starts its own ranks, whatever SLURM has started. Alone in its step it will do so, too.

    Raises:
        ValueError: the step has another number of tasks than WORLD_SIZE says, or no address for its first host.
    """
    if "SLURM_JOB_ID" not in environment:
        return
    environment.setdefault(JOB, _job(environment))
    environment.setdefault(RESTART, environment.get("SLURM_RESTART_COUNT", "0"))
    if launches:
        return
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        _become_rank(environment)
    if "RANK" in environment:
        environment.setdefault("OMP_NUM_THREADS", str(_threads(environment)))


def hosts(names: str) -> list[str]:
    """The hosts of a list as SLURM writes it: a[1-3,07],b is a1 a2 a3 a07 b."""
    found = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", names):
        parts = [[part] if number % 2 == 0 else _numbers(part) for number, part in enumerate(re.split(r"[\[\]]", word))]
        found += ["".join(name) for name in itertools.product(*parts)]
    return found


def tasks_of_nodes(counts: str) -> list[int]:
    """How many tasks each node has, of counts as SLURM writes them: 2(x3),1 is 2 2 2 1."""
    found = []
    for part in counts.split(","):
        count, _, times = part.partition("(x")
        found += [int(count)] * int(times.rstrip(")") or 1)
    return found


def port(job: str, step: str, restart: int) -> int:
    """The same on all nodes, and another one after a restart: nobody meets the store of the attempt before."""
    start = int.from_bytes(sha256(f"{job}.{step}".encode()).digest()[:8], "big")
    return PORTS[(start + restart) % len(PORTS)]


def _job(environment: Environment) -> str:
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def _become_rank(environment: Environment) -> None:
    tasks = environment["SLURM_STEP_NUM_TASKS"]
    if environment.setdefault("WORLD_SIZE", tasks) != tasks:
        raise ValueError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but srun has started {tasks} tasks: leave WORLD_SIZE out, or "
            "start as many"
        )
    nodes = tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
    own = {
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(nodes[int(environment["SLURM_NODEID"])]),
    }
    for name, value in own.items():
        environment.setdefault(name, value)
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = "127.0.0.1" if len(nodes) == 1 else _address(environment)
    if "MASTER_PORT" not in environment:
        step = environment.get("SLURM_STEP_ID", "0")
        environment["MASTER_PORT"] = str(port(environment["SLURM_JOB_ID"], step, int(environment[RESTART])))
    environment["RANK"] = environment["SLURM_PROCID"]  # last: with it the process is a rank


def _address(environment: Environment) -> str:
    """The step's first host, where rank 0 is; else, if rank 0 agrees that it is there, where srun was called."""
    first = hosts(environment["SLURM_STEP_NODELIST"])[0]
    if resolves(first):
        return first
    launch = environment.get("SLURM_LAUNCH_NODE_IPADDR", "")
    if launch and (environment["SLURM_PROCID"] != "0" or _is_here(launch)):
        return launch
    raise ValueError(
        f"the name of this job's first host, {first}, leads to no address on {socket.gethostname()}: set MASTER_ADDR to"
        " the address of that host"
    )


def resolves(host: str) -> bool:
    """Whether a name leads to an address here."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _is_here(address: str) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _numbers(ranges: str) -> list[str]:
    """1-3,07 is 1 2 3 07; a range keeps the zeros of its first number."""
    found = []
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        found += [f"{number:0{len(low)}d}" for number in range(int(low), int(high or low) + 1)]
    return found


def _threads(environment: Environment) -> int:
    """This rank's share of the cores: all ranks of a node may see all of the step's."""
    cores = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_PER_TASK" in environment:
        return min(cores, int(environment["SLURM_CPUS_PER_TASK"]))
    share = int(environment.get("SLURM_CPUS_ON_NODE", cores)) // int(environment.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(cores, share))
