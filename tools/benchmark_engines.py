"""Memory and speed of the engines, and of checkpoints, on a JEPA: `tools.benchmark engines` and `checkpoint`.

python -m tools.benchmark_engines TASK    one rank; `tools.benchmark` starts it
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from src.checkpoints.manifest import Manifest
from src.checkpoints.write import BackgroundWriter, write_checkpoint
from src.config.engine import EngineConfig
from src.config.load import load_config
from src.distributed.processes import die_with_parent
from src.distributed.ranks import Ranks, barrier, join, leave
from src.distributed.variables import LAUNCHER
from src.engines.build import build_engine
from src.engines.engine import Engine, Setup
from src.files import sha256_of
from src.masks.counts import batch_of_step
from src.masks.sampler import MaskSampler
from src.run.launch import launch
from ssls.jepa.config import Config
from ssls.jepa.model import JEPA

ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"name": "ddp"},
    "fsdp": {"name": "fsdp"},
    **{f"zero{stage}": {"name": "deepspeed", "zero_stage": stage} for stage in range(4)},
}
MEMORY_STEPS = 3


def benchmark_engines(arguments: argparse.Namespace) -> Iterator[str]:
    """Peak memory of all tensors on a rank, each engine by itself; then step times, the engines taking turns."""
    config = _config(arguments)
    count = sum(parameter.numel() for parameter in _objective(config).parameters())
    ranks = len(arguments.devices)
    yield f"{arguments.fname}, {count / 1e6:.1f} M parameters with the teacher, {ranks} x {arguments.devices[0]},"
    yield f"batch {arguments.batch} a rank, {config.engine.precision}; median of {arguments.rounds} turns of"
    yield f"{arguments.steps} steps, lowest to highest.\n"
    memory = {name: _run(arguments, "memory", [name])[name] for name in arguments.engines}
    seconds = _run(arguments, "time", arguments.engines)
    flops = _flops(config, arguments.batch)
    first = arguments.engines[0]
    heads = ["engine", "peak tensor memory, MiB", f"of {first}'s", "ms a step", f"of {first}'s", "samples/s"]
    yield f"| {' | '.join(heads)} | GFLOP/s a rank |\n|---{'|---:' * len(heads)}|"
    for name in arguments.engines:
        middle, usual = statistics.median(seconds[name]), statistics.median(seconds[first])
        spread = f"{1e3 * min(seconds[name]):.0f} to {1e3 * max(seconds[name]):.0f}"
        kept = f"{memory[name] / 2**20:.0f} | {memory[name] / memory[first]:.2f}"
        rates = f"{ranks * arguments.batch / middle:.1f} | {flops / middle / 1e9:,.0f}"
        yield f"| {name} | {kept} | {1e3 * middle:.0f} ({spread}) | {middle / usual:.2f} | {rates} |"


def benchmark_checkpoint(arguments: argparse.Namespace) -> Iterator[str]:
    """One plain process on the CPU: how long training stands still, and how fast bytes are copied and written."""
    config = _config(arguments)
    ranks = Ranks(0, 1, torch.device("cpu"))
    engine = make_engine(config, {"name": "plain"}, ranks)
    _steps(engine, _batch(config, 2), range(1))
    manifest = Manifest(1, 2, 1, 1, engine.name, 1, {}, "", "", engine.state())
    size = sum(piece.values.nbytes for piece in engine.pieces())
    yield f"{arguments.fname}, {size / 1e6:.0f} MB of weights, teacher and moments; median of {arguments.rounds},"
    yield "lowest to highest; each kind took its turn in every round.\n"
    found: dict[str, list[float]] = {}
    writer = BackgroundWriter(ranks)
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=arguments.output) as name:
            folder = Path(name)
            _clock(found, "plain copy of the bytes", lambda: [piece.values.clone() for piece in engine.pieces()])
            _clock(
                found,
                "background: training stands still (snapshot)",
                lambda folder=folder: writer.write(folder / "late", manifest, engine.pieces(), shutil.rmtree),
            )
            _clock(found, "background: written after that", writer.wait)
            _clock(
                found,
                "synchronous: training stands still",
                lambda folder=folder: write_checkpoint(folder / "now", manifest, engine.pieces(), ranks),
            )
            (written,) = (folder / "now").glob("*/rank-*")
            _clock(found, "of it the sha256 of what was written", lambda written=written: sha256_of(written))
            blocks = ["if=/dev/zero", f"of={folder / 'dd'}", "bs=1M", f"count={-(-size // 2**20)}", "conv=fsync"]
            _clock(
                found,
                "dd of as many zeros, synced",
                lambda blocks=blocks: subprocess.run(["dd", *blocks], check=True, stderr=subprocess.DEVNULL),
            )
    yield "| what | s | MB/s |\n|---|---:|---:|"
    for what, seconds in found.items():
        middle = statistics.median(seconds)
        yield f"| {what} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {size / 1e6 / middle:,.0f} |"


def _clock(found: dict[str, list[float]], what: str, work: Any) -> None:
    start = time.perf_counter()
    kept = work()
    found.setdefault(what, []).append(time.perf_counter() - start)
    del kept


def _run(arguments: argparse.Namespace, kind: str, engines: list[str]) -> dict[str, Any]:
    """What rank 0 of a group measured.

    Raises:
        ValueError: the group failed; it has told why.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        task = {"kind": kind, "engines": engines, "answer": str(answer)}
        task |= {name: getattr(arguments, name) for name in ("fname", "set", "batch", "rounds", "steps")}
        sys.argv = ["-m", "tools.benchmark_engines", json.dumps(task)]
        if launch(arguments.devices):
            raise ValueError(f"the {kind} of {', '.join(engines)} could not be measured; see above")
        found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _config(task: Any) -> Config:
    config = load_config(Path(task.fname), task.set, lambda _: Config)
    assert isinstance(config, Config)
    return config


