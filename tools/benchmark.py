"""How fast a part of the project is on this machine, and how far its intervals can be believed, as markdown tables.

python -m tools.benchmark masks [--seconds S] [--batch N]    samples a second of the mask sampler on one core
python -m tools.benchmark augmentations [--modality M]       samples a second of each augmentation on one core
python -m tools.benchmark health --run RUN                   the share of a run's time that its health took
python -m tools.benchmark intervals [--datasets N]           seconds for a table of scores, and how often its intervals
                                                             hold a truth that is known (ten minutes)
python -m tools.benchmark engines [--devices cpu cpu]        memory and step time of each engine beside ddp
python -m tools.benchmark checkpoint [--output DIR]          how long a checkpoint holds training up
python -m tools.benchmark build --modality video             records a second of a core that builds shards
python -m tools.benchmark decoders [--codecs h264]           CPU time for frames of a video, beside OpenCV's
python -m tools.benchmark data [--sets ecg video]            samples a second of the loader, beside other ways to the
                                                             same batches (ten minutes)
python -m tools.benchmark memory [--sets ecg video]          the loader's memory, epoch by epoch
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.config.sections import EvaluationConfig
from src.masks.coverage import STYLES, batch_of_step, sampler_of
from src.metrics.bootstrap import patient_draws
from src.metrics.classification import auroc, score_labels
from src.metrics.coverage import coverage
from src.metrics.table import score_table
from src.randomness import Streams
from src.run.environment import code_version
from tools.benchmark_augmentations import BENCHES, ecgs
from tools.benchmark_build import ARCHIVES, benchmark_build
from tools.benchmark_data import benchmark_data
from tools.benchmark_decoders import CODECS, benchmark_decoders
from tools.benchmark_engines import ENGINES, benchmark_checkpoint, benchmark_engines
from tools.benchmark_memory import SETTLING, benchmark_memory
from tools.benchmark_sets import BENCHES as SETS

REPEATS = 7  # odd, so that the median is one of them
MASK_GRIDS = ((50,), (100,), (200,), (16, 16))


def benchmark_masks(arguments: argparse.Namespace) -> Iterator[str]:
    """Batches of masks, each of a new step, so that drawing the step's sizes is part of the time."""
    yield f"Masks in batches of {arguments.batch}, a new step each; seconds are CPU time of one core.\n"
    yield f"| style | grid | samples/s (median of {REPEATS}) | lowest to highest |\n| --- | --- | ---: | ---: |"
    for style in STYLES:
        for grid in MASK_GRIDS:
            sampler, steps = sampler_of(style, grid, seed=0), count()
            calls = rates(lambda: batch_of_step(sampler, next(steps), arguments.batch), arguments.seconds)  # noqa: B023
            low, middle, high = (arguments.batch * rate for rate in (calls[0], statistics.median(calls), calls[-1]))
            yield f"| {style} | {' x '.join(map(str, grid))} | {middle:,.0f} | {low:,.0f} to {high:,.0f} |"


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
    found = []
    for _ in range(REPEATS):
        start, calls, elapsed = time.process_time(), 0, 0.0
        while elapsed < seconds / REPEATS:
            work()
            calls += 1
            elapsed = time.process_time() - start
        found.append(calls / elapsed)
    return sorted(found)


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


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; each verb has its own --help."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark", description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    masks = verbs.add_parser("masks", help="samples a second of the mask sampler on one core")
    masks.add_argument("--seconds", type=_positive, default=3.5, help="for each row; default: %(default)s")
    masks.add_argument("--batch", type=_count, default=128, help="default: %(default)s")
    masks.set_defaults(run=benchmark_masks)

    augmentations = verbs.add_parser("augmentations", help="samples a second of each augmentation on one core")
    augmentations.add_argument("--seconds", type=_positive, default=3.5, help="for each row; default: %(default)s")
    augmentations.add_argument(
        "--modality", choices=["ecg", *BENCHES], default="ecg", help="of what; default: %(default)s"
    )
    augmentations.add_argument("--batch", type=_count, help="default: 64 ECGs, 8 images, 4 clips, 2 volumes")
    augmentations.add_argument("--size", type=_count, help="of the model's input; default: 224, 112 or 128 pixels")
    augmentations.add_argument("--rate", type=_positive, default=100.0, help="of ECGs, Hz; default: %(default)s")
    augmentations.set_defaults(run=benchmark_augmentations)

    intervals = verbs.add_parser(
        "intervals", help="seconds of the bootstrap, and how often its intervals hold the truth"
    )
    intervals.add_argument("--records", type=_count, default=3039, help="of the timing; default: %(default)s")
    intervals.add_argument("--labels", type=_count, default=18, help="of the timing; default: %(default)s")
    intervals.add_argument("--draws", type=_count, default=1000, help="default: %(default)s")
    intervals.add_argument("--datasets", type=_count, default=1000, help="for each size; default: %(default)s")
    intervals.add_argument(
        "--patients",
        type=_count,
        nargs="+",
        default=[20, 50, 100, 200, 500],
        help="of the coverage; default: %(default)s",
    )
    intervals.set_defaults(run=benchmark_intervals)

    health = verbs.add_parser("health", help="the share of a run's time that its health took, from its own logs")
    health.add_argument("--run", dest="folder", type=Path, required=True, help="run folder")
    health.set_defaults(run=benchmark_health)

    engines = verbs.add_parser("engines", help="memory and step time of each engine beside ddp, on a JEPA")
    engines.add_argument("--devices", nargs="+", default=["cpu", "cpu"], help="one rank each; default: %(default)s")
    engines.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    engines.add_argument("--batch", type=_count, default=16, help="of each rank; default: %(default)s")
    engines.add_argument("--steps", type=_count, default=4, help="in a turn; default: %(default)s")
    engines.set_defaults(run=benchmark_engines)

    checkpoint = verbs.add_parser(
        "checkpoint", help="how long a checkpoint holds training up, and how fast it is written"
    )
    checkpoint.add_argument("--output", type=Path, default=Path(), help="folder on the disk to write to; default: here")
    checkpoint.set_defaults(run=benchmark_checkpoint)
    build = verbs.add_parser("build", help="records a second of a core that builds shards, beside decoding alone")
    build.add_argument("--modality", choices=sorted(ARCHIVES), required=True)
    build.add_argument("--records", type=_count, default=1000, help="default: %(default)s")
    build.add_argument("--builds", nargs="+", metavar="ROW", help="rows of the table, h264 for instance; default: all")
    build.add_argument("--output", type=Path, help="folder on the disk to write to; default: that of temporary files")
    build.set_defaults(run=benchmark_build)

    decoders = verbs.add_parser("decoders", help="CPU time for the frames of a video, beside OpenCV's")
    decoders.add_argument("--clips", type=_count, default=8, help="public ones; default: %(default)s")
    decoders.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS), help="default: all")
    decoders.add_argument("--rounds", type=_count, default=5, help="default: %(default)s")
    decoders.add_argument("--output", type=Path, help="folder on the disk to use; default: that of temporary files")
    decoders.set_defaults(run=benchmark_decoders)

    data = verbs.add_parser("data", help="samples a second of the loader, beside other ways to the same batches")
    data.add_argument("--rounds", type=_count, default=5, help="default: %(default)s")
    data.add_argument("--workers", type=int, nargs="+", choices=range(65), default=[0, 1, 2], metavar="N")
    data.add_argument("--profile", action="store_true", help="where the time of the loader in this process goes")
    data.set_defaults(run=benchmark_data)

    memory = verbs.add_parser("memory", help="the loader's memory, epoch by epoch")
    memory.add_argument("--epochs", type=_epochs, default=20, help="default: %(default)s")
    memory.add_argument("--workers", type=_count, default=2, help="default: %(default)s")
    memory.add_argument("--plot", type=Path, metavar="PNG", help="draws the series")
    memory.set_defaults(run=benchmark_memory)
    for verb in (data, memory):
        verb.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
        verb.add_argument("--records", type=_count, help="of each set; default: 48 volumes to 10,000 beats")
        verb.add_argument("--output", type=Path, help="folder on the disk to use; default: that of temporary files")
    for verb in (engines, checkpoint):
        verb.add_argument("--fname", default="configs/jepa/ecg_demo.yaml", help="JEPA config; default: %(default)s")
        verb.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of it")
        verb.add_argument("--rounds", type=_count, default=7, help="default: %(default)s")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def _epochs(text: str) -> int:
    if (epochs := _count(text)) < 3 * SETTLING:
        raise argparse.ArgumentTypeError(
            f"{text} must be at least {3 * SETTLING}: {SETTLING} in which memory settles, {SETTLING} to measure from"
            f" and {SETTLING} to measure to"
        )
    return epochs


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


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
