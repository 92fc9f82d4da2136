"""Records of mixed lengths: the length is the step's alone, and padding is padding whatever the augmentations do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from src.config.ecg_transforms import ECGTransformConfig
from src.config.load import ConfigError
from src.data.batches.ecg import ECGBatch
from src.transforms.ecg import ECGTransform
from src.transforms.show_ecg import AUGMENTATIONS
from tests.transforms.batches import random_records, streams_of, transform_of

ROOT = Path(__file__).resolve().parents[3]
LENGTH = 180
RECORDS = random_records(9, 120)
"""Of 120, 133, ... 224 samples."""


def batch_of(length=LENGTH, seed=0, **sections):
    made = transform_of(length, 500.0, **sections)
    return ECGBatch(made.config, made.preprocessing, seed)


def everything(**sections):
    return {name: {"probability": 1.0} for name in AUGMENTATIONS} | sections


@pytest.mark.parametrize("normalize", ["dataset", "sample", "none"])
@pytest.mark.parametrize("name", ["none", "all", *AUGMENTATIONS])
def test_a_short_record_is_what_it_is_alone_with_zeros_behind(name, normalize):
    on = {"none": {}, "all": everything()}.get(name, {name: {"probability": 1.0}})
    sections = {"short": "pad", "normalize": normalize, **on}
    batch = batch_of(**sections)(0, RECORDS, streams_of(9))
    assert batch["ecg"].shape == (9, 12, LENGTH) and batch["keep"].dtype == torch.bool
    for row, record in enumerate(RECORDS):
        own = min(record["ecg"].shape[1], LENGTH)
        assert batch["keep"][row].tolist() == [True] * own + [False] * (LENGTH - own)
        alone = transform_of(own, 500.0, **sections)([record], streams_of(1, row).fork("transform"))[0]
        assert np.array_equal(batch["ecg"][row, :, :own], alone) and not batch["ecg"][row, :, own:].any()


def test_the_samples_own_statistics_are_of_its_signal():
    batch = batch_of(short="pad", normalize="sample", clip=None)(0, RECORDS, streams_of(9))
    for ecg_CT, keep_T, record in zip(batch["ecg"], batch["keep"], RECORDS, strict=True):
        there_CT = ecg_CT[record["lead_keep"]][:, keep_T].double()
        assert torch.allclose(there_CT.mean(1), torch.zeros(len(there_CT)).double(), atol=1e-6)
        assert torch.allclose(there_CT.std(1, correction=0), torch.ones(len(there_CT)).double(), atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_record_of_hardly_any_samples_goes_through_all_of_it(samples):
    record = {**RECORDS[0], "ecg": RECORDS[0]["ecg"][:, :samples]}
    batch = batch_of(**everything(short="pad"))(0, [record, RECORDS[1]], streams_of(2))
    assert torch.isfinite(batch["ecg"]).all() and batch["keep"].sum(1).tolist() == [samples, 133]


def test_an_empty_record_is_refused_where_others_are_padded():
    with pytest.raises(ValueError, match="sample r0 is 0 samples long"):
        batch_of(short="pad")(0, [{**RECORDS[0], "ecg": np.zeros((12, 0), np.float32)}], streams_of(1))


def test_the_length_is_the_steps_alone():
    batch = batch_of(lengths=[40, 80, 120], short="pad")
    for step in range(6):
        whole = batch(step, RECORDS, streams_of(9))
        parts = [batch(step, RECORDS[part], streams_of(9)[part]) for part in (slice(0, 2), slice(2, 9))]
        assert whole["ecg"].shape[2] == batch.length(step)
        assert torch.equal(torch.cat([part["ecg"] for part in parts]), whole["ecg"])


def test_each_length_is_as_likely_and_one_that_stands_twice_twice_as_often():
    steps = range(4000)
    once, twice = batch_of(lengths=[40, 80, 120]), batch_of(lengths=[40, 80, 80])
    drawn = [once.length(step) for step in steps]
    assert stats.chisquare([drawn.count(length) for length in (40, 80, 120)]).pvalue > 1e-3
    share = sum(twice.length(step) == 80 for step in steps)
    assert stats.binomtest(share, len(steps), 2 / 3).pvalue > 1e-3
    again, other = batch_of(lengths=[40, 80, 120]), batch_of(lengths=[40, 80, 120], seed=1)
    assert drawn == [again.length(step) for step in steps] != [other.length(step) for step in steps]


def test_without_lengths_or_padding_it_is_the_transform():
    batch = batch_of(length=100, **everything())(3, RECORDS, streams_of(9))
    made = transform_of(100, 500.0, **everything())
    assert isinstance(made, ECGTransform)
    assert np.array_equal(batch["ecg"], made(RECORDS, streams_of(9).fork("transform"))) and batch["keep"].all()


@pytest.mark.parametrize(
    ("sections", "told"), [({}, "model.encoder.length = 180"), ({"lengths": [200]}, "data.transform.lengths: 200")]
)
def test_a_short_record_is_refused_by_name_and_key(sections, told):
    with pytest.raises(ValueError, match=rf"^sample r0 is 120 samples long, shorter than {told}"):
        batch_of(**sections)(0, RECORDS, streams_of(9))


@pytest.mark.parametrize("section", [{"lengths": [100]}, {"lengths": [100], "short": "pad"}])
def test_jepa_has_one_length(section):
    from main import schema_of
    from src.config import load_config

    words = [f"data.transform.{key}={json.dumps(value)}" for key, value in section.items()]
    with pytest.raises(ConfigError, match="whose encoder has one length, model.encoder.length"):
        load_config(ROOT / "configs/jepa/ecg_debug.yaml", words, schema_of)


def test_no_length_is_no_choice():
    with pytest.raises(ValueError, match="lengths"):
        ECGTransformConfig.model_validate({"lengths": ()})
