"""What holds for every augmentation of the pipeline, whatever it does."""

import hashlib
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms import ecg_noise, ecg_time
from src.transforms.show_ecg import AUGMENTATIONS
from tests.transforms.batches import RATES, random_batch, random_records, streams_of, transform_of

CERTAIN = {name: {"probability": 1.0} for name in AUGMENTATIONS}
RAW = {"normalize": "none", "clip": None, "crop": "center"}
HALF = {"wander": {"probability": 0.5}, "noise": {"probability": 0.5}, "lead_mask": {"probability": 0.5}}
BEFORE_THERE_WERE_OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "b65ef737f223c15e42a02364a1d87864b17e42fd0822570913675fb274494894"),
    "center": (
        {"crop": "center", "normalize": "sample", "clip": None},
        "f7a87b5a6c7dcdbe58495bbfe4b98dce1675089da8e69ab5e2da82f6dbb0e307",
    ),
    "everything": (HALF, "c4a7123f1612d7230aaf86cc2857527f004f5d5d5bd78a2446450f40989ff001"),
    "sample": (
        {
            **HALF,
            "normalize": "sample",
            "clip": 2.0,
            "wander": {"probability": 1.0, "amplitude": 0.3, "frequency": 1.0},
        },
        "48a3496c18d9cab513adea4e4e97b40fce4c0181371cdc2bd038ec3a6fbeeb4d",
    ),
    "raw": (
        {**HALF, "normalize": "none", "clip": None, "noise": {"probability": 1.0, "std": 0.05}},
        "9e0ff04352dd99ac904e10035dbe4c664ad6480dce2c20908544ea913810c6e4",
    ),
}
"""Settings, and the SHA-256 of what commit 2bb095f made of them, when wander, noise and lead_mask were all."""


