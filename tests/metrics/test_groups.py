"""Every record is in exactly one group; what is missing is a group of its own."""

import numpy as np
import pytest

from src.metrics.groups import group_masks


def sizes(column, edges=None):
    masks = group_masks(column, edges)
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    return {name: int(mask_N.sum()) for name, mask_N in masks.items()}


def test_names_flags_and_few_numbers_are_groups_as_they_are():
    assert sizes(["f", "m", "", None, "f"]) == {"f": 2, "m": 1, "unknown": 2}
    assert sizes([True, False, True]) == {"true": 2, "false": 1}
    assert sizes(np.array([0, 1, 1, 1])) == {"0": 1, "1": 3}
    assert sizes([0.0, 1.0, float("nan")]) == {"0": 1, "1": 1, "unknown": 1}
    assert sizes(["unknown", None]) == {"unknown": 2}


def test_numbers_are_cut_at_quartiles_or_edges():
    ages = [*range(20, 100), float("nan")]
    assert sizes(ages) == {"< 39.75": 20, "39.75 to < 59.5": 20, "59.5 to < 79.25": 20, ">= 79.25": 20, "unknown": 1}
    assert sizes(ages, [40, 65]) == {"< 40": 20, "40 to < 65": 25, ">= 65": 35, "unknown": 1}
    assert sizes([1, 2, 3], [2]) == {"< 2": 1, ">= 2": 2}
    assert sizes([1, 2, 3], [1]) == {">= 1": 3}


def test_nothing_known_is_one_group():
    assert sizes([None, ""]) == {"unknown": 2}


def test_edges_of_names_are_refused():
    with pytest.raises(ValueError, match="edges"):
        group_masks(["f", "m"], [1.0])
