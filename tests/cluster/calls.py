"""Calls main_distributed.py as from a terminal, in a folder of its own, on a machine with or without SLURM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.commands import LAUNCH_VARIABLES, ROOT

MAIN = ROOT / "main_distributed.py"
NEEDED = ("sh", "env", "git", "setsid", "cat", "hostname")
SHORT = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=3", "checkpoint.every=1"]
DEBUG = str(ROOT / "configs" / "jepa" / "ecg_debug.yaml")
PROBE = str(ROOT / "configs" / "probe" / "ecg_debug.yaml")


def path_without_slurm(folder: Path, **commands: str) -> str:
    """A PATH with nothing but NEEDED, and stand-ins for commands of SLURM: shell scripts by name."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name in NEEDED:
        if not (bin_ / name).exists():
            (bin_ / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    for name, script in commands.items():
        (bin_ / name).unlink(missing_ok=True)  # a link leads to the machine's own
        (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / name).chmod(0o755)
    return str(bin_)


def call(folder: Path, *words: str, **commands: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCH_VARIABLES and not name.startswith(("SLURM", "PYTHONPATH"))
    }
    environment = kept | {"PATH": path_without_slurm(folder, **commands)}
    return subprocess.run(
        [sys.executable, str(MAIN), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def files(folder: Path) -> set[str]:
    """Everything below a folder but the stand-ins."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "bin" not in path.relative_to(folder).parts}
