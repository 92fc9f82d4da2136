"""How fast a part of the project is on this machine, and how far its intervals can be believed, as markdown tables.

python -m tools.benchmark masks [--seconds S] [--batch N]    samples a second of the mask sampler on one core
python -m tools.benchmark augmentations [--modality M]       samples a second of each augmentation on one core
python -m tools.benchmark health --run RUN                   the share of a run's time that its health took
python -m tools.benchmark intervals [--datasets N]           seconds for a table of scores, and how often its intervals
                                                             hold a truth that is known (ten minutes)
python -m tools.benchmark engines [--devices cpu cpu]        memory and step time of each engine beside ddp
python -m tools.benchmark checkpoint [--output DIR]          how long a checkpoint holds training up
python -m tools.benchmark build --modality video             records a second of a core that builds shards
python -m tools.benchmark decoders [--codecs h264]           CPU time for frames of a video, beside OpenCV's (minutes)
python -m tools.benchmark data [--sets ecg video]            samples a second of the loader, beside other ways to the
                                                             same batches (ten minutes)
python -m tools.benchmark contrastive [--ranks 1 2 4 8]      memory of the contrastive losses as ranks are added
python -m tools.benchmark memory [--sets ecg video]          the loader's memory, epoch by epoch
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from src.config.experiment import EvaluationConfig
from src.masks.counts import STYLES, TUBES, batch_of_step, sampler_of, styles_of
from src.masks.sampler import MaskSampler
from src.metrics.bootstrap import patient_draws
from src.metrics.classification import auroc, score_labels
from src.metrics.coverage import coverage
from src.metrics.table import score_table
from src.randomness import Streams
from src.run.environment import code_version
from tools import benchmark_flags as flags
from tools.benchmark_augmentations import BENCHES, ecgs
from tools.benchmark_build import benchmark_build
from tools.benchmark_contrastive import benchmark_contrastive
from tools.benchmark_data import benchmark_data
from tools.benchmark_decoders import benchmark_decoders
from tools.benchmark_engines import benchmark_checkpoint, benchmark_engines
from tools.benchmark_memory import benchmark_memory

REPEATS = 7  # odd, so that the median is one of them
IMAGE, CLIP = (16, 16), (8, 14, 14)
"""Tokens of 224 pixels in patches of 14, and of 16 frames of 224 pixels in tubelets of 2 x 16 x 16."""


def mask_rows() -> Iterator[tuple[str, MaskSampler]]:
    """What is timed: ECGs and images in each style, V-JEPA's two kinds of masks beside I-JEPA's published faults."""
    for style in STYLES:
        for grid in ((50,), (100,), (200,), IMAGE):
            if style in styles_of(grid):
                yield f"{style} | {' x '.join(map(str, grid))}", sampler_of(style, grid, seed=0)
    for style in ("complement", "legacy_ijepa"):
        for tubes in TUBES:
            name = f"{style}, {tubes} tubes | {' x '.join(map(str, CLIP))}"
            yield name, sampler_of(style, CLIP, seed=0, tubes=tubes)


def benchmark_masks(arguments: argparse.Namespace) -> Iterator[str]:
    """Batches of masks, each of a new step, so that drawing the step's sizes is part of the time."""
    yield f"Masks in batches of {arguments.batch}, a new step each; seconds are CPU time of one core; all rows in turn,"
    yield f"{REPEATS} rounds.\n"
    yield f"| style | grid | samples/s (median of {REPEATS}) | lowest to highest |\n| --- | --- | ---: | ---: |"
    rows = dict(mask_rows())
    steps = {name: count() for name in rows}
    found: dict[str, list[float]] = {name: [] for name in rows}
    for warm in (True, *[False] * REPEATS):
        for name, sampler in rows.items():
            work = lambda: batch_of_step(sampler, next(steps[name]), arguments.batch)  # noqa: B023, E731
            if warm:
                work()
            else:
                found[name].append(arguments.batch * rate(work, arguments.seconds / REPEATS))
    for name, each in found.items():
        yield f"| {name} | {statistics.median(each):,.0f} | {min(each):,.0f} to {max(each):,.0f} |"


