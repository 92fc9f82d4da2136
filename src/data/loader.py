"""Batches by step: what a rank trains on at step n is a function of (seed, n), so a loader can start anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from src.config.sections import DataConfig
from src.data.ahead import fetched_ahead, thrashing
from src.data.make_plan import make_plan
from src.data.order import batch_positions, deal, micro_batches
from src.data.sample import Sample
from src.data.shards import Shards
from src.data.sources import Sources
from src.distributed.processes import die_with_parent, ignore_signals
from src.distributed.ranks import Ranks
from src.randomness import Streams

Batch = dict[str, Any]


class Collate(Protocol):
    """Turns samples into a batch of tensors; all randomness comes from the step and the samples' own streams."""

    def __call__(self, step: int, samples: Sequence[Sample], streams: Streams) -> Batch: ...


class _Refused:
    """A user's error on its way out of a worker process, which would bury its sentence in a traceback."""

    def __init__(self, message: str) -> None:
        self.message = message


class StepBatches(Dataset[Any]):
    """Item n is the list of this rank's micro-batches at step n."""

    def __init__(self, config: DataConfig, sources: Sources, collate: Collate, ranks: Ranks, seed: int) -> None:
        self.sources, self.collate, self.seed = sources, collate, seed
        self.plan = make_plan(config, sources, seed)
        self.batch_size = config.batch_size
        self.rank, self.world_size = ranks.rank, ranks.world_size
        self.slices = micro_batches(config.batch_size // ranks.world_size, config.micro_batch_size)

    def order(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the number of each of this rank's samples at a step."""
        return self.plan.order(deal(batch_positions(step, self.batch_size), self.rank, self.world_size))

    def shards_of(self, step: int) -> NDArray[np.int64]:
        """The numbers of the shards with this rank's samples at a step."""
        return self.sources.numbers(self.order(step)[1])

    def __getitem__(self, step: int) -> list[Batch] | _Refused:
        try:
            epochs, samples = self.order(step)
            read = self.sources.read(samples)
            streams = Streams.of_samples(self.seed, epochs, samples)
            return [self._micro_batch(step, read[rows], streams[rows]) for rows in self.slices]
        except ValueError as error:
            return _Refused(str(error))

    def _micro_batch(self, step: int, samples: Sequence[Sample], streams: Streams) -> Batch:
        return {**self.collate(step, samples, streams), "keys": [sample["key"] for sample in samples]}


class Loader:
    """The batches of one rank, read ahead by `data.workers` processes."""

    def __init__(self, config: DataConfig, shards: Shards | Sources, collate: Collate, ranks: Ranks, seed: int) -> None:
        sources = shards if isinstance(shards, Sources) else Sources(shards)
        self.samples = len(sources)
        """Positions of an epoch: as many as all sources have samples."""
        self.sha256 = sources.sha256
        self.note = thrashing(config, sources, ranks.world_size // ranks.neighbours)
        """What people should know of how the shards are fetched, if anything."""
        self._config, self._sources, self._neighbours = config, sources, ranks.neighbours
        self._workers = config.workers
        self._pin = ranks.device.type == "cuda"
        self._batches = StepBatches(config, sources, collate, ranks, seed)

    def steps(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The micro-batches of steps start, ..., stop - 1.

        Raises:
            ValueError: a sample that is damaged or does not fit, named; a storage that can't be read.
        """
        shards_of, steps = self._batches.shards_of, range(start, stop)
        with fetched_ahead(self._config, self._sources, shards_of, steps, self._neighbours) as reach:
            for step, batches in zip(steps, self._steps(start, stop), strict=True):
                reach(step)
                yield batches

    def _steps(self, start: int, stop: int) -> Iterator[list[Batch]]:
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin,
            worker_init_fn=partial(_start_worker, os.getpid()),
        )
        for batches in loader:
            if isinstance(batches, _Refused):
                raise ValueError(batches.message)
            yield batches


def _as_it_is(batches: Any) -> Any:
    return batches


def _start_worker(rank_process: int, number: int) -> None:
    die_with_parent(rank_process)
    ignore_signals()