@pytest.mark.parametrize("name", BEFORE_THERE_WERE_OTHERS)
def test_what_was_there_before_keeps_its_bits(name: str) -> None:
    settings, wanted = BEFORE_THERE_WERE_OTHERS[name]
    records = []
    for number in range(8):
        rng, keep_C = np.random.default_rng(number), np.ones(12, np.bool_)
        keep_C[number % 12] = number % 3 > 0
        ecg_CT = (rng.random((12, 300 + 11 * number)) * 2 - 0.8).astype(np.float32)
        records.append({"key": f"r{number}", "ecg": ecg_CT, "lead_keep": keep_C})
    got = transform_of(250, 100.0, **settings)(records, Streams.of_samples(3, np.arange(8) // 4, np.arange(8)))
    assert hashlib.sha256(got.tobytes()).hexdigest() == wanted


def test_the_published_list_is_there_and_off() -> None:
    config = ECGTransformConfig()
    assert len(AUGMENTATIONS) == 16
    assert all(getattr(config, name).probability == 0 for name in AUGMENTATIONS)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_sample_does_not_depend_on_its_batch(name: str, rate: float) -> None:
    records = random_records(8, 300)
    before = [record["ecg"].copy() for record in records]
    run = transform_of(300, rate, **(CERTAIN if name == "all" else {name: {"probability": 0.7}}))
    whole = run(records, streams_of(8))
    assert whole.dtype == np.float32 and whole.shape == (8, 12, 300) and whole.flags.c_contiguous
    for row in range(8):
        np.testing.assert_array_equal(run(records[row : row + 1], streams_of(1, first=row))[0], whole[row])
    np.testing.assert_array_equal(run(records[::-1], streams_of(8)[::-1])[::-1], whole)
    for record, ecg_CT in zip(records, before, strict=True):
        np.testing.assert_array_equal(record["ecg"], ecg_CT)


@pytest.mark.parametrize("normalize", ["dataset", "sample", "none"])
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_nothing_becomes_nan_and_a_missing_lead_is_zero(name: str, normalize: str) -> None:
    records = random_records(12, 100)
    records[1]["ecg"][:] = 0.0
    records[2]["ecg"][:] = 0.7
    settings = CERTAIN if name == "all" else {name: {"probability": 1.0}}
    got = transform_of(100, 500.0, normalize=normalize, **settings)(records, streams_of(12))
    assert np.isfinite(got).all()
    for ecg_CT, record in zip(got, records, strict=True):
        assert (ecg_CT[~record["lead_keep"]] == 0).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_probability_0_hits_none_and_1_all_and_between_its_share(name: str) -> None:
    samples = 1500
    records = [{"key": "k", "ecg": random_batch(1, 40)[0], "lead_keep": np.ones(12, np.bool_)}] * samples
    strength = {"time_out": {"fraction": (0.1, 0.5)}, "lead_mask": {"lead_probability": 1.0}}.get(name, {})
    strength |= {"resized_crop": {"scale": (0.5, 0.9)}}.get(name, {})

    def changed(probability: float) -> int:
        run = transform_of(40, 100.0, **RAW, **{name: {"probability": probability, **strength}})
        return int((run(records, streams_of(samples)) != records[0]["ecg"]).any((1, 2)).sum())

    assert changed(0.0) == 0 and changed(1.0) == samples
    assert stats.binomtest(changed(0.3), samples, 0.3).pvalue > 1e-3


def test_augmentations_are_drawn_apart() -> None:
    """Which samples are hit by one says nothing of which are hit by another, or how strongly."""
    hits = np.stack([streams_of(4000).uniform(f"{name}.hit") for name in AUGMENTATIONS])
    correlation = np.corrcoef(hits)[~np.eye(len(hits), dtype=bool)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_windows_of_a_few_samples_are_no_trouble(length: int) -> None:
    got = transform_of(length, 100.0, **CERTAIN)(random_records(4, length), streams_of(4))
    assert np.isfinite(got).all()


def test_zeros_come_after_normalising_so_that_the_rest_is_as_without_them() -> None:
    records = random_records(6, 200)
    plain = transform_of(200, 100.0, normalize="sample")(records, streams_of(6))
    cut = transform_of(200, 100.0, normalize="sample", time_out={"probability": 1.0})(records, streams_of(6))
    there = cut != 0
    np.testing.assert_array_equal(cut[there], plain[there])


@pytest.mark.parametrize(
    ("settings", "rate", "message"),
    [
        ({"powerline": {"probability": 0.1}}, 99.0, r"data\.transform\.powerline\.frequency = 50 Hz is above half"),
        ({"powerline": {"probability": 0.1, "frequency": 60}}, 100.0, r"powerline\.frequency = 60 Hz.*\(50\.0 Hz\)"),
        ({"baseline_wander": {"probability": 0.1, "cutoff": 4.0}}, 6.0, r"data\.transform\.baseline_wander\.cutoff"),
        ({"baseline_wander": {"probability": 0.1, "cutoff": 0.009}}, 100.0, r"above 0\.01 Hz"),
    ],
)
def test_what_the_rate_cannot_hold_is_refused_where_it_is_on(
    settings: dict[str, Any], rate: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        transform_of(10, rate, **settings)
    transform_of(10, rate, **{name: {**keys, "probability": 0.0} for name, keys in settings.items()})


@pytest.mark.parametrize("leads", [("I", "II", "V1"), ("lead0",) * 12, ("I", "II", "III", "aVR", "aVL", "aVF")])
def test_the_vectorcardiogram_needs_the_standard_leads(leads: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"data\.transform\.vcg needs the twelve standard leads, but data\.leads is"):
        transform_of(10, 100.0, leads, vcg={"probability": 0.1})
    transform_of(10, 100.0, leads)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *[(name, "probability", value) for name in AUGMENTATIONS for value in (-0.1, 1.1)],
        *[("resized_crop", "scale", value) for value in ([0.0, 1.0], [0.9, 0.5], [0.5, 1.1], [0.5])],
        *[("warp", "strength", value) for value in (-0.1, 1.1)],
        *[("warp", "period", value) for value in (0.2, float("inf"))],
        *[("blur", "sigma", value) for value in (0.0, -1.0, float("inf"))],
        *[("sobel", "seconds", value) for value in (0.0, float("nan"))],
        *[("vcg", "angle", value) for value in (-1.0, 181.0)],
        *[("vcg", "scale", value) for value in ([0.0, 1.0], [1.5, 1.0], [1.0, float("inf")])],
        *[("channel_resize", "gain", value) for value in ([-1.0, 1.0], [3.0, 0.33])],
        *[("baseline_wander", "amplitude", value) for value in (-0.1, float("inf"))],
        *[("baseline_wander", "cutoff", value) for value in (0.0, 5.1)],
        *[("baseline_shift", key, -0.1) for key in ("amplitude", "seconds", "rate")],
        *[("electrode_motion", key, -0.1) for key in ("amplitude", "decay", "rate")],
        ("electrode_motion", "amplitude", float("nan")),
        ("electrode_motion", "rate", 21.0),
        ("powerline", "amplitude", -0.1),
        *[("powerline", "frequency", value) for value in (0, 55)],
        *[("powerline", "harmonics", value) for value in (0, 101)],
        *[("time_out", "fraction", value) for value in ([-0.1, 0.5], [0.5, 0.1], [0.5, 1.1])],
    ],
)
def test_a_strength_that_makes_no_sense_is_refused_by_name(name: str, key: str, value: Any) -> None:
    value = tuple(value) if isinstance(value, list) else value
    with pytest.raises(ValidationError, match=rf"{name}\.{key}") as error:
        ECGTransformConfig.model_validate({name: {key: value}})
    assert error.value.error_count() == 1


STRONGEST: dict[str, dict[str, Any]] = {
    "resized_crop": {"scale": (1e-300, 1.0)},
    "warp": {"strength": 1.0, "period": 0.25},
    "blur": {"sigma": 1000.0},
    "sobel": {"seconds": 1000.0},
    "vcg": {"angle": 180.0, "scale": (1e-300, 1000.0)},
    "channel_resize": {"gain": (1e-300, 1000.0)},
    "baseline_wander": {"amplitude": 1000.0, "cutoff": 5.0},
    "baseline_shift": {"amplitude": 1000.0, "seconds": 1000.0, "rate": 20.0},
    "electrode_motion": {"amplitude": 1000.0, "decay": 0.001, "rate": 20.0},
    "powerline": {"amplitude": 1000.0, "harmonics": 100},
    "time_out": {"fraction": (1.0, 1.0)},
    "lead_mask": {"lead_probability": 1.0},
}


@pytest.mark.parametrize("name", [*STRONGEST, "all"])
def test_nothing_becomes_nan_at_the_ends_of_what_is_allowed(name: str) -> None:
    settings = {each: {"probability": 1.0, **STRONGEST[each]} for each in (STRONGEST if name == "all" else [name])}
    got = transform_of(200, 500.0, normalize="sample", clip=None, **settings)(random_records(6, 200), streams_of(6))
    assert np.isfinite(got).all()


TOLD = {
    "warp": ecg_time.warp,
    "blur": ecg_time.blur,
    "sobel": ecg_time.sobel,
    "wander": ecg_noise.add_wander,
    "baseline_wander": ecg_noise.add_baseline_wander,
    "baseline_shift": ecg_noise.add_baseline_shift,
    "electrode_motion": ecg_noise.add_electrode_motion,
    "powerline": ecg_noise.add_powerline,
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", TOLD)
def test_the_pipeline_tells_the_rate_of_the_data(name: str, rate: float) -> None:
    wanted = random_batch(4, 600)
    records = [{"key": "k", "ecg": ecg_CT.copy(), "lead_keep": np.ones(12, np.bool_)} for ecg_CT in wanted]
    run = transform_of(600, rate, **RAW, **{name: {"probability": 1.0}})
    TOLD[name](wanted, getattr(run.config, name), rate, streams_of(4).fork("ecg"))
    np.testing.assert_array_equal(run(records, streams_of(4)), wanted)
