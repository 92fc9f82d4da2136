"""What the order of a cluster that does not exist asks of its ranks and of its storage.

Nothing is read: order and deal are plain functions, which are asked here as each rank would ask them.
"""

# P positions, S shards, R ranks

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.data.order import Order, batch_positions, deal
from src.randomness import Streams

PROBES = 20_000
"""Samples of which the way to their neighbours is measured."""


@dataclass(frozen=True)
class Cluster:
    """Ranks, and the shards that they read."""

    sizes: Sequence[int]
    """Samples of each shard."""
    ranks: int
    batch_size: int
    """Global."""
    window: int | None
    lanes: int
    seed: int = 0

    def order(self) -> Order:
        """The order that each rank works out for itself."""
        return Order(self.seed, self.sizes, self.window, self.lanes, self.batch_size)

    def shards_of(self, samples_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The shard of each sample."""
        return np.searchsorted(np.cumsum(self.sizes), samples_P, side="right")


@dataclass(frozen=True)
class Answers:
    """What one rank needs, and how well the order mixes."""

    first: float
    """Seconds to the samples of the first batch after a start at the step: what a resume costs."""
    next: float
    """Seconds to those of each further batch."""
    memory: int
    """Bytes at the most that a rank's order takes."""
    shards: int
    """Shards that a rank reads in the steps."""
    new: float
    """How many of a step's it has not read in the step before."""
    mates: float
    """Pairs of a batch that come from one shard, as a multiple of what a full permutation gives."""
    apart: float
    """Steps between two samples that are neighbours in a shard, as a share of the epoch: 1/3 in a full permutation."""
    busiest: int
    """Samples that are read from a single shard in a step, at the most."""
    readers: int
    """Ranks that read from a single shard in a step, at the most."""


def share_of(cluster: Cluster, rank: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions, epochs and samples of a rank at a step.

    Raises:
        ValueError: the ranks can't share the batch.
    """
    positions_P = deal(batch_positions(step, cluster.batch_size), rank, cluster.ranks)
    return positions_P, *cluster.order().order(positions_P)


def ask(cluster: Cluster, rank: int, step: int, steps: int) -> Answers:
    """The answers for one rank from a step on.

    Raises:
        ValueError: the ranks can't share the batch.
    """
    tracemalloc.start()
    begun = time.perf_counter()
    order = cluster.order()
    shares = [_share(cluster, order, rank, step)]
    first, begun = time.perf_counter() - begun, time.perf_counter()
    shares += [_share(cluster, order, rank, step + number) for number in range(1, steps)]
    further, (_, memory) = (time.perf_counter() - begun) / max(steps - 1, 1), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    read = [set(np.unique(cluster.shards_of(samples_P)).tolist()) for samples_P in shares]
    new = [len(here - before) for before, here in zip(read[:-1], read[1:], strict=True)]
    samples_P = order.order(batch_positions(step, cluster.batch_size))[1]
    return Answers(
        first=first,
        next=further,
        memory=memory,
        shards=len(set.union(*read)),
        new=float(np.mean(new)) if new else 0.0,
        mates=_mates(cluster, samples_P),
        apart=_apart(cluster, order, step),
        busiest=int(np.bincount(cluster.shards_of(samples_P)).max()),
        readers=_readers(cluster, samples_P),
    )


def _share(cluster: Cluster, order: Order, rank: int, step: int) -> NDArray[np.int64]:
    return order.order(deal(batch_positions(step, cluster.batch_size), rank, cluster.ranks))[1]


def _mates(cluster: Cluster, samples_P: NDArray[np.int64]) -> float:
    counts_S, sizes_S = np.bincount(cluster.shards_of(samples_P)), np.asarray(cluster.sizes, np.float64)
    found = (counts_S * (counts_S - 1)).sum() / (len(samples_P) * max(len(samples_P) - 1, 1))
    total = sizes_S.sum()
    return float(found / ((sizes_S * (sizes_S - 1)).sum() / (total * max(total - 1, 1))))


def _apart(cluster: Cluster, order: Order, step: int) -> float:
    """The mean over samples that are drawn from all."""
    epoch = step * cluster.batch_size // order.samples
    drawn_P = Streams.of_step(cluster.seed, step).integers("neighbours", order.samples - 1, PROBES)[0]
    here_P, next_P = order.positions(epoch, drawn_P), order.positions(epoch, drawn_P + 1)
    one_shard_P = cluster.shards_of(drawn_P) == cluster.shards_of(drawn_P + 1)
    steps_P = np.abs(here_P // cluster.batch_size - next_P // cluster.batch_size)[one_shard_P]
    return float(steps_P.mean() / (order.samples / cluster.batch_size)) if len(steps_P) else 0.0


def _readers(cluster: Cluster, samples_P: NDArray[np.int64]) -> int:
    ranks_P = np.arange(len(samples_P)) // (len(samples_P) // cluster.ranks)
    pairs = np.unique(np.stack([cluster.shards_of(samples_P), ranks_P]), axis=1)
    return int(np.bincount(pairs[0]).max())
