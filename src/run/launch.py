"""One process for each device, on this machine: started together, and none outlives another.

The launcher stays free of torch (a second of start-up) and holds nothing: killing it kills the ranks (a parent-death
signal), a rank that dies ends the others, Ctrl-C and SIGTERM let them save and end; a second one does not wait.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from src.config.experiment import ExperimentConfig, RunConfig
from src.distributed.processes import STOPS, unblock_stops
from src.distributed.variables import DEVICE, FAILURES, LAUNCHER, QUIET, STORE_SOCKET
from src.run.failure import describe_hang, first_failure, hung_ranks, tell_stands

SAVE_SECONDS = 600.0
"""So long may ranks that were asked to stop take to finish their step and write it; who can't wait asks again."""
POLL_SECONDS = 0.05
HANG_SECONDS = 20.0
"""So long may the others take to end when one rank has hung: they stand still as well, and write where, or notice."""
STOPPED = (0, *(128 + number for number in STOPS))
"""Exit codes of ranks that finished, or saved because they were asked to stop."""


def in_rank() -> bool:
    """Whether a launcher (this one, torchrun or another) started this process as a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def parse_devices(words: Sequence[str]) -> list[str]:
    """Check the entries of --devices; without any, every GPU, else one CPU process.

    Raises:
        ValueError: not a device, one that this machine lacks, or CPU and GPU mixed.
    """
    for word in words:
        kind, _, number = word.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
            raise ValueError(f"--devices: {word} is not a device; use cpu or cuda:0, cuda:1, ...")
    if words and all(word == "cpu" for word in words):
        return list(words)
    import torch  # only here: the launcher of a CPU run does without

    present = torch.cuda.device_count()
    if not words:
        return [f"cuda:{number}" for number in range(present)] or ["cpu"]
    if any(word == "cpu" for word in words):
        raise ValueError("--devices: cpu and cuda cannot be mixed in one run")
    devices = [word if ":" in word else f"{word}:0" for word in words]
    for device in devices:
        if int(device.split(":")[1]) >= present:
            raise ValueError(f"--devices: {device} is not there; this machine has {present} CUDA devices")
    if len(set(devices)) < len(devices):
        raise ValueError("--devices: a CUDA device is named twice; each process needs its own")
    return devices


def check_devices(config: RunConfig, devices: Sequence[str]) -> None:
    """Refuse a config that so many processes cannot run.

    Raises:
        ValueError: names the key.
    """
    count = len(devices)
    if config.engine.name == "plain" and count > 1:
        raise ValueError(
            f"engine.name is plain, which is one process, but {count} devices are given; use auto, ddp, fsdp or "
            f"deepspeed"
        )
    if count % config.engine.replicas:
        raise ValueError(
            f"engine.replicas {config.engine.replicas} does not divide {count} devices into equal groups; each group "
            f"holds one copy of the model"
        )
    if isinstance(config, ExperimentConfig) and config.data.batch_size % count:
        raise ValueError(
            f"data.batch_size {config.data.batch_size} cannot be shared equally by {count} devices; it is the "
            f"global batch, so make it a multiple of {count}"
        )


def launch(devices: Sequence[str]) -> int:
    """Run this same command once for each device and return the exit code of the job."""
    stopped: list[int] = []
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, lambda received, _: stopped.append(received))
    unblock_stops()  # who started this may have blocked them, which is inherited: it would be deaf
    with tempfile.TemporaryDirectory(prefix="medssl-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(len(devices) + 8)
        ranks = [_start(rank, devices, listener, Path(folder)) for rank in range(len(devices))]
        try:
            while not stopped and any(rank.poll() is None for rank in ranks):
                if any(rank.poll() not in (None, *STOPPED) for rank in ranks):
                    break
                time.sleep(POLL_SECONDS)
                stopped += _asked_by_others(ranks)
            stopped = stopped or _asked_by_others(ranks)
            if stopped:
                _ask_to_stop(ranks, stopped)
            if hung_ranks(Path(folder)):
                _let_the_others_tell(ranks)
        finally:
            own_deaths = [rank.poll() for rank in ranks]
            _end(ranks)
        failure, hung = first_failure(Path(folder)), hung_ranks(Path(folder))
        orderly = any(code in STOPPED[1:] for code in own_deaths)  # then all have saved, or had nothing to
        signals = {-code for code in own_deaths if code is not None and code < 0}
        by_signal = bool(signals & set(STOPS))  # before the rank watched for it
        beside = hung or signals - set(STOPS) or (failure is not None and failure.by_user)  # no echo of the stop
        if (
            stopped
            and any(code != 0 for code in own_deaths)
            and not beside
            and (orderly or by_signal or failure is None)
        ):
            saved = "" if orderly else " before a step could be saved"
            print(f"stopped by {signal.Signals(stopped[0]).name}{saved}", file=sys.stderr)
            return 128 + stopped[0]
        return _report(own_deaths, Path(folder))


def _start(rank: int, devices: Sequence[str], listener: socket.socket, failures: Path) -> subprocess.Popen[bytes]:
    threads = max(1, len(os.sched_getaffinity(0)) // len(devices))
    environment = {
        "OMP_NUM_THREADS": str(threads),
        **QUIET,
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(len(devices)),
        "LOCAL_WORLD_SIZE": str(len(devices)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]),
        STORE_SOCKET: str(listener.fileno()),
        DEVICE: devices[rank],
        FAILURES: str(failures),
        LAUNCHER: str(os.getpid()),
    }
    return subprocess.Popen(
        [sys.executable, *sys.argv],
        env=environment,
        pass_fds=[listener.fileno()] if rank == 0 else [],
        start_new_session=True,  # Ctrl-C reaches the launcher alone, which ends the ranks
    )


def _asked_by_others(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The signal that a rank was sent by somebody else, and has ended by: what fails after that is an echo."""
    return [code - 128 for rank in ranks if (code := rank.poll()) in STOPPED[1:]][:1]


