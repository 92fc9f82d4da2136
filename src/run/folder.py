"""The run folder: whose it is, what attempt this is, and what of the logs still holds after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 5.0


class RunFolder:
    """Paths of one run, owned by one process at a time.

    The lock is POSIX's, held by rank 0: the kernel drops it with the process however that ends, forked loader workers
    do not inherit it, and it works over NFS.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.training_log = root / "training.log"
        self.audit = root / "audit"
        self.attempts = root / "attempts"
        self.checkpoints = root / "checkpoints"
        self.encoder = root / "encoder"
        self._lock: Any = None

    def claim(self) -> int:
        """Take the folder and return the number of this attempt, counted from 1.

        Raises:
            ValueError: another living process trains here; a dying one is given a few seconds.
        """
        self.attempts.mkdir(parents=True, exist_ok=True)
        self._lock = (self.root / "owner.lock").open("a+")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    self._lock.seek(0)
                    owner = self._lock.read().strip() or "another process"
                    raise ValueError(
                        f"{self.root} is in use by {owner}; stop that run or set another logging.folder"
                    ) from None
                time.sleep(0.1)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()
        return 1 + max((int(path.stem) for path in self.attempts.glob("*.json")), default=0)

    def record_attempt(self, attempt: int, facts: dict[str, Any]) -> None:
        """Write down what this attempt was made with, in attempts/NNNN.json."""
        (self.attempts / f"{attempt:04d}.json").write_text(json.dumps(facts, indent=1) + "\n")

    def last_logged_step(self) -> int | None:
        """The last step that the metrics tell of."""
        return max((record["step"] for record in read_lines(self.metrics)), default=None)

    def cut_logs(self, step: int) -> None:
        """Drop every line of metrics and audit at or after `step`: the run goes on from there and writes them again."""
        for path in (self.metrics, *self.audit.glob("rank-*.jsonl")):
            if path.exists():
                kept = [json.dumps(record) + "\n" for record in read_lines(path) if record["step"] < step]
                replace_text(path, "".join(kept))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON-lines file; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that it is the old one or the new one at any moment."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
