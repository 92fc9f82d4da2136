"""Asking SLURM's commands, and reading what scontrol says of jobs."""

from __future__ import annotations

import os
import re
import subprocess

ANSWER_SECONDS = 60.0
"""So long may slurmctld take to answer one question."""


def ask(*words: str, seconds: float = ANSWER_SECONDS) -> str:
    """What a command of SLURM says, with times as SLURM writes them by default.

    Raises:
        OSError: it fails, or does not answer.
    """
    plain = {name: value for name, value in os.environ.items() if name != "SLURM_TIME_FORMAT"}
    try:
        asked = subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds, env=plain)
    except subprocess.TimeoutExpired:
        raise OSError(f"`{' '.join(words)}` has not answered within {seconds:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise OSError(f"`{' '.join(words)}` fails: {error.stderr.strip()}") from None
    return asked.stdout


def show_job(job: str) -> list[dict[str, str]]:
    """What slurmctld knows of a job, or of each task of an array.

    Raises:
        OSError: it knows no such job, or does not answer.
    """
    return read_jobs(ask("scontrol", "show", "job", "-o", job))


def read_jobs(text: str) -> list[dict[str, str]]:
    """The fields of each job in what `scontrol show job -o` says, a line of words key=value."""
    lines = [dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line)) for line in text.splitlines()]
    return [fields for fields in lines if "JobState" in fields]
