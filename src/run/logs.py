"""What a run writes while it runs: JSON lines for machines, training.log and a progress bar for people."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

LOGGER = logging.getLogger("medssl")


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with null for numbers that are not finite, which neither JSON nor a table has."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


class Lines:
    """A JSON-lines file that grows by whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; numbers that JSON does not have become null."""
        self._file.write(json.dumps(finite(record)) + "\n")

    def sync(self) -> None:
        """Force what was written to disk."""
        os.fsync(self._file.fileno())


def log_to_terminal() -> None:
    """Send the log to standard output."""
    LOGGER.setLevel(logging.INFO)
    terminal = _BesideBar()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(terminal)


def log_to_file(path: Path) -> None:
    """Send the log to a file as well, with times."""
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOGGER.addHandler(file)


class _BesideBar(logging.StreamHandler):
    """Lines on the terminal that do not tear the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class Progress:
    """The progress line: epoch, loss, samples per second, share of the time spent waiting for data, time left."""

    def __init__(self, start: int, total: int, shown: bool) -> None:
        self._bar = tqdm(
            initial=start,
            total=total,
            disable=not (shown and sys.stderr.isatty()),
            unit="step",
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )

    def advance(self) -> None:
        self._bar.update(1)

    def show(self, epoch: int, loss: float, samples_per_second: float, data_wait: float) -> None:
        self._bar.set_description_str(f"epoch {epoch} ")
        self._bar.set_postfix_str(f"loss {loss:.4f}, {samples_per_second:.0f} samples/s, waiting {data_wait:.0%}")

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """A length of time in the unit that fits: 45s, 12m, 3.4h."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5400 else f"{seconds / 3600:.1f}h"
