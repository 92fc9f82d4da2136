"""Which sample stands at which position of the endless global sequence, and which rank takes it: plain functions.

Position p lies in epoch p // n at place p % n, and each epoch is a keyed permutation of the n samples. The permutation
is computed for the positions that are asked for, never stored: a Feistel network over the smallest domain 4^h >= n,
walked until it lands below n again (Black & Rogaway, CT-RSA 2002). That costs 0.2 us a position and no memory,
where a shuffled list of 10^9 samples takes 8 GB in every worker, and a killed run needs nothing but its step.

Over all samples such an order reads everywhere at once. For storage at scale `window` permutes the shards and shuffles
the samples of so many of them together, one window after the other, and `lanes` lets each part of a batch walk through
a range of the epoch that is its own: a rank then reads few shards at a time, and others than its neighbours.
"""

# P positions, S shards, L lanes

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.randomness import GOLDEN, derive_seed, mix

ROUNDS = 10
"""Rounds of the Feistel network: over 400,000 keys the n! orders of n = 5 .. 8 are uneven at 8 rounds (chi-square per
degree of freedom 2.5, 1.3, 1.06, 1.08) and even at 10 (1.07, 1.04, 1.00, 1.00)."""


def permute(key: int, n: int, positions_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the permutation of 0 .. n - 1 that belongs to `key` sends each position; a bijection for every n >= 1.

    Memory is proportional to the positions asked for; n may be up to 2^62.
    """
    assert 1 <= n <= 2**62, n
    positions = np.asarray(positions_P, np.int64)
    assert positions.size == 0 or (positions.min() >= 0 and positions.max() < n), "position outside the epoch"
    if n == 1:
        return np.zeros_like(positions)
    half_bits = ((n - 1).bit_length() + 1) // 2
    round_keys = mix(np.full(ROUNDS, key, np.uint64) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN)
    values = _feistel(round_keys, half_bits, positions.astype(np.uint64))
    while (outside := np.flatnonzero(values >= np.uint64(n))).size:
        values[outside] = _feistel(round_keys, half_bits, values[outside])
    return values.astype(np.int64)


def _feistel(round_keys: NDArray[np.uint64], half_bits: int, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection on 0 .. 4^half_bits - 1: each round adds a keyed function of one half to the other.

    Such rounds make even permutations only, so that half of all orders could never come up; half of the keys therefore
    swap 0 and 1 first.
    """
    bits, drop = np.uint64(half_bits), np.uint64(64 - half_bits)
    swap = round_keys[0] >> np.uint64(63)
    values = np.where(values < np.uint64(2), values ^ swap, values)
    left, right = values >> bits, values & ((np.uint64(1) << bits) - np.uint64(1))
    for round_key in round_keys:
        left, right = right, left ^ (mix(right + round_key) >> drop)
    return (left << bits) | right


EPOCHS_KEPT = 2
"""Orders of shards that are kept: a batch may span two epochs."""


class Order:
    """The endless sequence of a split's samples: every epoch holds each of them once, in an order of its own.

    `sizes` are the samples of each shard; `window` shards are shuffled together, None for all. `lanes` divides the
    global `batch_size`. Memory and the first question of an epoch grow with the shards, never with the samples.
    """

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


class _ShuffledShards:
    """An epoch in windows: shards in an order of their own, the samples of `window` of them shuffled together."""

    def __init__(self, key: int, sizes_S: NDArray[np.int64], window: int) -> None:
        self._key = key
        self._shards_S = permute(derive_seed(key, "shards"), len(sizes_S), np.arange(len(sizes_S)))
        sizes_S, starts_S = sizes_S[self._shards_S], (np.cumsum(sizes_S) - sizes_S)[self._shards_S]
        self._shifts_S = starts_S - (np.cumsum(sizes_S) - sizes_S)
        self._ends_S = np.cumsum(sizes_S)
        """Places behind each shard."""
        self._ends = self._ends_S[[*range(window - 1, len(sizes_S) - 1, window), -1]]
        """Places behind each window."""

    def order(self, places_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sample at each place of the epoch."""
        windows_P = np.searchsorted(self._ends, places_P, side="right")
        shuffled_P = np.empty_like(places_P)
        for number in np.unique(windows_P).tolist():
            here = windows_P == number
            start = int(self._ends[number - 1]) if number else 0
            size = int(self._ends[number]) - start
            shuffled_P[here] = start + permute(derive_seed(self._key, "window", number), size, places_P[here] - start)
        return shuffled_P + self._shifts_S[np.searchsorted(self._ends_S, shuffled_P, side="right")]


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
