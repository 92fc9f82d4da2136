"""Whether a loader's memory stays flat over many epochs: the verb `memory` of benchmark."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tools.benchmark_loaders import Ours
from tools.benchmark_sets import BENCHES, Bench, Whole, opened, public_records

LOOKS = 8
"""At memory in an epoch, whose median counts: batches come and go in between."""
SETTLING = 3
"""First epochs in which caches fill and allocators find their size."""
GROWTH = 0.01
"""Of the last epochs over the first ones behind SETTLING: the goal."""


def benchmark_memory(arguments: argparse.Namespace) -> Iterator[str]:
    """The memory of this process and its loader's workers, epoch by epoch, of each data set."""
    torch.set_num_threads(1)
    yield f"Memory (PSS) of the rank and its {arguments.workers} workers, which stay for all epochs, in MB by epoch."
    yield f"Growth: median of the last {SETTLING} epochs over that of epochs {SETTLING + 1} to {2 * SETTLING}; memory"
    yield "that shrinks meets the goal too.\n"
    yield f"| data | samples | growth | at most {GROWTH:.0%} | MB of epochs 1, 2, ... |"
    yield "| --- | ---: | ---: | --- | --- |"
    found = {}
    for name in arguments.sets:
        with tempfile.TemporaryDirectory(dir=arguments.output, prefix="medssl-memory-") as room:
            samples, found[name] = _of_set(BENCHES[name], Path(room), arguments)
        growth = growth_of(found[name])
        series = ", ".join(f"{memory:.1f}" for memory in found[name])
        yield f"| {name} | {samples:,} | {growth:+.2%} | {'yes' if growth <= GROWTH else 'no'} | {series} |"
    if arguments.plot is not None:
        _plot(found, arguments.plot)
        yield f"\n{arguments.plot}"


def _of_set(bench: Bench, room: Path, arguments: argparse.Namespace) -> tuple[int, list[float]]:
    bench.make(public_records(), room, arguments.records or bench.records)
    shards = opened(room / "shards")
    batch = max(1, min(bench.batch, len(shards) // 4))
    loader = Ours(shards, Whole(bench.collate(shards)), batch, arguments.workers)
    return len(shards), epochs_of(loader.steps(arguments.epochs), len(shards) // batch)


def epochs_of(batches: Iterator[object], steps: int) -> list[float]:
    """MB of each epoch of so many steps: the median of LOOKS."""
    found: list[list[float]] = []
    for step, _ in enumerate(batches):
        if step % steps == 0:
            found.append([])
        if step % steps % max(steps // LOOKS, 1) == 0:
            found[-1].append(memory(os.getpid()) / 1e6)
    return [statistics.median(looks) for looks in found]


def growth_of(epochs: Sequence[float]) -> float:
    """Of the last epochs over the first that count, as a share."""
    assert len(epochs) >= 3 * SETTLING, "the epochs compared overlap"
    return statistics.median(epochs[-SETTLING:]) / statistics.median(epochs[SETTLING : 2 * SETTLING]) - 1


def memory(process: int) -> int:
    """Bytes of a process and its children: what they share counts once (PSS)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = {int(child) for task in tasks for child in (task / "children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return 0
    own = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(memory(child) for child in children)


def _plot(found: dict[str, list[float]], path: Path) -> None:
    """Each series as a share of its median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for name, series in found.items():
        axes.plot(range(1, len(series) + 1), [value / statistics.median(series) for value in series], label=name)
    axes.set(xlabel="epoch", ylabel="memory / its median")
    axes.legend()
    figure.savefig(path, dpi=100)
