"""Two views of each ECG: drawn apart, each sample by itself, and what the transform makes of its part."""

import numpy as np
import pytest
import torch

from src.config.data import DataConfig
from src.config.pairs import PairsConfig
from src.data.batches.views import ViewBatch
from src.models.config import EncoderConfig
from src.transforms.positives import adjacent, leads_apart
from src.transforms.show_ecg import AUGMENTATIONS
from tests.transforms.batches import random_records, streams_of, transform_of

LENGTH = 80
RECORDS = random_records(9, 170)
"""Of 170, 183, ... 274 samples."""
EVERYTHING = {name: {"probability": 1.0} for name in AUGMENTATIONS if name != "vcg"}
SECOND = {"noise": {"probability": 1.0, "std": 0.3}, "reverse": {"probability": 1.0}}


def batch_of(positives="augmented", transform=None, second=None, **encoder):
    tree = {"root": "", "batch_size": 9, "transform": transform or {}}
    data = DataConfig.model_validate(tree, strict=False)
    pairs = PairsConfig.model_validate({"positives": positives, "second": second}, strict=False)
    preprocessing = transform_of(LENGTH, 500.0, **(transform or {})).preprocessing
    return ViewBatch(data, pairs, EncoderConfig(name="ecg_tiny", length=LENGTH, patch=8, **encoder), preprocessing)


def made(batch, rows=range(9)):
    """A batch of some of the records with their own streams."""
    streams = streams_of(9)[np.array(rows)]
    return batch(0, [RECORDS[row] for row in rows], streams)


def test_views_are_what_the_transform_makes_of_the_record_with_draws_of_their_own():
    found = made(batch_of(transform=EVERYTHING))
    transform = transform_of(LENGTH, 500.0, **EVERYTHING)
    for number, name in enumerate(("first", "second")):
        assert np.array_equal(found[name], transform(RECORDS, streams_of(9).fork(f"view.{number}")))
    assert all(not torch.equal(one, other) for one, other in zip(found["first"], found["second"], strict=True))
    assert set(found) == {"first", "second"}


def test_the_second_view_may_go_through_something_else():
    found = made(batch_of(transform=EVERYTHING, second=SECOND))
    other = transform_of(LENGTH, 500.0, **SECOND)
    assert np.array_equal(found["second"], other(RECORDS, streams_of(9).fork("view.1")))


def test_without_augmentations_adjacent_views_are_the_two_segments():
    found = made(batch_of("adjacent", {"normalize": "none", "clip": None}))
    parts = adjacent(RECORDS, LENGTH, "random", streams_of(9).fork("pairs"))
    for name, part in zip(("first", "second"), parts, strict=True):
        assert np.array_equal(found[name], np.stack([piece["ecg"] for piece in part]))


@pytest.mark.parametrize("normalize", ["dataset", "sample"])
def test_leads_of_one_view_are_zero_in_the_other(normalize):
    found = made(batch_of("leads", {**EVERYTHING, "normalize": normalize, "time_out": {}, "lead_mask": {}}))
    kept = [(found[name] != 0).any(2) for name in ("first", "second")]
    first, _ = leads_apart(RECORDS, LENGTH, "random", streams_of(9).fork("pairs"))
    assert torch.equal(kept[0], torch.from_numpy(np.stack([piece["lead_keep"] for piece in first])))
    assert torch.equal(kept[0] ^ kept[1], torch.from_numpy(np.stack([record["lead_keep"] for record in RECORDS])))


@pytest.mark.parametrize("positives", ["augmented", "adjacent", "leads"])
def test_views_of_a_sample_do_not_depend_on_its_batch(positives):
    batch = batch_of(positives, EVERYTHING, SECOND, drop_path=0.5)
    whole, rows = made(batch), [6, 2]
    part = made(batch, rows)
    assert set(whole) == {"first", "second", "first_branches", "second_branches"}
    assert all(torch.equal(whole[name][rows], values) for name, values in part.items())
    assert not torch.equal(whole["first_branches"], whole["second_branches"])


def test_short_records_are_padded_alike_in_both_views():
    short = {**RECORDS[4], "ecg": RECORDS[4]["ecg"][:, :50]}
    found = batch_of(transform={"short": "pad", **EVERYTHING})(0, [RECORDS[0], short], streams_of(2))
    assert found["keep"].sum(1).tolist() == [LENGTH, 50]
    assert not found["first"][1, :, 50:].any() and not found["second"][1, :, 50:].any()
