"""A task of a job: starts its rank and waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from src.run.launch import STOPS


@dataclass(frozen=True)
class Task:
    """Runs a submission's experiment; all tasks of a job call the same one."""

    submission: Path
    code: Path
    config: Path
    directory: Path
    retries: int

    def checkpoint(self) -> DelayedSubmission:
        """For submitit, which would put back only what has this."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Run this task's rank to its end."""
        place = JobEnvironment()
        for number in STOPS:
            signal.signal(number, lambda *_: None)
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            **os.environ,
            "RANK": str(place.global_rank),
            "LOCAL_RANK": str(place.local_rank),
            "WORLD_SIZE": str(place.num_tasks),
            "LOCAL_WORLD_SIZE": str(place.num_tasks // place.num_nodes),
        }
        words = [sys.executable, str(self.code / "main.py"), "--fname", str(self.config)]
        code = subprocess.call(words, cwd=self.directory, env=environment)
        if code:
            raise RuntimeError(f"rank {place.global_rank} ended with code {code}")
