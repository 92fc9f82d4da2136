"""The run folder: whose it is, what attempt this is, and what of the logs still holds after a kill."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.files import cut_copy, replace_text
from src.run.owner import Ownership


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
    """Paths of one run, owned by one process at a time."""

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
        self.attempt = 0
        self.owner = Ownership(root / "owner.lock")

    def claim(self) -> int:
        """Take the folder and return the number of this attempt, counted from 1.

        Raises:
            ValueError: it can't be a run folder, or it is another's (src/run/owner.py).
        """
        try:
            self.attempts.mkdir(parents=True, exist_ok=True)
            recorded = max((int(path.stem) for path in self.attempts.glob("*.json")), default=0)
            self.attempt = self.owner.claim(recorded)
            for draft in self.root.glob("*.attempt-*.draft"):
                draft.unlink()
            if self.owner.rivalled and self.training_log.exists():
                cut_copy(self.training_log, self.training_log.stat().st_size)
        except OSError as error:
            raise ValueError(
                f"logging.folder: {self.root} can't be used as a run folder ({error.strerror}: {error.filename}); "
                f"name a folder that can be written"
            ) from None
        return self.attempt

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """A draft of this attempt alone, which takes the place of `path` unless a later attempt has the folder."""
        draft = path.with_name(f"{path.name}.attempt-{self.attempt}.draft")
        self.owner.check()
        try:
            yield draft
            self.owner.check()
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

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

    def cut_logs(self, step: int, health: int | None = None) -> None:
        """Drop every line of metrics, health, broken samples and audit at or after `step`, where the run goes on.

        `health` is another step for health, where the last evaluation is to be made again.

        Also drops what a kill or a power cut left after the last whole line. Where an orphan may have the logs open,
        they become new files, and it writes on into files that have no name.
        """
        for path in self._logs():
            first = step if health is None or path != self.health else health
            ends = (end for end, logged in steps_from_the_end(path) if logged < first)
            end = next(ends, 0)
            if self.owner.rivalled:
                cut_copy(path, end)
                continue
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())

    def has_health(self, step: int) -> bool:
        """Whether health.jsonl tells of that step."""
        if not self.health.exists():
            return False
        return next((logged for _, logged in steps_from_the_end(self.health) if logged <= step), None) == step


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
