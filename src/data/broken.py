"""Samples whose format is broken: what is told of one, and the list of those that a run has met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from src.distributed.ranks import gather_objects, sum_over_ranks

NAMED = 3
"""Broken samples that the sentence names which ends a run."""


class BrokenSample(ValueError):
    """One sample that can't be used whoever reads it, while others of its shard can; the message is one sentence."""

    def __init__(self, shard: str, key: str, sentence: str) -> None:
        super().__init__(sentence)
        self.shard, self.key = shard, key


class Broken(NamedTuple):
    """A broken sample as a run remembers it."""

    step: int
    """The first whose batch it was meant for."""
    sample: int
    """Its number in the run's shards, which tells it from all others."""
    shard: str
    key: str
    sentence: str


class BrokenSamples:
    """The different broken samples that a run has met; at most `limit` of them are skipped.

    A rank adds those of its own batches; `share` makes one list of all ranks', the same on any number of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shared: dict[int, Broken] = {}
        self._own: dict[int, Broken] = {}

    def __len__(self) -> int:
        return len(self._shared)

    def add(self, found: Iterable[Broken]) -> None:
        """Take in what this rank has found.

        Raises:
            ValueError: this rank alone knows of too many.
        """
        for broken in found:
            if broken.sample not in self._shared:
                self._own.setdefault(broken.sample, broken)
        refuse_too_many([*self._shared.values(), *self._own.values()], self._limit)

    def share(self) -> list[Broken]:
        """What is new on any rank, in the order of steps; called by all ranks together."""
        if not sum_over_ranks(torch.tensor([len(self._own)])).item():
            return []
        new: dict[int, Broken] = {}
        for broken in sorted(broken for own in gather_objects(list(self._own.values())) for broken in own):
            if broken.sample not in self._shared:
                new.setdefault(broken.sample, broken)
        self._own = {}
        self._shared |= new
        return list(new.values())

    def check(self) -> None:
        """Raises ValueError where all ranks together have met too many."""
        refuse_too_many(list(self._shared.values()), self._limit)

    def state(self) -> list[dict[str, Any]]:
        """What is shared, as JSON."""
        return [broken._asdict() for broken in self._shared.values()]

    def load(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Continue from a checkpoint."""
        self._shared = {record["sample"]: Broken(**record) for record in state}


def refuse_too_many(broken: list[Broken], limit: int) -> None:
    """Raises ValueError where there are more than `limit`; names the last ones."""
    if len(broken) <= limit:
        return
    last = "; ".join(found.sentence for found in broken[-NAMED:])
    count = "1 broken sample" if len(broken) == 1 else f"{len(broken)} different broken samples"
    raise ValueError(
        f"{count} and data.broken allows {limit}: repair the shards or raise data.broken; the last: {last}"
    )
