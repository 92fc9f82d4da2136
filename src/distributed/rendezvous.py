"""How the ranks of a run find each other: at a store of rank 0, and never at one that an earlier attempt has left."""

from __future__ import annotations

import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist

from src.distributed.network import interface_of, leads_elsewhere, own_address
from src.distributed.variables import JOB, RESTART, STORE_SOCKET

PATIENCE_SECONDS = 300.0
"""So long may the first rank wait for the last: a cluster starts tasks within seconds, and imports may take minutes."""
GRACE_SECONDS = 5.0
"""So much longer the others wait: it is rank 0 that knows who is missing."""
POLL_SECONDS = 0.05
GLOO = "GLOO_SOCKET_IFNAME"
PREFIX = "medssl"
ATTEMPT, ARRIVED, VERDICT = "attempt", "arrived/", "verdict"


class NotMet(ValueError):
    """The ranks have not come together: a node that is slow or gone, a port that was taken meanwhile."""

    again = True
    """Another start may go better."""


@dataclass(frozen=True)
class Place:
    """Where a rank computes."""

    host: str
    gpu: str
    """The GPU's own number; empty on a CPU."""
    address: str = ""
    """From which this machine reaches rank 0; empty where both are the same one."""


def place_of(device: torch.device) -> Place:
    """Where this process computes."""
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return Place(socket.gethostname(), gpu, own_address(os.environ.get("MASTER_ADDR", "")))


def choose_interface(place: Place, store: dist.Store, world_size: int) -> None:
    """Have gloo take the interface that leads to the other nodes, where this host's own name would not lead here.

    What is in GLOO_SOCKET_IFNAME stays. Rank 0's host finds its interface by the way to one of the others.
    """
    if GLOO in os.environ or leads_elsewhere(socket.gethostname()):
        return
    address = place.address
    if not address:
        ours = dist.PrefixStore(PREFIX, store)
        others = (json.loads(ours.get(f"{ARRIVED}{rank}"))["address"] for rank in range(world_size))
        address = own_address(next(filter(None, others), ""))
    if address and (name := interface_of(address)):
        os.environ[GLOO] = name


def meet(rank: int, world_size: int, place: Place, patience: float = PATIENCE_SECONDS) -> dist.Store:
    """The store of this attempt, when all of its ranks have come to it.

    Raises:
        NotMet: rank 0 can't be reached or can't listen, the store is another attempt's, or ranks did not come.
        ValueError: where they compute does not go together; one sentence, as of NotMet, on all ranks that can know it.
    """
    answer: Future[dist.Store] = Future()

    def come() -> None:
        try:
            answer.set_result(_meet(rank, world_size, place, patience))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=come, name="rendezvous", daemon=True).start()  # torch waits for ever for a stopped process
    try:
        return answer.result(patience + 2 * GRACE_SECONDS)
    except TimeoutError:
        raise NotMet(
            f"what listens at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} does not answer rank {rank}: end "
            "that process, or set MASTER_PORT to another port, the same for all ranks"
        ) from None


def clash(places: Sequence[Place]) -> str:
    """Why ranks at these places can't compute together, as a sentence; empty if they can."""
    without = [rank for rank, place in enumerate(places) if not place.gpu]
    if 0 < len(without) < len(places):
        return (
            f"{listed(without)} found no GPU, and the others did: ask for one for each task (--gpus-per-node as many "
            "as --ntasks-per-node)"
        )
    holders: dict[tuple[str, str], list[int]] = {}
    for rank, place in enumerate(places):
        holders.setdefault((place.host, place.gpu), []).append(rank)
    for (host, gpu), ranks in holders.items():
        if gpu and len(ranks) > 1:
            return (
                f"{listed(ranks)} on {host} have the same GPU: ask for as many as there are tasks on a node "
                "(--gpus-per-node), and let each task see its own or all of them (--gpu-bind)"
            )
    return ""


def listed(ranks: Sequence[int], most: int = 8) -> str:
    """Ranks by number: `rank 3`, `ranks 0, 1, 5`, the first few of many."""
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks[:most]))}{more}"


