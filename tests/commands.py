"""Starts the project's own commands as a user would, and looks at what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from src.checkpoints.read import checkpoint_folders, open_checkpoint

ROOT = Path(__file__).resolve().parents[1]
FAULTY = "tests/distributed/faulty_main.py"
"""main.py with `--fault NAME`."""
TIMES = {"samples_per_second", "data_wait"}
LAUNCH_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def debug_run(folder: Path, shards: Path, world_size: int, steps: int, *settings: str) -> list[str]:
    """The words of a run of seconds; the first one makes the shards. With a `world_size` of 0 it starts no ranks."""
    words = ["--fname", "configs/jepa/ecg_debug.yaml", *(["--devices", *["cpu"] * world_size] if world_size else [])]
    own = [f"logging.folder={folder}", f"data.root={shards}", "optimization.epochs=null", f"optimization.steps={steps}"]
    return [*words, "--set", *own, *settings]


def environment() -> dict[str, str]:
    """What a command started by hand would see: nothing of a launcher or a SLURM job that runs the tests."""
    outer = ("SLURM", "SBATCH", "SRUN", "SALLOC")
    return {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES and not k.startswith(outer)}


def start(*words: str, script: str = "main.py") -> subprocess.Popen[str]:
    """Start a command from the repository's root."""
    return subprocess.Popen(
        [sys.executable, script, *words],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_as_from_a_terminal,
    )


def _as_from_a_terminal() -> None:
    """A shell starts background jobs, the tests perhaps among them, with SIGINT ignored; a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(*words: str, script: str = "main.py", timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = start(*words, script=script)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def succeed(*words: str, script: str = "main.py", timeout: float = 120.0) -> str:
    """Run a command that must end well; returns its output."""
    done = run(*words, script=script, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refuse(*words: str, script: str = "main.py") -> str:
    """Run a command that must end with one sentence and no traceback; returns the sentence."""
    done = run(*words, script=script)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below one that is alive."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it at once."""
    for process in [*descendants(pid), psutil.Process(pid)]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run (a zombie does not)."""
    running = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
        except psutil.NoSuchProcess:
            continue
    return running


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole records of a JSON-lines file that may be growing."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def logged(folder: Path) -> int:
    """How many whole lines a run's metrics.jsonl has; asked so often that parsing them took a core from the run."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Poll until a run has logged so many lines; it must not have ended before."""
    wait_until(lambda: logged(folder) >= count or process.poll() is not None, 60, f"{count} lines of metrics")
    assert process.poll() is None, process.communicate()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Metrics without the times."""
    return [
        {key: value for key, value in record.items() if key not in TIMES} for record in lines(folder / "metrics.jsonl")
    ]


def health(folder: Path) -> list[dict[str, Any]]:
    """The lines of health.jsonl without the times."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder / "health.jsonl")]


def global_batches(folder: Path) -> dict[int, list[str]]:
    """The keys of each step's global batch, in rank order, from all audit files."""
    batches: dict[int, list[str]] = {}
    for path in sorted((folder / "audit").glob("rank-*.jsonl"), key=lambda path: int(path.stem.split("-")[1])):
        for record in lines(path):
            batches.setdefault(record["step"], []).extend(record["keys"])
    return dict(sorted(batches.items()))


def audit(folder: Path) -> dict[str, list[tuple[int, list[str]]]]:
    """Each rank's steps and keys, attempts aside."""
    return {
        path.name: [(record["step"], record["keys"]) for record in lines(path)]
        for path in sorted((folder / "audit").glob("rank-*.jsonl"))
    }


def tensors(folder: Path, step: int | None = None) -> dict[tuple[str, str], torch.Tensor]:
    """Every tensor of the newest checkpoint, or of that of a step."""
    folders = checkpoint_folders(folder / "checkpoints")
    wanted = [path for path in folders if step is None or int(path.name[5:13]) == step]
    checkpoint = open_checkpoint(wanted[0])
    shapes = {key: shape for file in checkpoint.manifest.files for key, shape in file.shapes.items()}
    found = {}
    for key, shape in shapes.items():
        kind, name = key.split("/", 1)
        found[kind, name] = checkpoint.read(kind, name, tuple(shape))
    return found


def same_tensors(first: Path, second: Path) -> bool:
    """Whether the newest checkpoints of two runs hold the same bits."""
    one, other = tensors(first), tensors(second)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
