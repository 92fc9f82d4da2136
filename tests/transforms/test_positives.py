"""Where two views of an ECG come from: segments that touch, leads that are apart, and each sample by itself."""

import numpy as np
import pytest

from src.transforms.positives import adjacent, leads_apart
from tests.transforms.batches import random_records, streams_of

LENGTH = 60
RECORDS = random_records(40, 150)
"""Of 150, 163, ... 657 samples, every third without one of its leads."""


def place(record, piece):
    """Where a piece begins in its record; the first lead with a signal decides, as no two of its values are equal."""
    lead = record["lead_keep"].argmax()
    (start,) = np.flatnonzero(record["ecg"][lead] == piece["ecg"][lead, 0])
    assert np.array_equal(record["ecg"][:, start : start + LENGTH], piece["ecg"])
    return int(start)


def test_the_second_segment_begins_where_the_first_ends():
    first, second = adjacent(RECORDS, LENGTH, "random", streams_of(40))
    for record, one, other in zip(RECORDS, first, second, strict=True):
        assert place(record, other) == place(record, one) + LENGTH
        assert one["key"] == other["key"] == record["key"]


def test_segments_are_found_anywhere_in_a_record_alike_often():
    record = RECORDS[0]
    first, _ = adjacent([record] * 3100, LENGTH, "random", streams_of(3100))
    counts = np.bincount([place(record, piece) for piece in first], minlength=31)
    assert len(counts) == 31 and abs(counts - 100).max() < 50, "five standard deviations"


def test_in_the_middle_nothing_is_drawn():
    first, _ = adjacent(RECORDS, LENGTH, "center", streams_of(40))
    starts = [(record["ecg"].shape[1] - 2 * LENGTH) // 2 for record in RECORDS]
    assert [place(record, piece) for record, piece in zip(RECORDS, first, strict=True)] == starts


def test_a_record_of_exactly_two_segments_is_taken_and_a_shorter_one_is_named():
    record = {**RECORDS[3], "ecg": RECORDS[3]["ecg"][:, : 2 * LENGTH]}
    first, second = adjacent([record], LENGTH, "random", streams_of(1))
    assert np.array_equal(np.concatenate([first[0]["ecg"], second[0]["ecg"]], axis=1), record["ecg"])
    shorter = {**record, "ecg": record["ecg"][:, 1:]}
    with pytest.raises(ValueError, match="sample r3 is 119 samples long, and pairs.positives adjacent takes two seg"):
        adjacent([RECORDS[0], shorter], LENGTH, "random", streams_of(2))


def test_leads_are_in_one_view_or_the_other_and_the_segment_is_one():
    first, second = leads_apart(RECORDS, LENGTH, "random", streams_of(40))
    for record, one, other in zip(RECORDS, first, second, strict=True):
        assert place(record, one) == place(record, other)
        assert not (one["lead_keep"] & other["lead_keep"]).any()
        assert np.array_equal(one["lead_keep"] | other["lead_keep"], record["lead_keep"])
        assert 0 <= one["lead_keep"].sum() - other["lead_keep"].sum() <= 1


def test_each_lead_is_in_each_view_alike_often():
    first, _ = leads_apart([RECORDS[1]] * 2000, LENGTH, "random", streams_of(2000))
    counts = np.sum([piece["lead_keep"] for piece in first], axis=0)
    assert abs(counts - 1000).max() < 5 * 500**0.5


def test_a_record_of_one_lead_is_named():
    single = {**RECORDS[2], "lead_keep": np.arange(12) == 4}
    with pytest.raises(ValueError, match="sample r2 has a signal in 1 of its leads"):
        leads_apart([RECORDS[0], single], LENGTH, "random", streams_of(2))


@pytest.mark.parametrize("of", [adjacent, leads_apart])
def test_what_a_sample_gets_does_not_depend_on_its_neighbours(of):
    together = of(RECORDS, LENGTH, "random", streams_of(40))
    for row in (0, 7, 39):
        alone = of([RECORDS[row]], LENGTH, "random", streams_of(1, row))
        for view, own in zip(together, alone, strict=True):
            assert np.array_equal(view[row]["ecg"], own[0]["ecg"])
            assert np.array_equal(view[row]["lead_keep"], own[0]["lead_keep"])
