"""Several sequences in one, by weight: the source of a position is a closed form, and each source keeps its own epochs.

Positions are divided into cycles. Each cycle gives every source its share of places, in an order drawn from (seed,
cycle), and a source's places take its own sequence one after the other. So a source runs through its epochs whatever
the others do, and a resumed run needs nothing but its step.
"""

# P positions, K sources, M places of a cycle

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.data.permutation import permute
from src.data.plan import Plan
from src.randomness import derive_seed

CYCLE = 1 << 16
"""Places after which the weights are met exactly, to 1/65,536: the smallest share that a source can have. Working out
a cycle takes 15 ms."""
CYCLES_KEPT = 2
"""A batch may span two."""


class Mixture:
    """Positions dealt to sources; the samples of source k are counted from `offsets[k]`."""

    def __init__(
        self, seed: int, sources: Sequence[Plan], weights: Sequence[float], offsets: Sequence[int], basis: str = ""
    ) -> None:
        assert len(sources) == len(weights) == len(offsets)
        self.basis = basis
        self._seed, self._sources, self._offsets = seed, tuple(sources), tuple(offsets)
        self.counts_K = apportion(weights, CYCLE)
        """Places of each source in a cycle."""
        self._dealt: OrderedDict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = OrderedDict()

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch of its source and the sample at each position."""
        sources_P, own_P = self.deal(positions_P)
        epochs_P, samples_P = np.empty_like(own_P), np.empty_like(own_P)
        for number in np.unique(sources_P).tolist():
            here = sources_P == number
            epochs_P[here], samples_P[here] = self._sources[number].order(own_P[here])
            samples_P[here] += self._offsets[number]
        return epochs_P, samples_P

    def instead(self, position: int, places: int) -> int:
        """The sample so many places behind that of a position in its source's epoch."""
        sources_P, own_P = self.deal(np.array([position], np.int64))
        number = int(sources_P[0])
        return self._sources[number].instead(int(own_P[0]), places) + self._offsets[number]

    def deal(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source of each position, and the position in that source's own sequence."""
        cycles_P, places_P = np.divmod(np.asarray(positions_P, np.int64), CYCLE)
        sources_P, own_P = np.empty_like(places_P), np.empty_like(places_P)
        for cycle in np.unique(cycles_P).tolist():
            here = cycles_P == cycle
            sources_M, turns_M = self._cycle(cycle)
            sources_P[here], own_P[here] = sources_M[places_P[here]], turns_M[places_P[here]]
        return sources_P, own_P + cycles_P * self.counts_K[sources_P]

    def _cycle(self, cycle: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each place of a cycle its source, and how many places of that source come before it."""
        if cycle not in self._dealt:
            while len(self._dealt) >= CYCLES_KEPT:
                self._dealt.popitem(last=False)
            slots_M = permute(derive_seed(self._seed, "mixture", cycle), CYCLE, np.arange(CYCLE))
            ends_K = np.cumsum(self.counts_K)
            sources_M = np.searchsorted(ends_K, slots_M, side="right")
            by_source_M = np.argsort(sources_M, kind="stable")
            turns_M = np.empty(CYCLE, np.int64)
            turns_M[by_source_M] = np.arange(CYCLE) - np.repeat(ends_K - self.counts_K, self.counts_K)
            self._dealt[cycle] = sources_M, turns_M
        return self._dealt[cycle]


def apportion(weights: Sequence[float], places: int) -> NDArray[np.int64]:
    """Places in proportion to weights, by largest remainders (Hamilton), with one at least for each.

    Raises:
        ValueError: more weights than places.
    """
    if len(weights) > places:
        raise ValueError(f"{len(weights):,} sources can't be mixed: {places:,} is the most")
    shares_K = np.asarray(weights, np.float64) / np.sum(weights) * places
    counts_K = np.maximum(np.floor(shares_K).astype(np.int64), 1)
    while (rest := places - int(counts_K.sum())) > 0:
        most = np.argsort(counts_K - shares_K, kind="stable")[:rest]
        counts_K[most] += 1
    while counts_K.sum() > places:  # what the smallest got beyond their shares comes from the others
        counts_K[np.argmax(np.where(counts_K > 1, counts_K - shares_K, -np.inf))] -= 1
    return counts_K
