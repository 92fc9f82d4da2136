"""Groups of records by what is known of a patient: sex, age in quartiles, site.

Legend: N records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.metrics.truth import Mask

CATEGORIES = 4  # numbers with at most so many different values are names, such as 0 and 1
UNKNOWN = "unknown"


def group_masks(column: Iterable[Any], edges: Sequence[float] | None = None) -> dict[str, Mask]:
    """The records of each value of a column, {name: [N]}; every record is in exactly one.

    Numbers of more than four different values are cut at their quartiles, or at `edges`, into "< a", "a to < b" and
    ">= b". None, "" and NaN are the group "unknown". Groups without records are left out.

    Raises:
        ValueError: edges for a column that does not hold numbers only.
    """
    values = [value.item() if isinstance(value, np.generic) else value for value in column]
    missing_N = np.array([_missing(value) for value in values], bool)
    present = [value for value, missing in zip(values, missing_N, strict=True) if not missing]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    if edges is not None and not numeric:
        raise ValueError("edges cut numbers, and the column holds other things")
    if numeric and present and (edges is not None or len(set(present)) > CATEGORIES):
        numbers_N = np.array([math.nan if missing else value for value, missing in zip(values, missing_N, strict=True)])
        masks = _cut(numbers_N, np.unique(np.quantile(present, (0.25, 0.5, 0.75)) if edges is None else edges))
    else:
        names_N = np.array([UNKNOWN if _missing(value) else _name(value) for value in values], dtype=str)
        masks = {str(name): (names_N == name) & ~missing_N for name in np.unique(names_N[~missing_N])}
    masks[UNKNOWN] = masks.get(UNKNOWN, False) | missing_N
    return {name: mask_N for name, mask_N in masks.items() if mask_N.any()}


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _name(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(numbers_N: NDArray[np.float64], edges: NDArray[np.float64]) -> dict[str, Mask]:
    """Intervals that hold their lower edge; NaN is in none."""
    names = [f"{edge:g}" for edge in edges]
    masks = {f"< {names[0]}": numbers_N < edges[0]}
    for low, high, first, last in zip(edges[:-1], edges[1:], names[:-1], names[1:], strict=True):
        masks[f"{first} to < {last}"] = (numbers_N >= low) & (numbers_N < high)
    return masks | {f">= {names[-1]}": numbers_N >= edges[-1]}
