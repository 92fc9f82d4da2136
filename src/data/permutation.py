"""A keyed permutation of 0 .. n - 1, computed for the places that are asked for and never stored, and its inverse.

A Feistel network over the smallest domain 4^h >= n, walked until it lands below n again (Black & Rogaway, CT-RSA 2002).
That costs 0.2 us a place and no memory, where a shuffled list of 10^9 samples takes 8 GB in every worker.
"""

# P places

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from src.randomness import GOLDEN, mix

ROUNDS = 10
"""Rounds of the Feistel network: over 400,000 keys the n! orders of n = 5 .. 8 are uneven at 8 rounds (chi-square per
degree of freedom 2.5, 1.3, 1.06, 1.08) and even at 10 (1.07, 1.04, 1.00, 1.00)."""


Step = Callable[[NDArray[np.uint64], int, NDArray[np.uint64]], NDArray[np.uint64]]


def permute(key: int, n: int, positions_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the permutation of 0 .. n - 1 that belongs to `key` sends each position; a bijection for every n >= 1.

    Memory is proportional to the positions asked for; n may be up to 2^62.
    """
    return _walk(_feistel, key, n, positions_P)


def unpermute(key: int, n: int, images_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which positions `permute` sends to these."""
    return _walk(_feistel_back, key, n, images_P)


def _walk(step: Step, key: int, n: int, values_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps of a bijection on 0 .. 4^h - 1 until all are below n."""
    assert 1 <= n <= 2**62, n
    values_P = np.asarray(values_P, np.int64)
    assert values_P.size == 0 or (values_P.min() >= 0 and values_P.max() < n), "position outside the epoch"
    if n == 1:
        return np.zeros_like(values_P)
    half_bits = ((n - 1).bit_length() + 1) // 2
    round_keys = mix(np.full(ROUNDS, key, np.uint64) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN)
    values = step(round_keys, half_bits, values_P.astype(np.uint64))
    while (outside := np.flatnonzero(values >= np.uint64(n))).size:
        values[outside] = step(round_keys, half_bits, values[outside])
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


def _feistel_back(round_keys: NDArray[np.uint64], half_bits: int, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits, drop = np.uint64(half_bits), np.uint64(64 - half_bits)
    left, right = values >> bits, values & ((np.uint64(1) << bits) - np.uint64(1))
    for round_key in round_keys[::-1]:
        left, right = right ^ (mix(left + round_key) >> drop), left
    values = (left << bits) | right
    return np.where(values < np.uint64(2), values ^ (round_keys[0] >> np.uint64(63)), values)