def _meet(rank: int, world_size: int, place: Place, patience: float) -> dist.Store:
    store, address = _open(rank, world_size, patience)
    own = _attempt(world_size)
    ours = dist.PrefixStore(PREFIX, store)
    if rank == 0:
        ours.set(ATTEMPT, own)
    else:
        _refuse_stale(ours, own, rank, address)
    ours.set(f"{ARRIVED}{rank}", json.dumps(asdict(place)))
    if rank == 0:
        ours.set(VERDICT, json.dumps(_verdict(ours, world_size, address, patience)))
    ours.set_timeout(datetime.timedelta(seconds=patience + GRACE_SECONDS))
    try:
        late, wrong = json.loads(ours.get(VERDICT))
    except RuntimeError:
        raise NotMet(f"rank 0 at {address} was gone before all ranks had come: see why it ended") from None
    if late:
        raise NotMet(late)
    if wrong:
        raise ValueError(wrong)
    return store


def _attempt(world_size: int) -> str:
    job = os.environ.get(JOB) or os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"job {job}, restart {os.environ.get(RESTART, '0')}, {world_size} ranks"


def _open(rank: int, world_size: int, patience: float) -> tuple[dist.Store, str]:
    """The store, which rank 0 holds; under torchrun its agent does, and keeps it from one attempt to the next."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError):
        raise ValueError(
            "RANK and WORLD_SIZE are set, which make this process one of a running job, but MASTER_ADDR and a number "
            "in MASTER_PORT are not: set them to where rank 0 is"
        ) from None
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    listener = os.environ.get(STORE_SOCKET)
    holds = rank == 0 and not agent
    try:
        store: dist.Store = dist.TCPStore(
            host,
            port,
            world_size,
            is_master=holds,
            timeout=datetime.timedelta(seconds=patience),
            wait_for_workers=False,
            master_listen_fd=int(listener) if listener and holds else None,
        )
    except RuntimeError as error:
        raise NotMet(_no_store(rank, holds, f"{host}:{port}", patience, error)) from None
    if agent:
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store, f"{host}:{port}"


def _no_store(rank: int, holds: bool, address: str, patience: float, error: RuntimeError) -> str:
    if holds and "EADDRINUSE" in str(error):
        return (
            f"rank 0 can't listen at {address}, where another process does (of an earlier attempt, or another job): "
            "set MASTER_PORT to another port, the same for all ranks"
        )
    if holds:
        return f"rank 0 can't listen at {address} ({str(error).splitlines()[0]}): set MASTER_ADDR and MASTER_PORT"
    return (
        f"rank {rank} on {socket.gethostname()} can't reach rank 0 at {address} within {patience:g} s: see whether rank"
        " 0 has started, and whether MASTER_ADDR leads to its host from here"
    )


def _refuse_stale(store: dist.Store, own: str, rank: int, address: str) -> None:
    """Only rank 0 of this very attempt may be joined; nothing is written where another one's is."""
    try:
        found = store.get(ATTEMPT).decode()
    except RuntimeError:
        raise NotMet(
            f"what answers rank {rank} at {address} is no store of this run's rank 0: set MASTER_PORT to another port, "
            "the same for all ranks"
        ) from None
    if found != own:
        raise NotMet(
            f"the store at {address} is that of {found}, and rank {rank} is of {own}: end the processes of the other, "
            "or set MASTER_PORT to another port, the same for all ranks"
        )


def _verdict(store: dist.Store, world_size: int, address: str, patience: float) -> tuple[str, str]:
    """Who has not come when the patience is over, and why those that have can't begin; empty if nothing speaks against
    it.
    """
    deadline = time.monotonic() + patience
    missing = list(range(world_size))
    while missing := [rank for rank in missing if not store.check([f"{ARRIVED}{rank}"])]:
        if time.monotonic() > deadline:
            return (
                f"{listed(missing)} of {world_size} did not come to rank 0 at {address} within {patience:g} s: see why "
                "they did not start, and whether they reach it",
                "",
            )
        time.sleep(POLL_SECONDS)
    return "", clash([Place(**json.loads(store.get(f"{ARRIVED}{rank}"))) for rank in range(world_size)])
