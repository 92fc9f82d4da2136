"""Which sample stands at which position of the endless global sequence, and which rank takes it: plain functions.

Position p lies in epoch p // n at place p % n, and each epoch is a keyed permutation of the n samples. So a killed run
needs nothing but its step.

Over all samples such an order reads everywhere at once. For storage at scale `window` permutes the shards and shuffles
the samples of so many of them together, one window after the other, and `lanes` lets each part of a batch walk through
a range of the epoch that is its own: a rank then reads few shards at a time, and others than its neighbours.
"""

# P positions, S shards, L lanes

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from src.data.permutation import permute, unpermute
from src.randomness import derive_seed

Shuffle = Callable[[int, int, NDArray[np.int64]], NDArray[np.int64]]
EPOCHS_KEPT = 2
"""Orders of shards that are kept: a batch may span two epochs."""


class Order:
    """The endless sequence of a split's samples: every epoch holds each of them once, in an order of its own.

    `sizes` are the samples of each shard; `window` shards are shuffled together, None for all. `lanes` divides the
    global `batch_size`. Memory and the first question of an epoch grow with the shards, never with the samples.
    """

    basis = ""

    def __init__(
        self, seed: int, sizes: Sequence[int], window: int | None = None, lanes: int = 1, batch_size: int = 1
    ) -> None:
        assert lanes >= 1 and batch_size % lanes == 0, (lanes, batch_size)
        self.seed, self.lanes, self.batch_size = seed, lanes, batch_size
        self._sizes_S = np.asarray(sizes, np.int64)
        self.samples = int(self._sizes_S.sum())
        """Of an epoch."""
        self._window = None if window is None or window >= len(self._sizes_S) else window
        self._shuffled: OrderedDict[int, _ShuffledShards] = OrderedDict()

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the (global) sample number at each position; positions may span epochs."""
        epochs_P, places_P = self.places(positions_P)
        return epochs_P, self.samples_at(epochs_P, places_P)

    def instead(self, position: int, places: int) -> int:
        """The sample so many places behind that of a position in its epoch; behind the epoch's last comes its first."""
        epochs_P, places_P = self.places(np.array([position], np.int64))
        return int(self.samples_at(epochs_P, (places_P + places) % self.samples)[0])

    def places(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the place in it, 0 .. samples - 1, at each position."""
        positions_P = np.asarray(positions_P, np.int64)
        epochs_P, places_P = np.divmod(positions_P, self.samples)
        if self.lanes == 1:
            return epochs_P, places_P
        return epochs_P, _lane_places(positions_P, epochs_P * self.samples, self.samples, self.lanes, self.batch_size)

    def samples_at(self, epochs_P: NDArray[np.int64], places_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The (global) sample numbers at places of epochs."""
        samples_P = np.empty_like(places_P)
        for epoch in np.unique(epochs_P).tolist():
            here = epochs_P == epoch
            if self._window is None:
                samples_P[here] = permute(derive_seed(self.seed, "order", epoch), self.samples, places_P[here])
            else:
                samples_P[here] = self._shards(epoch, self._window).order(places_P[here])
        return samples_P

    def positions(self, epoch: int, samples_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """At which positions samples stand in an epoch: the inverse of `order`."""
        key = derive_seed(self.seed, "order", epoch)
        if self._window is None:
            places_P = unpermute(key, self.samples, samples_P)
        else:
            places_P = self._shards(epoch, self._window).places(np.asarray(samples_P, np.int64))
        if self.lanes == 1:
            return places_P + epoch * self.samples
        return _positions_of_lanes(places_P, epoch * self.samples, self.samples, self.lanes, self.batch_size)

    def _shards(self, epoch: int, window: int) -> _ShuffledShards:
        if epoch not in self._shuffled:
            while len(self._shuffled) >= EPOCHS_KEPT:
                self._shuffled.popitem(last=False)
            self._shuffled[epoch] = _ShuffledShards(derive_seed(self.seed, "order", epoch), self._sizes_S, window)
        return self._shuffled[epoch]


def _lane_places(
    positions_P: NDArray[np.int64], starts_P: NDArray[np.int64], samples: int, lanes: int, batch_size: int
) -> NDArray[np.int64]:
    """The place in its epoch of each position, where epochs start at positions `starts_P`.

    Slots of a batch belong to lanes, b = batch_size / lanes each. A lane's places are contiguous: as many as the epoch
    has positions in its slots, which are the same for all lanes but for b at most.
    """
    own = batch_size // lanes
    lanes_P = positions_P % batch_size // own

    def of_lane(bounds_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions below a bound in the slots of the lane."""
        whole_P, rest_P = np.divmod(bounds_P, batch_size)
        return whole_P * own + np.clip(rest_P - lanes_P * own, 0, own)

    def of_lanes_before(bounds_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions below a bound in the slots of all lanes before it."""
        whole_P, rest_P = np.divmod(bounds_P, batch_size)
        return whole_P * own * lanes_P + np.minimum(rest_P, lanes_P * own)

    first_P = of_lanes_before(starts_P + samples) - of_lanes_before(starts_P)
    return first_P + of_lane(positions_P) - of_lane(starts_P)


def _positions_of_lanes(
    places_P: NDArray[np.int64], start: int, samples: int, lanes: int, batch_size: int
) -> NDArray[np.int64]:
    """The positions of places in the epoch that starts at position `start`: the inverse of `_lane_places`."""
    own, lanes_L = batch_size // lanes, np.arange(lanes)

    def below(bound: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions below a bound in the slots of each lane, and of all lanes before it."""
        whole, rest = divmod(bound, batch_size)
        return whole * own + np.clip(rest - lanes_L * own, 0, own), whole * own * lanes_L + np.minimum(
            rest, lanes_L * own
        )

    (before_L, first_L), (_, last_L) = below(start), below(start + samples)
    lanes_P = np.searchsorted(last_L - first_L, places_P, side="right") - 1
    turns_P = places_P - (last_L - first_L)[lanes_P] + before_L[lanes_P]
    return turns_P // own * batch_size + lanes_P * own + turns_P % own


class _ShuffledShards:
    """An epoch in windows: shards in an order of their own, the samples of `window` of them shuffled together."""

    def __init__(self, key: int, sizes_S: NDArray[np.int64], window: int) -> None:
        self._key = key
        self._shards_S = permute(derive_seed(key, "shards"), len(sizes_S), np.arange(len(sizes_S)))
        self._ends_by_number_S = np.cumsum(sizes_S)
        sizes_S, starts_S = sizes_S[self._shards_S], (self._ends_by_number_S - sizes_S)[self._shards_S]
        self._shifts_S = starts_S - (np.cumsum(sizes_S) - sizes_S)
        self._ends_S = np.cumsum(sizes_S)
        """Places behind each shard."""
        self._ends = self._ends_S[[*range(window - 1, len(sizes_S) - 1, window), -1]]
        """Places behind each window."""

    def order(self, places_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sample at each place of the epoch."""
        shuffled_P = self._in_windows(permute, places_P)
        return shuffled_P + self._shifts_S[np.searchsorted(self._ends_S, shuffled_P, side="right")]

    def places(self, samples_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each sample."""
        rank_S = np.argsort(self._shards_S)
        shards_P = np.searchsorted(self._ends_by_number_S, samples_P, side="right")
        return self._in_windows(unpermute, samples_P - self._shifts_S[rank_S[shards_P]])

    def _in_windows(self, shuffle: Shuffle, places_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each place sent to another of its window."""
        windows_P = np.searchsorted(self._ends, places_P, side="right")
        shuffled_P = np.empty_like(places_P)
        for number in np.unique(windows_P).tolist():
            here = windows_P == number
            start = int(self._ends[number - 1]) if number else 0
            size = int(self._ends[number]) - start
            shuffled_P[here] = start + shuffle(derive_seed(self._key, "window", number), size, places_P[here] - start)
        return shuffled_P


def batch_positions(step: int, batch_size: int) -> NDArray[np.int64]:
    """The positions of step's global batch: [step * batch_size, (step + 1) * batch_size)."""
    return np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)


def deal(positions_P: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """A rank's contiguous share of a global batch; ValueError where the ranks' shares can't be equal."""
    assert 0 <= rank < world_size, (rank, world_size)
    share, rest = divmod(len(positions_P), world_size)
    if rest or share == 0:
        raise ValueError(
            f"data.batch_size {len(positions_P)} is the global batch and can't be shared equally by {world_size} ranks:"
            f" set it to a multiple of {world_size}"
        )
    return positions_P[rank * share : (rank + 1) * share]


def micro_batches(share: int, micro_batch_size: int | None) -> list[slice]:
    """A rank's share cut into ceil(share / micro_batch_size) slices whose sizes differ by at most one.

    Near-equal, since 9 + 8 takes less memory at its peak than 16 + 1 and no slice starves a BatchNorm.
    """
    count = 1 if micro_batch_size is None else -(-share // micro_batch_size)
    bounds = [index * share // count for index in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
