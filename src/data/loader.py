"""Batches by step: what a rank trains on at step n is a function of (seed, n), so a loader can start anywhere.

A sample whose format is broken gives its slot to the next good one of its epoch, which is a function of the data too.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.queues import Queue
from pickle import PicklingError
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from src.config.data import DataConfig
from src.data.activity import Activity
from src.data.ahead import fetched_ahead, thrashing
from src.data.broken import Broken, BrokenSample, BrokenSamples, refuse_too_many
from src.data.hand_over import Handed, HandOver
from src.data.heap import give_back, keep
from src.data.make_plan import make_plan
from src.data.order import batch_positions, deal, micro_batches
from src.data.sample import Sample
from src.data.shards import Shards
from src.data.sources import Sources
from src.data.watch import Watch
from src.distributed.processes import die_with_parent, ignore_signals
from src.distributed.ranks import Ranks
from src.randomness import Streams

TOGETHER = 4096
"""Positions that are looked up at once, of as many steps: the plan takes 0.3 ms for 64 of them and 0.9 ms for 4,096."""
TIDIED = 16
"""Batches after which a process that makes them gives back memory that it does not use."""

Batch = dict[str, Any]
Prepared = Mapping[str, Any]
Prepare = Callable[[Sample, Streams], Prepared]


class Collate(Protocol):
    """Turns samples into a batch of tensors; all randomness comes from the step and the samples' own streams."""

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams, /) -> Batch:
        """The batch of samples as they were read, or as `prepare` made them where there is one.

        Raises:
            ValueError: they do not fit the config, which ends the run.
        """


@runtime_checkable
class Prepares(Protocol):
    """A collate that looks at each sample by itself first, and there decodes what a shard holds encoded.

    One that may or may not has None for `prepare` where it does not, which costs its samples nothing.
    """

    def prepare(self, sample: Sample, streams: Streams) -> Prepared:
        """What the batch needs of a sample; the streams are its slot's, of length 1.

        Raises:
            ValueError: its format is broken, so that another sample takes its slot.
        """


class Loaded(NamedTuple):
    """What a rank gets for a step."""

    batches: list[Batch]
    broken: list[Broken]
    """Samples that have given their slots to others."""


class _Refused:
    """A user's error on its way out of a worker process, which would bury its sentence in a traceback."""

    def __init__(self, message: str) -> None:
        self.message = message


