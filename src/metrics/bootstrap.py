"""How far a score would move with other patients: percentile intervals over draws of patients.

Patients are drawn, never records: records of one patient are alike, and drawing them apart makes intervals too narrow.
A draw is a row of counts, so a score of a draw is the score with counts as weights and nothing is copied. Two models on
the same patients and seed see the same draws, and their difference over draws is paired.

Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval).

Legend: D draws, N records, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
DEFINED_SHARE = 0.9  # of the draws; a label whose positives are two patients is undefined in 13 % of them, three in 5 %
CHUNK = 2**17  # weights at a time, 1 MB: near a core's own cache. 2**14 takes 1.4 times as long, 2**20 takes 1.5 times


@dataclass(frozen=True)
class Interval:
    """A score and its percentile interval; None for what is undefined."""

    value: float | None
    low: float | None
    high: float | None
    draws: int
    """Draws in which the score is defined."""
    seeds: tuple[float | None, ...] = ()
    """The score of each seed, where `value` is their mean."""


def patient_draws(patients: Sequence[object] | NDArray[Any], draws: int, seed: int) -> NDArray[np.uint8]:
    """How often each record is in each draw of as many patients as there are, with replacement: [D, N].

    A function of the names of the patients and the seed: the order of the records only orders the columns. Counts are
    bytes (no draw of a patient 256 times will be seen, its chance is 1/256!): convert before arithmetic.

    Raises:
        ValueError: no draws, no records, or a record without a patient (None, "" or NaN).
    """
    records_N = _patient_of_record(patients)
    if draws < 1 or not len(records_N):
        raise ValueError(f"{draws} draws of the patients of {len(records_N)} records")
    count = int(records_N.max()) + 1
    generator = np.random.Generator(np.random.PCG64(seed))
    counts_DN = np.empty((draws, len(records_N)), np.uint8)
    step = max(1, 2**20 // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn_DP = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        counts_DP = np.bincount(drawn_DP.ravel(), minlength=rows * count).reshape(rows, count).astype(np.uint8)
        np.take(counts_DP, records_N, axis=1, out=counts_DN[start : start + rows])
    return counts_DN


def count_patients(patients: Sequence[object] | NDArray[Any]) -> int:
    """How many different patients the records are of."""
    return len(np.unique(_patient_of_record(patients)))


def _patient_of_record(patients: Sequence[object] | NDArray[Any]) -> NDArray[np.intp]:
    """Index of each record's patient among the sorted names, [N]; 7 and "7" are one name."""
    names = [str(name) for name in np.asarray(patients, dtype=object).ravel()]
    for record, name in enumerate(names):
        if name in ("", "None", "nan"):
            raise ValueError(f"record {record} has no patient")
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1]


def interval(value: float, values_D: ArrayLike, level: float = LEVEL, seeds: Sequence[float] = ()) -> Interval:
    """Percentile interval of a score over its draws, those left out in which it is undefined (NaN).

    No interval is given (low and high are None) where the score itself is undefined, where it is defined in fewer than
    nine draws of ten, or in so few that a tail of (1 - level) / 2 holds less than one of them (40 at 95 %).
    """
    values_D = np.asarray(values_D, np.float64)
    defined_D = values_D[~np.isnan(values_D)]
    bounds: tuple[float | None, float | None] = (None, None)
    enough = max(DEFINED_SHARE * len(values_D), 2 / (1 - level) - 1e-9)
    if not math.isnan(value) and len(defined_D) >= enough:
        low, high = np.quantile(defined_D, ((1 - level) / 2, (1 + level) / 2))
        bounds = (float(low), float(high))
    return Interval(number(value), *bounds, len(defined_D), tuple(number(seed) for seed in seeds))


def number(value: float) -> float | None:
    """A float that JSON knows: None for one that is not finite."""
    return float(value) if math.isfinite(value) else None


def over_draws(
    statistic: Callable[[Array], Array], weights_DN: NDArray[Any] | None, records: int, cases: int = 0
) -> Array:
    """A statistic of weights [d, N] -> [d, ...], applied to a few draws at a time: [D, ...].

    No weights are one draw with every record once. `cases` is how many weights the statistic makes of a draw where
    these are more than the records.

    Raises:
        ValueError: weights that are not [D, N] with at least one draw.
    """
    if weights_DN is None:
        return statistic(np.ones((1, records)))
    if weights_DN.ndim != 2 or weights_DN.shape[1] != records or not len(weights_DN):
        raise ValueError(f"weights of shape {weights_DN.shape} for {records} records: they are [draws, records]")
    step = max(1, CHUNK // max(1, records, cases))
    starts = range(0, len(weights_DN), step)
    return np.concatenate([statistic(weights_DN[start : start + step].astype(np.float64)) for start in starts])


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)
