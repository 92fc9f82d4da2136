"""Random numbers as a function of what they are for: no generator, no state, nothing to save or restore.

A draw is addressed by (seed, epoch, sample, name) or (seed, step, name), so that it does not depend on ranks, workers,
batch composition or how often a run was killed. The same address always gives the same numbers: every draw needs a
name of its own. The bits are SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), which passes BigCrush, over hashed keys;
numpy draws for a whole batch at once, where a Generator per sample would cost about 10 us each.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: a bijection on 64-bit integers in which each input bit flips half of the output bits."""
    z = values.copy()
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


@lru_cache(maxsize=4096)
def name_key(name: str) -> int:
    """A 64-bit key of a name, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _fold(keys: NDArray[np.uint64], part: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return mix(mix(keys + GOLDEN) ^ part)


@lru_cache(maxsize=4096)
def derive_seed(*parts: int | str) -> int:
    """One 63-bit seed from several parts, for libraries that want a seed of their own (torch.manual_seed)."""
    keys = np.zeros(1, np.uint64)
    for part in parts:
        keys = _fold(keys, np.array([name_key(part) if isinstance(part, str) else part], np.uint64))
    return int(keys[0] >> np.uint64(1))


class Streams:
    """B independent streams of random numbers, one for each sample of a batch (or one for a step), drawn together."""

    def __init__(self, keys_B: NDArray[np.uint64]) -> None:
        self.keys_B = keys_B

    @classmethod
    def of_samples(cls, seed: int, epochs_B: NDArray[np.int64], samples_B: NDArray[np.int64]) -> Streams:
        """The streams of samples (global numbers) in their epochs."""
        root = np.full(len(samples_B), derive_seed(seed, "sample"), np.uint64)
        return cls(_fold(_fold(root, epochs_B.astype(np.uint64)), samples_B.astype(np.uint64)))

    @classmethod
    def of_step(cls, seed: int, step: int) -> Streams:
        """The single stream of a step, the same on every rank."""
        return cls(np.array([derive_seed(seed, "step", step)], np.uint64))

    def __len__(self) -> int:
        return len(self.keys_B)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Streams:
        return Streams(self.keys_B[rows])

    def fork(self, name: str | int) -> Streams:
        """The streams of a sub-purpose: `streams.fork("mask").uniform("scale")`."""
        part = name_key(name) if isinstance(name, str) else name
        return Streams(_fold(self.keys_B, np.array([part], np.uint64)))

    def _bits(self, name: str, count: int) -> NDArray[np.uint64]:
        counter = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
        return mix(self.fork(name).keys_B[:, None] + counter)

    def uniform(self, name: str, *shape: int) -> NDArray[np.float64]:
        """Uniform on [0, 1), [B, *shape]."""
        if not len(self):  # what no sample of a batch is hit by, the most frequent case
            return np.empty((0, *shape))
        bits = self._bits(name, math.prod(shape))
        return ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(len(self), *shape)

    def normal(self, name: str, *shape: int) -> NDArray[np.float64]:
        """Standard normal by Box-Muller, [B, *shape]."""
        count = math.prod(shape)
        pairs_B2N = self.uniform(name, 2, (count + 1) // 2)
        radius_BN, angle_BN = np.sqrt(-2.0 * np.log1p(-pairs_B2N[:, 0])), 2.0 * np.pi * pairs_B2N[:, 1]
        both_BN = np.concatenate([radius_BN * np.cos(angle_BN), radius_BN * np.sin(angle_BN)], axis=1)
        return both_BN[:, :count].reshape(len(self), *shape)

    def integers(self, name: str, counts_B: NDArray[np.int64] | int, *shape: int) -> NDArray[np.int64]:
        """Uniform integers in 0 .. count - 1 (count >= 1, one for all or one for each sample), [B, *shape]."""
        counts = np.reshape(counts_B, (-1,) + (1,) * len(shape)) if np.ndim(counts_B) else counts_B
        drawn = np.floor(self.uniform(name, *shape) * counts).astype(np.int64)
        return np.minimum(drawn, np.asarray(counts, np.int64) - 1)
