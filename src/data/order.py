"""Which sample stands at which position of the endless global sequence, and which rank takes it: plain functions.

Position p lies in epoch p // n at place p % n, and each epoch is a keyed permutation of the n samples. The permutation
is computed for the positions that are asked for, never stored: a Feistel network over the smallest domain 4^h >= n,
walked until it lands below n again (Black & Rogaway, CT-RSA 2002). That costs 0.2 us a position and no memory,
where a shuffled list of 10^9 samples takes 8 GB in every worker, and a killed run needs nothing but its step.
"""

# P positions

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Order:
    """The endless sequence of a split's samples: every epoch holds each of them once, in an order of its own."""

    seed: int
    samples: int
    """Samples of the split."""

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch and the (global) sample number at each position; positions may span epochs."""
        epochs_P, places_P = np.divmod(np.asarray(positions_P, np.int64), self.samples)
        samples_P = np.empty_like(places_P)
        for epoch in np.unique(epochs_P).tolist():
            here = epochs_P == epoch
            samples_P[here] = permute(derive_seed(self.seed, "order", epoch), self.samples, places_P[here])
        return epochs_P, samples_P


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
