"""How many samples a second the loader gives, beside other ways to the same batches: the verb `data` of benchmark."""

from __future__ import annotations

import argparse
import cProfile
import io
import multiprocessing
import os
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from src.data.shards import Shards
from tools.benchmark_loaders import Bare, Files, Ours, Sequential, WebDataset, tars_of, unpacked
from tools.benchmark_sets import BENCHES, Bench, Whole, opened, public_records

OURS, BARE, WEBDATASET, FILES, SEQUENTIAL = "this loader", "bare loop", "webdataset", "DataLoader of files", "reading"
OF_BARE = 0.9
OF_FILES = 0.9
HOTTEST = 15
"""Functions that a profile shows."""

Rates = Mapping[tuple[str, int], Sequence[float]]
"""Samples a second of each round, by loader and workers."""


def benchmark_data(arguments: argparse.Namespace) -> Iterator[str]:
    """A table for each data set: all loaders one after the other in each round, from a dropped cache and a warm one."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield f"Median samples a second of {arguments.rounds} rounds, each with all loaders; one epoch each, less the first"
    yield "batch, each in a process of its own; a goal that is missed says no. MB/s are of tars; decoding and transform"
    yield "are the same for all."
    for name in arguments.sets:
        with tempfile.TemporaryDirectory(dir=arguments.output, prefix="medssl-data-") as room:
            yield from _of_set(BENCHES[name], Path(room), arguments)


def _of_set(bench: Bench, room: Path, arguments: argparse.Namespace) -> Iterator[str]:
    bench.make(public_records(), room, arguments.records or bench.records)
    shards = opened(room / "shards")
    files = unpacked(tars_of(shards), room / "files")
    os.sync()
    batch = max(1, min(bench.batch, len(shards) // 4))
    bytes_each = sum(tar.stat().st_size for tar in tars_of(shards)) / len(shards)
    passes = _passes(bench, shards, files, batch, arguments.workers)
    cold, warm = _rounds(passes, batch, bytes_each, [room / "shards", files], arguments.rounds)
    yield f"\n**{bench.what}**: {len(shards):,} samples of {bytes_each / 1e3:,.1f} kB in batches of {batch}\n"
    yield from _table(cold, warm, bytes_each)
    yield from _goals({"cold": cold, "warm": warm}, bench)
    if arguments.profile:
        yield from _profile(passes[OURS, 0])


def _passes(
    bench: Bench, shards: Shards, files: Path, batch: int, workers: Sequence[int]
) -> dict[tuple[str, int], Iterable[Any]]:
    whole, modality = Whole(bench.collate(shards)), shards.index.modality
    passes: dict[tuple[str, int], Iterable[Any]] = {
        (SEQUENTIAL, 0): Sequential(tars_of(shards)),
        (BARE, 0): Bare(shards, whole, batch),
    }
    for count in workers:
        passes[OURS, count] = Ours(shards, whole, batch, count)
        passes[WEBDATASET, count] = WebDataset(shards, whole, batch, count)
        passes[FILES, count] = Files(files, modality, whole, batch, count)
    return passes


def _rounds(
    passes: Mapping[tuple[str, int], Iterable[Any]], batch: int, bytes_each: float, folders: Sequence[Path], rounds: int
) -> tuple[Rates, Rates]:
    """Cold and warm rates; a warm pass follows the cold one of the same loader, and rounds begin at another loader."""
    cold, warm = defaultdict(list), defaultdict(list)
    names = list(passes)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            samples_in = partial(_read, bytes_each) if name[0] == SEQUENTIAL else partial(_whole, batch)
            drop_cache(folders)
            cold[name].append(rate_apart(passes[name], samples_in))
            warm[name].append(rate_apart(passes[name], samples_in))
    return cold, warm


def _read(bytes_each: float, size: int) -> float:
    return size / bytes_each


def _whole(batch: int, _: object) -> float:
    return batch


def rate_apart(batches: Iterable[Any], samples_in: Callable[[Any], float]) -> float:
    """As `rate_of`, in a process of its own: none inherits what another one's allocator has kept."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(rate_of(batches, samples_in)))
    process.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        raise ValueError("a pass of a loader has failed: its error is above") from None
    finally:
        process.join()


def rate_of(batches: Iterable[Any], samples_in: Callable[[Any], float]) -> float:
    """Samples a second behind the first batch, whose time is that of starting."""
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    samples = sum(samples_in(batch) for batch in iterator)
    return samples / (time.perf_counter() - start)


def drop_cache(folders: Sequence[Path]) -> None:
    """Have the kernel forget what it has read of the files, which are written out already."""
    for folder in folders:
        for path in folder.iterdir():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _table(cold: Rates, warm: Rates, bytes_each: float) -> Iterator[str]:
    yield "| loader | workers | cold samples/s | lowest to highest | warm samples/s | lowest to highest | warm MB/s |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, workers in sorted(warm):
        columns = []
        for rates in (cold[name, workers], warm[name, workers]):
            columns.append(f"{_shown(statistics.median(rates))} | {_shown(min(rates))} to {_shown(max(rates))}")
        megabytes = statistics.median(warm[name, workers]) * bytes_each / 1e6
        yield f"| {name} | {workers} | {' | '.join(columns)} | {_shown(megabytes)} |"


def _goals(found: Mapping[str, Rates], bench: Bench) -> Iterator[str]:
    """Ratios of medians, where there are workers for them."""
    yield "\n| cache | ratio | is | goal | |\n| --- | --- | ---: | ---: | --- |"
    for cache, rates in found.items():
        medians = {name: statistics.median(of) for name, of in rates.items()}
        alone = {OURS: medians.get((OURS, 0)), BARE: medians[BARE, 0]}
        yield from _goal(cache, f"{OURS} in process / {BARE}", alone[OURS], alone[BARE], OF_BARE)
        with_workers = max(
            (rate for (name, workers), rate in medians.items() if name == OURS and workers), default=None
        )
        for name, goal in ((FILES, OF_FILES), (WEBDATASET, bench.many_times)):
            best = max((rate for (other, _), rate in medians.items() if other == name), default=None)
            yield from _goal(cache, f"{OURS} with workers / best {name}", with_workers, best, goal)


def _goal(cache: str, what: str, ours: float | None, theirs: float | None, goal: float) -> Iterator[str]:
    if ours is not None and theirs is not None:
        yield f"| {cache} | {what} | {ours / theirs:.2f} | {goal} | {'yes' if ours / theirs >= goal else 'no'} |"


def _profile(batches: Iterable[Any]) -> Iterator[str]:
    """Where the time of a warm pass in this process goes."""
    profiler, told = cProfile.Profile(), io.StringIO()
    profiler.runcall(lambda: sum(1 for _ in batches))
    pstats.Stats(profiler, stream=told).strip_dirs().sort_stats("tottime").print_stats(HOTTEST)
    yield f"\n```\n{told.getvalue().strip()}\n```"


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
