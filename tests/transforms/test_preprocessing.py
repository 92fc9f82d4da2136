"""What an encoder is given at evaluation is what it was trained on, less the randomness."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.preprocessing import Preprocessing

LEADS = ("I", "II", "III", "V1")


def make(length=100, normalize="dataset", clip=2.0, **changes):
    statistics = {"mean": (0.1, -0.2, 0.0, 0.3), "std": (0.5, 0.3, 0.0, 1.1)} if normalize == "dataset" else {}
    settings = {"leads": LEADS, "sampling_rate": 100.0, "length": length, "normalize": normalize, "clip": clip}
    return Preprocessing(**settings | statistics | changes)


def record(samples, seed=0):
    return np.random.default_rng(seed).normal(0.2, 1.0, (len(LEADS), samples)).astype(np.float32)


def positions(samples, length, count):
    """Where windows begin: an ECG that counts its own samples tells."""
    counting = np.tile(np.arange(samples, dtype=np.float32), (len(LEADS), 1))
    windows = make(length).windows(counting, count)
    assert (np.diff(windows, axis=2) == 1).all(), "a window is a piece of the record"
    return windows[:, 0, 0].astype(int)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("samples", [100, 101, 150, 333, 1000])
def test_windows_reach_from_the_first_sample_to_the_last_at_even_distances(samples, count):
    starts = positions(samples, 100, count)
    assert len(starts) == count and starts[0] == 0 and starts[-1] == samples - 100
    gaps = np.diff(starts)
    assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("samples", [100, 101, 199, 200, 201, 333, 1000, 1001])
def test_without_a_count_as_few_windows_as_cover_every_sample(samples):
    starts = positions(samples, 100, None)
    seen = np.zeros(samples, bool)
    for start in starts:
        seen[start : start + 100] = True
    assert len(starts) == -(-samples // 100) and (seen.all() if len(starts) > 1 else samples == 100)
    if samples % 100 == 0:
        assert starts.tolist() == list(range(0, samples, 100))


@pytest.mark.parametrize("samples", [100, 101, 250, 251])
def test_one_window_is_the_middle(samples):
    assert positions(samples, 100, 1).tolist() == [(samples - 100) // 2]


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("normalize", ["dataset", "sample", "none"])
def test_the_middle_window_is_the_center_crop_of_training_bit_for_bit(normalize, clip):
    """With missing and flat leads, and records of odd lengths."""
    preprocessing = make(normalize=normalize, clip=clip)
    config = ECGTransformConfig(crop="center", normalize=normalize, clip=clip)
    assert config.wander.probability == config.noise.probability == config.lead_mask.probability == 0
    samples = []
    for number in range(6):
        ecg_CT, keep_C = record(100 + 33 * number, number), np.ones(len(LEADS), np.bool_)
        ecg_CT[2] = 0.25
        keep_C[[1, 2][: number % 3]] = False
        samples.append({"key": f"r{number}", "ecg": ecg_CT, "lead_keep": keep_C})
    streams = Streams.of_samples(0, np.zeros(6, np.int64), np.arange(6))
    trained = ECGTransform(config, preprocessing)(samples, streams)
    for row, sample in zip(trained, samples, strict=True):
        before = sample["ecg"].copy()
        window = preprocessing.prepare(sample["ecg"], sample["lead_keep"], 1, "it")
        assert window.dtype == np.float32
        np.testing.assert_array_equal(window[0], row)
        np.testing.assert_array_equal(sample["ecg"], before)


@pytest.mark.parametrize("normalize", ["dataset", "sample", "none"])
def test_a_short_record_is_one_padded_window_as_in_training_bit_for_bit(normalize):
    preprocessing = make(normalize=normalize, short="pad")
    config = ECGTransformConfig(crop="center", normalize=normalize, clip=2.0, short="pad")
    keep_C = np.array([True, False, True, True])
    samples = [
        {"key": str(length), "ecg": record(length, length), "lead_keep": keep_C} for length in (1, 37, 99, 100, 160)
    ]
    trained = ECGTransform(config, preprocessing)(samples, Streams.of_samples(0, np.zeros(5, np.int64), np.arange(5)))
    for row, sample in zip(trained, samples, strict=True):
        windows = preprocessing.windows_of(sample, 1)
        assert windows.shape == (1, 4, 100) and windows.dtype == np.float32
        np.testing.assert_array_equal(windows[0], row)
        assert not windows[0, :, sample["ecg"].shape[1] :].any()
    assert {preprocessing.windows_of(samples[1], count).shape for count in (3, None)} == {(1, 4, 100)}
    with pytest.raises(ValueError, match="sample x has 0 samples of each lead; the encoder needs 1 or more"):
        preprocessing.windows(np.zeros((4, 0)), None, "sample x")


def test_what_an_older_export_says_refuses_short_records():
    told = make().model_dump(mode="json")
    del told["short"]
    assert Preprocessing.model_validate_json(json.dumps(told)) == make() and make().short == "refuse"


def test_normalising_by_the_sample_is_by_each_windows_own_values():
    keep = np.ones(len(LEADS), np.bool_)
    windows = make(normalize="sample", clip=None).prepare(record(400), keep, 3, "it")
    np.testing.assert_allclose(windows.mean(2), 0, atol=1e-5)
    np.testing.assert_allclose(windows.std(2), 1, rtol=1e-5)


def test_a_lead_without_a_signal_is_zero_in_every_window():
    keep = np.array([True, False, True, True])
    windows = make().prepare(record(400), keep, 4, "it")
    assert (windows[:, 1] == 0).all() and (windows[:, [0, 2, 3]] != 0).any(axis=(0, 2)).all()
    assert np.abs(windows).max() == 2.0


@pytest.mark.parametrize(
    ("ecg", "message"),
    [
        (np.zeros((4, 99)), "sample x has 99 samples of each lead; the encoder needs 100 or more at 100 Hz"),
        (np.zeros((12, 200)), r"sample x has shape \[12, 200\]; the encoder takes \[4, samples\]"),
        (np.zeros(200), r"sample x has shape \[200\]"),
        (np.full((4, 200), np.nan), "sample x holds NaN or infinite values"),
        (np.full((4, 200), np.inf), "sample x holds NaN or infinite values"),
    ],
)
def test_an_ecg_that_does_not_fit_is_named(ecg, message):
    with pytest.raises(ValueError, match=message):
        make().windows(ecg, 1, "sample x")


@pytest.mark.parametrize("normalize", ["dataset", "sample", "none"])
def test_it_survives_json_bit_for_bit(normalize):
    changes = {"mean": (1 / 3, 0.1, -0.0, 1e-17), "std": (2 / 3, 1e300, 5e-324, 1.0)} if normalize == "dataset" else {}
    before = make(normalize=normalize, clip=None if normalize == "none" else 1 / 7, **changes)
    text = json.dumps(before.model_dump(mode="json"))
    assert Preprocessing.model_validate_json(text) == before


@pytest.mark.parametrize("changes", [{"mean": None}, {"std": (1.0,)}, {"mean": (0.0,) * 5}])
def test_dataset_statistics_are_one_number_for_each_lead(changes):
    with pytest.raises(ValidationError, match="normalize is dataset, but mean and std are not 4 numbers, one a lead"):
        make(**changes)