class StepBatches(Dataset[Any]):
    """Item n is what this rank gets for step n."""

    def __init__(self, config: DataConfig, sources: Sources, collate: Collate, ranks: Ranks, seed: int) -> None:
        self.sources, self.collate, self.seed = sources, collate, seed
        self.plan = make_plan(config, sources, seed)
        self.batch_size, self.limit = config.batch_size, config.broken
        self.rank, self.world_size = ranks.rank, ranks.world_size
        self.slices = micro_batches(config.batch_size // ranks.world_size, config.micro_batch_size)
        self.activity = Activity(max(config.workers, 1))
        self._prepare = collate.prepare if isinstance(collate, Prepares) else None
        self._ordered: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def positions(self, step: int) -> NDArray[np.int64]:
        """This rank's positions at a step."""
        return deal(batch_positions(step, self.batch_size), self.rank, self.world_size)

    def order(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the number of each of this rank's samples at a step."""
        steps = max(TOGETHER * self.world_size // self.batch_size, 1)
        first = step - step % steps
        if self._ordered is None or self._ordered[0] != first:
            positions = np.stack([self.positions(other) for other in range(first, first + steps)])
            epochs, samples = self.plan.order(positions.reshape(-1))
            self._ordered = first, epochs.reshape(positions.shape), samples.reshape(positions.shape)
        _, epochs, samples = self._ordered
        return epochs[step - first], samples[step - first]

    def shards_of(self, step: int) -> NDArray[np.int64]:
        """The numbers of the shards with this rank's samples at a step."""
        return self.sources.numbers(self.order(step)[1])

    def __getitem__(self, step: int) -> Loaded | _Refused:
        try:
            loaded = self._load(step)
        except ValueError as error:
            return _Refused(str(error))
        self.activity.note("waiting for work")
        return loaded

    def _load(self, step: int) -> Loaded:
        epochs, samples = self.order(step)
        streams = Streams.of_samples(self.seed, epochs, samples)
        read = self._read(samples, streams)
        broken = self._replace(step, samples, read, streams)
        self.activity.note(f"collating step {step}")
        return Loaded([self._micro_batch(step, read[rows], streams[rows]) for rows in self.slices], broken)

    def _read(self, samples: NDArray[np.int64], streams: Streams) -> list[Any]:
        """What is collated of each sample, its key among it; a BrokenSample in the place of one that is."""
        read = self.sources.read_each(samples, self._reading)
        if self._prepare is None:
            return read
        return [
            sample if isinstance(sample, BrokenSample) else self._prepared(number, sample, streams[slot : slot + 1])
            for slot, (number, sample) in enumerate(zip(samples.tolist(), read, strict=True))
        ]

    def _prepared(self, number: int, sample: Sample, streams: Streams) -> Prepared | BrokenSample:
        assert self._prepare is not None
        key = sample["key"]
        self.activity.note(f"decoding sample {key}")
        try:
            return {**self._prepare(sample, streams), "key": key}
        except ValueError as error:
            shard, place = self.sources.shard_of(number)
            return BrokenSample(shard, key, f"{place}: sample {key}: {error}: build the shards again")

    def _replace(self, step: int, samples: NDArray[np.int64], read: list[Any], streams: Streams) -> list[Broken]:
        """Give the slots of broken samples to others, in place, and tell of all that are broken.

        A slot keeps its streams: the sample that comes in may be in the same batch a second time, and is not its twin.
        """
        broken: dict[int, Broken] = {}
        for slot in [slot for slot, sample in enumerate(read) if isinstance(sample, BrokenSample)]:
            number, tried = int(samples[slot]), set[int]()
            while isinstance(found := read[slot], BrokenSample):
                broken[number] = Broken(step, number, found.shard, found.key, str(found))
                refuse_too_many(list(broken.values()), self.limit)
                tried.add(number)
                number = self.plan.instead(int(self.positions(step)[slot]), len(tried))
                if number in tried:
                    raise ValueError(
                        f"none of the {len(tried):,} samples that could take a slot of step {step} can be used, those"
                        f" of one epoch, source or label, the last of them is this one: {found}"
                    )
                (read[slot],) = self._read(np.array([number]), streams[slot : slot + 1])
        return list(broken.values())

    def _reading(self, shard: str) -> None:
        self.activity.note(f"reading {shard}")

    def _micro_batch(self, step: int, samples: Sequence[Any], streams: Streams) -> Batch:
        return {**self.collate(step, samples, streams), "keys": [sample["key"] for sample in samples]}


class Loader:
    """The batches of one rank, read ahead by `data.workers` processes."""

    def __init__(self, config: DataConfig, shards: Shards | Sources, collate: Collate, ranks: Ranks, seed: int) -> None:
        sources = shards if isinstance(shards, Sources) else Sources(shards)
        self.samples = len(sources)
        """Positions of an epoch: as many as all sources have samples."""
        self.note = thrashing(config, sources, ranks.world_size // ranks.neighbours)
        """What people should know of how the shards are fetched, if anything."""
        self.broken = BrokenSamples(config.broken)
        """Those of the batches that were handed out."""
        self._config, self._sources, self._neighbours = config, sources, ranks.neighbours
        self._workers = config.workers
        self._pin = ranks.device.type == "cuda"
        self._batches = StepBatches(config, sources, collate, ranks, seed)
        basis = self._batches.plan.basis
        self.sha256 = hashlib.sha256(f"{sources.sha256} {basis}".encode()).hexdigest() if basis else sources.sha256
        """Stands for the samples and their order: a run goes on only where it is the same."""
        self.micro_batches = len(self._batches.slices)
        """Of each step, on this rank."""
        self._watch = Watch(self._batches.activity, ranks.rank, config.timeout, alone=config.workers == 0)

    def steps(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The micro-batches of steps start, ..., stop - 1; to be asked for by the main thread.

        Raises:
            ValueError: samples that do not fit, too many broken ones, storage that fails or does not answer, a worker
                that died; named.
        """
        activity, shards_of, steps = self._batches.activity, self._batches.shards_of, range(start, stop)
        activity.clear()
        batches = self._begin(steps)
        ahead = fetched_ahead(self._config, self._sources, shards_of, steps, self._neighbours)
        try:
            with self._watch.on_duty(), ahead as reach:
                for step in steps:
                    reach(step)
                    with self._watch.waiting(step):
                        loaded = next(batches)
                    if isinstance(loaded, Handed):
                        loaded = loaded.open()
                    if isinstance(loaded, _Refused):
                        raise ValueError(loaded.message)
                    self.broken.add(loaded.broken)
                    yield loaded.batches
                    del loaded  # a batch that its user has dropped leaves its memory to the next
        except Exception:
            activity.kill()  # torch would wait seconds for those that are stuck
            raise

    def _begin(self, steps: range) -> Iterator[Loaded | Handed | _Refused]:
        assert hasattr(signal_handling, "_SIGCHLD_handler_set"), "torch keeps this elsewhere"
        signal_handling._SIGCHLD_handler_set = True  # its own would raise in the middle of a training step, or here
        own: dict[str, Any] = {"collate_fn": _Tidy(None)}
        if self._workers:
            hand_over = HandOver(self._workers)
            start = partial(_start_worker, os.getpid(), self._batches.activity, hand_over)
            own = {"worker_init_fn": start, "collate_fn": _Tidy(hand_over), "multiprocessing_context": "fork"}
        else:
            keep()
        batches = iter(
            DataLoader(
                self._batches, batch_size=None, sampler=steps, num_workers=self._workers, pin_memory=self._pin, **own
            )
        )
        if self._workers:
            self._batches.activity.expect([worker.pid for worker in vars(batches)["_workers"]])
        return batches


class _Tidy:
    """What becomes of a step's batches where they were made: a worker hands them over, a rank has them."""

    def __init__(self, hand_over: HandOver | None) -> None:
        self._hand_over = hand_over
        self._made = 0

    def __call__(self, loaded: Loaded | _Refused) -> Loaded | Handed | _Refused:
        self._made += 1
        if self._made % TIDIED == 0:
            give_back()
        if self._hand_over is None or isinstance(loaded, _Refused):
            return loaded
        if self._made % TIDIED == 0:
            self._hand_over.give_back()
        try:
            return self._hand_over.pack(loaded)
        except (PicklingError, AttributeError, TypeError) as error:
            return _Refused(
                f"a batch can't be handed from a loader worker to its rank ({error}): let its collate give tensors,"
                " arrays, numbers and texts"
            )


def _start_worker(rank_process: int, activity: Activity, hand_over: HandOver, number: int) -> None:
    die_with_parent(rank_process)
    ignore_signals()
    keep()
    gc.freeze()  # what the rank has left behind is not the worker's to tidy up: its pages stay shared
    if "cv2" in sys.modules:  # whose threads would be as many as cores in each worker
        sys.modules["cv2"].setNumThreads(0)
    assert hasattr(Queue, "_on_queue_feeder_error"), "the standard library's queues have no such method any more"
    leave = staticmethod(partial(_leave, activity))
    Queue._on_queue_feeder_error = leave  # its own prints, and drops the batch
    hand_over.fill(number)
    activity.begin(number)


def _leave(activity: Activity, error: BaseException, _: object) -> None:
    """End a worker whose batch can't be handed over: its rank would wait for it until data.timeout."""
    traceback.print_exception(error)
    sys.stderr.flush()
    activity.note(f"handing over a batch ({type(error).__name__}: {error})")
    os._exit(1)
