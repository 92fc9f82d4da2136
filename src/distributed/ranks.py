"""Who this process is among the ranks of a run, and the process group they share."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from src.distributed.variables import DEVICE, STORE_SOCKET


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


def join() -> Ranks:
    """Read rank, world size and device from the environment and join the process group (none for one process)."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    fallback = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    device = torch.device(os.environ.get(DEVICE, fallback))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group(_backend(device), store=_store(rank, world_size), rank=rank, world_size=world_size)
    return Ranks(rank, world_size, device, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))


def _store(rank: int, world_size: int) -> dist.Store:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    socket = os.environ.get(STORE_SOCKET)
    return dist.TCPStore(
        host,
        port,
        world_size,
        is_master=rank == 0,
        timeout=datetime.timedelta(minutes=5),
        master_listen_fd=int(socket) if socket and rank == 0 else None,
    )


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