def benchmark_augmentations(arguments: argparse.Namespace) -> Iterator[str]:
    """Each augmentation with probability 1, none of them, a published list, and all."""
    if arguments.modality == "ecg":
        bench = ecgs(arguments.batch or 64, arguments.rate)
    else:
        make, usual_batch, usual_size = BENCHES[arguments.modality]
        bench = make(arguments.batch or usual_batch, arguments.size or usual_size)
    yield f"{bench.what}; seconds are CPU time of one core.\n"
    yield f"| augmentation | {bench.unit}/s (median of {REPEATS}) | lowest to highest |\n| --- | ---: | ---: |"
    for name, transform in bench.rows.items():
        epochs, batch = count(), len(bench.samples)
        calls = rates(
            lambda: transform(  # noqa: B023
                bench.samples,
                Streams.of_samples(0, np.full(batch, next(epochs)), np.arange(batch)),  # noqa: B023
            ),
            arguments.seconds,
        )
        low, middle, high = (shown(batch * rate) for rate in (calls[0], statistics.median(calls), calls[-1]))
        yield f"| {name} | {middle} | {low} to {high} |"


def shown(rate: float) -> str:
    """A rate with the digits that mean something."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def benchmark_intervals(arguments: argparse.Namespace) -> Iterator[str]:
    """Seconds of the bootstrap on one core, then coverage at each number of patients."""
    yield f"{arguments.labels} labels, {arguments.records:,} patients, {arguments.draws:,} draws; CPU seconds.\n"
    yield "| what | s (median of 3) | lowest to highest |\n| --- | ---: | ---: |"
    for name, work in interval_work(arguments.records, arguments.labels, arguments.draws).items():
        low, middle, high = sorted(cpu_seconds(work) for _ in range(3))
        yield f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} |"
    yield f"\nCoverage of 95 % intervals, {arguments.draws:,} draws, {arguments.datasets:,} simulated data sets of"
    yield "patients with 1 to 3 records; +- is the standard error of the simulation, / n the data sets with one.\n"
    yield "| patients | score | coverage | 93 to 97 % |\n| ---: | --- | ---: | --- |"
    for patients in arguments.patients:
        for name, found in coverage(patients, arguments.datasets, arguments.draws).items():
            share = f"{100 * found.share:.1f} +- {100 * found.error:.1f} % / {found.given}"
            yield f"| {patients} | {name} | {share} | {'yes' if 0.93 <= found.share <= 0.97 else 'no'} |"


def interval_work(records: int, labels: int, draws: int) -> dict[str, Callable[[], object]]:
    """What is timed: from drawing patients to the table of two rows and their difference."""
    generator = np.random.default_rng(0)
    truth_NK = (generator.random((records, labels)) < np.linspace(0.02, 0.5, labels)).astype(float)
    truth_NK[:2] = [[0.0], [1.0]]
    odds_NK = np.exp(generator.standard_normal((2, records, labels)) + truth_NK)
    first_NK, second_NK = odds_NK / (1 + odds_NK)
    patients, half_K = np.arange(records), np.full(labels, 0.5)
    weights_DN = patient_draws(patients, draws, seed=0)
    columns = list(zip(first_NK.T, truth_NK.T, strict=True))
    table: Callable[[], object] = lambda: score_table(  # noqa: E731
        "multilabel",
        truth_NK,
        {"first": [first_NK], "second": [second_NK]},
        patients,
        labels=[str(label) for label in range(labels)],
        thresholds={"first": [half_K], "second": [half_K]},
        pairs=[("first", "second")],
        draws=draws,
    )
    return {
        "draws of patients": lambda: patient_draws(patients, draws, seed=0),
        "AUROC": lambda: [auroc(probability_N, truth_N, weights_DN) for probability_N, truth_N in columns],
        "all ten metrics (score_labels)": lambda: score_labels(first_NK, truth_NK, half_K, weights_DN),
        "table of two rows and their difference, with macro and micro": table,
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, over all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def benchmark_health(arguments: argparse.Namespace) -> Iterator[str]:
    """What the evaluations of a run took beside its training, as it was and at the default distance between them."""
    steps, health = (lines_of(arguments.folder / name) for name in ("metrics.jsonl", "health.jsonl"))
    if not (steps and health and "samples_per_second" in steps[0] and "seconds" in health[0]):
        raise ValueError(f"{arguments.folder} is no training run with an evaluation: see evaluation.every")
    batch = yaml.safe_load((arguments.folder / "config.yaml").read_text())["data"]["batch_size"]
    attempts = [json.loads(path.read_text()) for path in (arguments.folder / "attempts").glob("*.json")]
    starts = max(sum(attempt["start"] <= steps[-1]["step"] for attempt in attempts), 1)
    counts = [now["step"] - before["step"] for before, now in pairwise([{"step": -1}, *steps])]
    training = sum(count * batch / of["samples_per_second"] for count, of in zip(counts, steps, strict=True))
    each = statistics.median(record["seconds"] for record in health)
    every = EvaluationConfig().every
    assert every is not None
    spent = each * (len(health) + starts)  # the random encoder, at each start with steps to come
    usual = each / (training / sum(counts) * every)
    yield (
        "| evaluations | records | seconds each (median) | share of this run's training | at every "
        + f"{every} steps |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: |"
    yield (
        f"| {len(health)} + {starts} | {health[0]['records']} | {each:.2f} "
        f"| {spent / training:.1%} of {training:.0f} s | {usual:.1%} |"
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; the last may still be on its way."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def rates(work: Callable[[], object], seconds: float) -> list[float]:
    """Calls a second in REPEATS stretches that together last `seconds`, ascending; one call before them warms up.

    A second is one of CPU time over all threads: what a core does, however many threads or other processes there are.
    """
    work()
    return sorted(rate(work, seconds / REPEATS) for _ in range(REPEATS))


def rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second of CPU time, in a stretch of so many seconds."""
    start, calls, elapsed = time.process_time(), 0, 0.0
    while elapsed < seconds:
        work()
        calls += 1
        elapsed = time.process_time() - start
    return calls / elapsed


