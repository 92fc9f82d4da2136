"""Who this process is among the ranks of a run, and the process group they share."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from src.distributed.rendezvous import choose_interface, meet, place_of
from src.distributed.variables import DEVICE


@dataclass(frozen=True)
class Ranks:
    """This process: its rank, how many there are, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device
    neighbours: int = 1
    """Ranks on this machine, itself included."""

    @property
    def first(self) -> bool:
        """Rank 0 writes what there is only one of."""
        return self.rank == 0


def join(timeout: float, met: Callable[[], None] = lambda: None) -> Ranks:
    """Read rank, world size and device from the environment and join the process group (none for one process).

    `timeout` (engine.timeout): collectives give up after twice as many seconds, so that the watchdog speaks first.
    `met` is called when all ranks have met, before they make their group.

    Raises:
        ValueError: there is no device for this rank, or the ranks do not come together.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    device = _device(int(os.environ.get("LOCAL_RANK", rank)), neighbours)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        patience = datetime.timedelta(seconds=2 * timeout)
        _let_groups_wait(patience)
        place = place_of(device)
        store = meet(rank, world_size, place)
        met()
        if neighbours < world_size:
            choose_interface(place, store, world_size)
        dist.init_process_group(_backend(device), store=store, rank=rank, world_size=world_size, timeout=patience)
    else:
        met()
    return Ranks(rank, world_size, device, neighbours)


def device_index(visible: int, local_rank: int, neighbours: int) -> int:
    """Which of the visible GPUs is this rank's, of so many ranks on this machine.

    Clusters show a task its own GPU alone, or all those of its node.

    Raises:
        ValueError: there are several, and not one for each rank.
    """
    if visible == 1:
        return 0
    if visible < neighbours:
        raise ValueError(
            f"{neighbours} ranks on {socket.gethostname()} see {visible} GPUs each: ask for one for each rank "
            f"(--gpus-per-node {neighbours}), and let it see its own or all of them (--gpu-bind)"
        )
    return local_rank


def _device(local_rank: int, neighbours: int) -> torch.device:
    if DEVICE in os.environ:
        return torch.device(os.environ[DEVICE])
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", device_index(torch.cuda.device_count(), local_rank, neighbours))


def _let_groups_wait(patience: datetime.timedelta) -> None:
    """Also those that engines make by themselves, which would give up after 10 (NCCL) and 30 minutes."""
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        assert hasattr(distributed_c10d, name), "torch keeps the timeout of new groups elsewhere"
        setattr(distributed_c10d, name, patience)


def alone(device: torch.device) -> None:
    """A process group of this process only, for engines that can't do without one."""
    if not dist.is_initialized():
        dist.init_process_group(_backend(device), store=dist.HashStore(), rank=0, world_size=1)


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def leave() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all ranks are here, on the gloo side."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum over ranks, on the tensor's own device; without gradient."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def everywhere(so: bool) -> bool:
    """Whether it is so on every rank; all must ask, on the gloo side."""
    return bool(sum_over_ranks(torch.tensor([0.0 if so else 1.0])) == 0)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank."""
    return gather_objects(value if not dist.is_initialized() or dist.get_rank() == 0 else None)[0]
