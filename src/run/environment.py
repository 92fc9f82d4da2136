"""What a run was made with: code version, library versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "COMMIT"
"""Where a copy of the code that a job was submitted with says what it is a copy of."""
LIBRARIES = ("torch", "numpy", "pydantic", "safetensors", "deepspeed", "transformers")


def code_version() -> str:
    """The git commit of the code, with `+changes` where the tree differs from it; `unknown` outside a checkout."""
    if SNAPSHOT.is_file():  # it may lie inside another checkout
        return SNAPSHOT.read_text().strip()
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True, text=True).stdout.strip()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def environment() -> dict[str, Any]:
    """Everything that one needs to know to run it again."""
    return {
        "command": sys.argv,
        "code_version": code_version(),
        "python": platform.python_version(),
        "libraries": {library: _version(library) for library in LIBRARIES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
    }