def machine() -> str:
    """What a number of this tool depends on, in one line."""
    facts = (
        f"{cpu_model()}, {os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        f"numpy {np.__version__}",
        f"commit {code_version()}",
    )
    return "; ".join(facts)


def cpu_model() -> str:
    """The processor's name by /proc/cpuinfo; its architecture where that tells none."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class Verb(NamedTuple):
    """What a verb of the command line does, with which flags; `run` gives its table line by line."""

    run: Callable[[argparse.Namespace], Iterator[str]]
    add_flags: Callable[[argparse.ArgumentParser], None]
    help: str


VERBS = {
    "masks": Verb(benchmark_masks, flags.add_mask_flags, "samples a second of the mask sampler on one core"),
    "augmentations": Verb(
        benchmark_augmentations, flags.add_augmentation_flags, "samples a second of each augmentation on one core"
    ),
    "intervals": Verb(
        benchmark_intervals,
        flags.add_interval_flags,
        "seconds of the bootstrap, and how often its intervals hold the truth",
    ),
    "health": Verb(
        benchmark_health, flags.add_health_flags, "the share of a run's time that its health took, from its own logs"
    ),
    "engines": Verb(
        benchmark_engines, flags.add_engine_flags, "memory and step time of each engine beside ddp, on a JEPA"
    ),
    "checkpoint": Verb(
        benchmark_checkpoint,
        flags.add_checkpoint_flags,
        "how long a checkpoint holds training up, and how fast it is written",
    ),
    "contrastive": Verb(
        benchmark_contrastive,
        flags.add_contrastive_flags,
        "memory of one forward and backward of each contrastive loss, as ranks are added",
    ),
    "build": Verb(
        benchmark_build, flags.add_build_flags, "records a second of a core that builds shards, beside decoding alone"
    ),
    "decoders": Verb(
        benchmark_decoders, flags.add_decoder_flags, "CPU time for frames of a video, beside OpenCV's, byte for byte"
    ),
    "data": Verb(
        benchmark_data, flags.add_data_flags, "samples a second of the loader, beside other ways to the same batches"
    ),
    "memory": Verb(benchmark_memory, flags.add_memory_flags, "the loader's memory, epoch by epoch"),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; each verb has its own --help."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb in VERBS.items():
        its = verbs.add_parser(name, help=verb.help)
        verb.add_flags(its)
        its.set_defaults(run=verb.run)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and print its table line by line, as it is measured."""
    parsed = parse(arguments)
    print(machine(), end="\n\n")
    try:
        for line in parsed.run(parsed):
            print(line, flush=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
