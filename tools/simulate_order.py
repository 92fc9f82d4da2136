"""Asks the order of samples for any rank of a cluster that need not exist, and tells what it would cost there.

python -m tools.simulate_order --samples 1e9 --shards 1e5 --ranks 4096 --batch-size 32768 --window 16 --lanes 4096
python -m tools.simulate_order --fname configs/jepa/ecg_debug.yaml --ranks 2 --step 3 --rank 1    that rank's samples
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.config import ExperimentConfig
from src.config.load import load_config
from src.data.shards import Shards
from src.data.simulate_order import Answers, Cluster, ask, share_of
from ssls.objectives import schema_of

WITHOUT_CONFIG = ("samples", "shards", "batch_size", "window", "lanes", "seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answers; returns the exit status."""
    words = _parser().parse_args(arguments)
    try:
        if words.step < 0:
            raise ValueError(f"there is no step {words.step}: they are counted from 0")
        cluster = _cluster(words)
        for line in _share(cluster, words) if words.rank is not None else _answers(cluster, words):
            print(line)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _cluster(words: argparse.Namespace) -> Cluster:
    """The cluster that the flags describe."""
    if words.fname is not None:
        if ignored := [flag for flag in WITHOUT_CONFIG if getattr(words, flag) is not None]:
            raise ValueError(
                f"--{ignored[0].replace('_', '-')} is for clusters without a config: beside --fname override "
                "its keys with --set, data.window=16 for instance"
            )
        config = load_config(words.fname, words.set, schema_of)
        if not isinstance(config, ExperimentConfig):
            raise ValueError(f"{words.fname}: {config.objective} does not train step by step; name a config that does")
        data = config.data
        if data.mixture or data.balance != "none":
            raise ValueError(f"{words.fname} mixes or balances: what is told here is of one source in its plain order")
        sizes = Shards(data.root, data.split, data.cache).sizes
        return Cluster(sizes, words.ranks, data.batch_size, data.window, data.lanes, config.seed)
    if words.samples is None or words.shards is None or words.batch_size is None:
        raise ValueError("name a config with --fname, or give --samples, --shards and --batch-size")
    if words.shards > words.samples:
        raise ValueError(f"{words.shards:,} shards can't share {words.samples:,} samples: lower --shards")
    lanes = words.lanes or 1
    if words.batch_size % lanes:
        raise ValueError(f"--lanes {lanes} must divide --batch-size {words.batch_size}")
    bounds = np.arange(words.shards + 1) * words.samples // words.shards
    return Cluster(np.diff(bounds).tolist(), words.ranks, words.batch_size, words.window, lanes, words.seed or 0)


def _share(cluster: Cluster, words: argparse.Namespace) -> Iterator[str]:
    """What one rank trains on at a step."""
    if not 0 <= words.rank < cluster.ranks:
        raise ValueError(f"there is no rank {words.rank} of {cluster.ranks}: they are counted from 0")
    positions_P, epochs_P, samples_P = share_of(cluster, words.rank, words.step)
    shards_P = cluster.shards_of(samples_P)
    yield "| position | epoch | sample | shard |\n| ---: | ---: | ---: | ---: |"
    for row in zip(positions_P, epochs_P, samples_P, shards_P, strict=True):
        yield "| " + " | ".join(map(str, row)) + " |"


def _answers(cluster: Cluster, words: argparse.Namespace) -> Iterator[str]:
    """What the order costs and how it mixes, with and without window and lanes."""
    samples = sum(cluster.sizes)
    rank = cluster.ranks // 2
    yield f"{samples:,} samples in {len(cluster.sizes):,} shards, batches of {cluster.batch_size:,}."
    yield f"Rank {rank:,} of {cluster.ranks:,}, {words.steps} steps from step {words.step:,} on."
    plain = replace(cluster, window=None, lanes=1)
    asked = {_name(own): own for own in (cluster, plain)}
    found = {name: ask(own, rank, words.step, words.steps) for name, own in asked.items()}
    yield "\n| | " + " | ".join(found) + " |\n| --- |" + " ---: |" * len(found)
    minute = 60.0 / words.seconds_per_step
    rows: dict[str, Callable[[Answers], str]] = {
        "first batch after a start or a resume, s": lambda answers: f"{answers.first:.2f}",
        "order of each further batch, ms": lambda answers: f"{1000 * answers.next:.1f}",
        "memory of the order, MB": lambda answers: f"{answers.memory / 1e6:.1f}",
        "shards that a rank reads in these steps": lambda answers: f"{answers.shards:,}",
        "of a step's shards not read in the step before": lambda answers: f"{answers.new:.2f}",
        "most samples read from one shard a minute": lambda answers: f"{answers.busiest * minute:,.0f}",
        "most ranks on one shard": lambda answers: f"{answers.readers:,}",
        "pairs of a batch from one shard, full permutation = 1": lambda answers: f"{answers.mates:.2f}",
        "steps between neighbours of a shard, full permutation = 0.333 epochs": lambda answers: f"{answers.apart:.3f}",
    }
    for title, told in rows.items():
        yield f"| {title} | " + " | ".join(map(told, found.values())) + " |"


def _name(cluster: Cluster) -> str:
    window = "all shards" if cluster.window is None else f"window {cluster.window:,}"
    return f"{window}, lanes {cluster.lanes:,}"


def _count(text: str) -> int:
    """A whole number; 1e9 is one."""
    number = float(text)
    if not 1 <= number <= 2**62 or number != int(number):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(number)


def _seconds(text: str) -> float:
    """A positive time."""
    if not 0 < (seconds := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.simulate_order", description=(__doc__ or "").split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--fname", type=Path, help="a config: its shards, batch, window and lanes")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override its keys")
    parser.add_argument("--samples", type=_count, help="of the split; without --fname")
    parser.add_argument("--shards", type=_count, help="of the split, alike in size; without --fname")
    parser.add_argument("--batch-size", type=_count, help="the global one; without --fname")
    parser.add_argument("--window", type=_count, help="data.window; without --fname")
    parser.add_argument("--lanes", type=_count, help="data.lanes; without --fname")
    parser.add_argument("--seed", type=int, help="without --fname")
    parser.add_argument("--ranks", type=_count, required=True)
    parser.add_argument("--rank", type=int, help="tell the samples of this rank at the step")
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--steps", type=_count, default=50, help="that are asked for, one after the other")
    parser.add_argument("--seconds-per-step", type=_seconds, default=1.0, help="for what is told per minute")
    return parser


if __name__ == "__main__":
    sys.exit(main())
