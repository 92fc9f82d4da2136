"""The run folder: whose it is, what attempt this is, and what of the logs still holds after a kill."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.files import replace_text

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Attempt:
    """One start of the run that got as far as training."""

    number: int
    start: int
    """The step it started from."""
    checkpoint_every: int
    """Once it has passed so many steps there is a whole checkpoint; in the background one may still be under way."""
    world_size: int
    identity: dict[str, Any]
    """The config sections that make the run what it is."""
    data_sha256: str
    environment: dict[str, Any]
    """Command, code and library versions, machine."""


class RunFolder:
    """Paths of one run, owned by one process at a time.

    The lock is POSIX's, held by rank 0: the kernel drops it with the process however that ends, forked loader workers
    do not inherit it, and it works over NFS.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.metrics_csv = root / "metrics.csv"
        self.health = root / "health.jsonl"
        self.broken = root / "broken.jsonl"
        self.embeddings = root / "embeddings.npz"
        self.training_log = root / "training.log"
        self.audit = root / "audit"
        self.wandb_id = root / "wandb_id"
        self.attempts = root / "attempts"
        self.checkpoints = root / "checkpoints"
        self.encoder = root / "encoder"
        self._lock: Any = None

    def claim(self) -> int:
        """Take the folder and return the number of this attempt, counted from 1.

        Raises:
            ValueError: it can't be a run folder, or another living process trains here; a dying one is given a few
                seconds.
        """
        try:
            self.attempts.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / "owner.lock").open("a+")
        except OSError as error:
            raise ValueError(
                f"logging.folder: {self.root} can't be used as a run folder ({error.strerror}: {error.filename}); "
                f"name a folder that can be written"
            ) from None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._lock_now():
            if time.monotonic() > deadline:
                self._lock.seek(0)
                owner = self._lock.read().strip() or "another process"
                raise ValueError(f"{self.root} is in use by {owner}; stop that run or set another logging.folder")
            time.sleep(0.1)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()
        return 1 + max((int(path.stem) for path in self.attempts.glob("*.json")), default=0)

    def _lock_now(self) -> bool:
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def record_attempt(self, attempt: Attempt) -> None:
        """Write down what this attempt is, in attempts/NNNN.json."""
        replace_text(self.attempts / f"{attempt.number:04d}.json", json.dumps(asdict(attempt), indent=1) + "\n")

    def last_attempt(self) -> Attempt | None:
        """The newest attempt that got as far as training."""
        records = sorted(self.attempts.glob("*.json"), key=lambda path: int(path.stem))
        return Attempt(**json.loads(records[-1].read_text())) if records else None

    def last_logged_step(self) -> int | None:
        """The last step that metrics or audit tell of: metrics may be written more rarely than checkpoints."""
        last = [next(steps_from_the_end(path), None) for path in self._logs()]
        return max((found[1] for found in last if found is not None), default=None)

    def _logs(self) -> list[Path]:
        return [
            path for path in (self.metrics, self.health, self.broken, *self.audit.glob("rank-*.jsonl")) if path.exists()
        ]

    def cut_logs(self, step: int) -> None:
        """Drop every line of metrics, health, broken samples and audit at or after `step`, where the run goes on.

        Also drops what a kill or a power cut left after the last whole line.
        """
        for path in self._logs():
            ends = (end for end, logged in steps_from_the_end(path) if logged < step)
            with path.open("r+b") as file:
                file.truncate(next(ends, 0))
                os.fsync(file.fileno())


def steps_from_the_end(path: Path) -> Iterator[tuple[int, int]]:
    """Where each line of a log ends and what step it is of, from the last one back; broken lines are passed over.

    Steps rise along a log, so that only its tail is ever read, however long it is.
    """
    if not path.stat().st_size:  # nothing can be mapped
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"\n") + 1
        while end:
            begin = data.rfind(b"\n", 0, end - 1) + 1
            try:
                step = int(json.loads(data[begin:end])["step"])
            except (ValueError, KeyError, TypeError):
                step = None
            if step is not None:
                yield end, step
            end = begin