def _objective(config: Config) -> JEPA:
    torch.manual_seed(0)
    return JEPA(config.model, config.loss)


def make_engine(config: Config, kind: dict[str, Any], ranks: Ranks) -> Engine:
    """As the config says, but for the kind of engine."""
    asked = EngineConfig.model_validate(
        {"precision": config.engine.precision, "recompute": config.engine.recompute} | kind
    )
    setup = Setup(asked, config.optimization, ranks, 0, lambda step: 1e-4, lambda step: 0.1)
    return build_engine(_objective(config), setup)


def _flops(config: Config, size: int) -> int:
    """Floating-point operations of a rank's matrix products in one forward and backward, none of them repeated."""
    with torch.device("meta"):
        objective = JEPA(config.model, config.loss)
    (batch,) = _batch(config, size)
    with FlopCounterMode(display=False) as counter:
        sums = objective({name: value.to("meta") for name, value in batch.items() if name != "keys"})
        sum(sums.values()).backward()
    return int(counter.get_total_flops())


def _batch(config: Config, size: int) -> list[dict[str, Any]]:
    encoder = config.model.encoder
    masks = batch_of_step(MaskSampler(config.mask, encoder.grid, 0), 0, size)
    ecg = torch.randn(size, encoder.channels, *encoder.sides)
    return [
        {
            "keys": [str(row) for row in range(size)],
            "ecg": ecg,
            "context": torch.from_numpy(masks.context_BK),
            "targets": torch.from_numpy(masks.targets_BMT),
        }
    ]


def _steps(engine: Engine, batch: list[dict[str, Any]], steps: range) -> None:
    for step in steps:
        engine.forward_backward(step, batch)
        engine.step(step)
        engine.ema("teacher", "student", 0.99)


def _peak(config: Config, name: str, batch: list[dict[str, Any]], ranks: Ranks) -> int:
    """Bytes of tensors alive at once, from before the model is made to the end of a few steps."""
    if ranks.device.type == "cuda":
        _steps(make_engine(config, ENGINES[name], ranks), batch, range(MEMORY_STEPS))
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _steps(make_engine(config, ENGINES[name], ranks), batch, range(MEMORY_STEPS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")


def _times(
    config: Config, names: list[str], batch: list[dict[str, Any]], task: Any, ranks: Ranks
) -> dict[str, list[float]]:
    """Seconds a step of each engine, in turns."""
    engines = {name: make_engine(config, ENGINES[name], ranks) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(task.rounds + 1):  # the first warms up
        for name, engine in engines.items():
            barrier()
            start = time.perf_counter()
            _steps(engine, batch, range(turn * task.steps, (turn + 1) * task.steps))
            if ranks.device.type == "cuda":
                torch.cuda.synchronize()
            barrier()
            if turn:
                found[name].append((time.perf_counter() - start) / task.steps)
    return found


def main() -> None:
    """One rank."""
    task = argparse.Namespace(**json.loads(sys.argv[1]))
    config = _config(task)
    ranks = join(config.engine.timeout)
    batch = _batch(config, task.batch)
    if task.kind == "memory":
        found: Any = {name: _peak(config, name, batch, ranks) for name in task.engines}
    else:
        found = _times(config, task.engines, batch, task, ranks)
    if ranks.first:
        Path(task.answer).write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    die_with_parent(int(os.environ[LAUNCHER]))
    main()
    sys.stdout.flush()
    os._exit(0)  # a gloo process sometimes aborts after all Python code has finished
