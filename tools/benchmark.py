"""How fast a part of the project is on this machine, as a markdown table.

python -m tools.benchmark masks [--seconds S] [--batch N]    samples a second of the mask sampler on one core
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

from src.masks.coverage import STYLES, batch_of_step, sampler_of
from src.run.environment import code_version

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
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and print its table line by line, as it is measured."""
    parsed = parse(arguments)
    print(machine(), end="\n\n")
    for line in parsed.run(parsed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