def _ask_to_stop(ranks: Sequence[subprocess.Popen[bytes]], stopped: list[int]) -> None:
    """Wait until all ranks have saved and ended, or one has died of it, or somebody asks again."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    deadline = time.monotonic() + SAVE_SECONDS
    while len(stopped) == 1 and time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        if any(rank.poll() not in (None, *STOPPED) for rank in ranks):
            return
        time.sleep(POLL_SECONDS)


def _let_the_others_tell(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the stacks of all ranks, when the first ones are there."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        time.sleep(POLL_SECONDS)


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Nothing is lost: what is called a checkpoint is whole, and logs are cut back to it."""
    for rank in ranks:
        rank.kill()
        rank.wait()


def _report(exit_codes: Sequence[int | None], failures: Path) -> int:
    """Tell the first cause once: a user's mistake, else a hang, else a rank that was killed and left no word, else the
    first error.

    What the others say when one is gone is an echo; a user's mistake never is.
    """
    failure, hung = first_failure(failures), hung_ranks(failures)
    if hung and (failure is None or not failure.by_user):
        tell_stands(failures, len(exit_codes))
        print(
            f"error: {describe_hang(hung)}; the stacks above tell where each rank stood. The same command goes on from"
            " the last checkpoint",
            file=sys.stderr,
        )
        return 1
    if failure is None or not failure.by_user:
        for rank, code in enumerate(exit_codes):
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                hint = " (often: out of memory)" if name == "SIGKILL" else ""
                print(f"error: rank {rank} was killed by {name}{hint}; the job was ended", file=sys.stderr)
                return 1
    if failure is None:
        return next((code for code in exit_codes if code), 0)
    if not failure.by_user or os.environ.get("MEDSSL_TRACEBACK"):
        print(failure.trace, end="", file=sys.stderr)
    place = f"rank {failure.rank}: " if len(exit_codes) > 1 and not failure.by_user else ""
    print(f"error: {place}{failure.message}", file=sys.stderr)
    return 1
