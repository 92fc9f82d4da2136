"""Sequences in which labels, or patients, come equally often: closed forms like the plain order."""

# N samples, P positions, Q patients

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from src.data.mixture import Mixture
from src.data.order import Order
from src.data.permutation import permute
from src.randomness import GOLDEN, derive_seed, mix


class _Members:
    """An order of some of the samples, in epochs that no other group has: their draws differ from those of others."""

    basis = ""

    def __init__(self, seed: int, members_N: NDArray[np.int64], group: int, groups: int) -> None:
        self._members_N, self._group, self._groups = members_N, group, groups
        self._order = Order(seed, [len(members_N)])

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs_P, places_P = self._order.order(positions_P)
        return epochs_P * self._groups + self._group, self._members_N[places_P]

    def instead(self, position: int, places: int) -> int:
        return int(self._members_N[self._order.instead(position, places)])


def by_labels(seed: int, groups: Mapping[str, NDArray[np.int64]]) -> Mixture:
    """Each group of samples as often as any other; a sample of several groups comes for each of them.

    What a name stands for may change nothing but the order: seeds are those of the names.
    """
    orders = [
        _Members(derive_seed(seed, "label", name), members_N, number, len(groups))
        for number, (name, members_N) in enumerate(groups.items())
    ]
    basis = hashlib.sha256()
    for name, members_N in groups.items():
        basis.update(f"{name} {len(members_N)} ".encode() + members_N.tobytes())
    return Mixture(seed, orders, [1.0] * len(orders), [0] * len(orders), basis.hexdigest())


class ByPatients:
    """Each patient once in a round, in an order drawn for it, with the next of the patient's samples each time.

    A patient's samples are taken in turn, beginning at one that is drawn, so that each comes once before any again.
    """

    def __init__(self, seed: int, patients_N: NDArray[np.int64]) -> None:
        """`patients_N` are the patients' numbers 0 .. Q - 1, each at least once."""
        self._seed = seed
        self.basis = hashlib.sha256(patients_N.tobytes()).hexdigest()
        self._by_patient_N = np.argsort(patients_N, kind="stable")
        self._counts_Q = np.bincount(patients_N)
        assert self._counts_Q.min() > 0
        self._starts_Q = np.cumsum(self._counts_Q) - self._counts_Q
        keys_Q = np.uint64(derive_seed(seed, "patient")) + np.arange(len(self._counts_Q), dtype=np.uint64) * GOLDEN
        self._first_Q = (mix(keys_Q) % self._counts_Q.astype(np.uint64)).astype(np.int64)

    def order(self, positions_P: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The round and the sample at each position."""
        rounds_P, places_P = np.divmod(np.asarray(positions_P, np.int64), len(self._counts_Q))
        return rounds_P, self._samples(rounds_P, places_P)

    def instead(self, position: int, places: int) -> int:
        """The sample of the patient so many places behind in the round."""
        rounds_P, places_P = np.divmod(np.array([position], np.int64), len(self._counts_Q))
        return int(self._samples(rounds_P, (places_P + places) % len(self._counts_Q))[0])

    def _samples(self, rounds_P: NDArray[np.int64], places_P: NDArray[np.int64]) -> NDArray[np.int64]:
        patients_P = np.empty_like(places_P)
        for number in np.unique(rounds_P).tolist():
            here = rounds_P == number
            key = derive_seed(self._seed, "patients", number)
            patients_P[here] = permute(key, len(self._counts_Q), places_P[here])
        turns_P = (self._first_Q[patients_P] + rounds_P) % self._counts_Q[patients_P]
        return self._by_patient_N[self._starts_Q[patients_P] + turns_P]
