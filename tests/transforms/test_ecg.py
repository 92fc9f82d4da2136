from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from src.config.ecg_transforms import ECGTransformConfig, LeadMaskConfig, NoiseConfig, WanderConfig
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.ecg_leads import mask_leads
from src.transforms.ecg_noise import add_noise, add_wander
from src.transforms.ecg_time import crop
from src.transforms.preprocessing import Preprocessing, normalize, sample_statistics

LEADS, RATE = 12, 100.0


def streams(batch: int, first: int = 0) -> Streams:
    return Streams.of_samples(0, np.zeros(batch, np.int64), np.arange(first, first + batch))


def records(batch: int, length: int = 500) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [sample(rng.normal(0.1, 0.3, (LEADS, length + 7 * i)), key=f"r{i}") for i in range(batch)]


def sample(ecg_CT: np.ndarray, key: str = "k", missing: tuple[int, ...] = ()) -> dict[str, Any]:
    keep_C = np.ones(len(ecg_CT), np.bool_)
    keep_C[list(missing)] = False
    return {"key": key, "ecg": ecg_CT.astype(np.float32), "lead_keep": keep_C}


def transform(length: int = 500, mean: float = 0.0, std: float = 1.0, **settings: Any) -> ECGTransform:
    config = ECGTransformConfig(**settings)
    statistics = {"mean": (mean,) * LEADS, "std": (std,) * LEADS}
    names = tuple(f"lead{number}" for number in range(LEADS))
    return ECGTransform(
        config,
        Preprocessing(
            leads=names, sampling_rate=RATE, length=length, normalize=config.normalize, clip=config.clip, **statistics
        ),
    )


EVERYTHING = {
    "wander": WanderConfig(probability=0.5),
    "noise": NoiseConfig(probability=0.5),
    "lead_mask": LeadMaskConfig(probability=0.5),
}


def test_a_sample_does_not_depend_on_its_batch_and_the_records_stay_as_they_are() -> None:
    samples = records(16)
    before = [sample["ecg"].copy() for sample in samples]
    run = transform(**EVERYTHING)
    whole = run(samples, streams(16))
    assert whole.shape == (16, LEADS, 500) and whole.dtype == np.float32 and whole.flags.c_contiguous
    for row in (0, 7, 15):
        np.testing.assert_array_equal(run(samples[row : row + 1], streams(1, first=row))[0], whole[row])
    for sample, ecg in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample["ecg"], ecg)


def test_without_augmentations_only_crop_normalise_and_clip_remain() -> None:
    samples = records(3, length=520)
    got = transform(length=500, mean=0.1, std=0.1, crop="center")(samples, streams(3))
    for ecg_CT, sample in zip(got, samples, strict=True):
        start = (sample["ecg"].shape[1] - 500) // 2
        wanted = np.clip((sample["ecg"][:, start : start + 500] - 0.1) / 0.1, -5, 5)
        np.testing.assert_allclose(ecg_CT, wanted, rtol=1e-4, atol=1e-5)
        assert np.abs(ecg_CT).max() == 5.0


def test_random_crops_start_everywhere_and_at_the_last_place_too() -> None:
    record = np.arange(30, dtype=np.float32)[None]
    starts = crop([record] * 4000, 20, "random", streams(4000))[:, 0, 0].astype(int)
    assert set(starts) == set(range(11))
    assert stats.chisquare(np.bincount(starts)).pvalue > 1e-3


def test_a_record_of_the_models_length_is_taken_whole() -> None:
    sample = records(1)[0]
    got = transform(normalize="none", clip=None)([sample], streams(1))
    np.testing.assert_array_equal(got[0], sample["ecg"])


@pytest.mark.parametrize(
    ("ecg", "message"),
    [
        (np.zeros((LEADS, 499), np.float32), "sample bad is 499 samples long.*model.encoder.length = 500"),
        (np.full((LEADS, 500), np.nan, np.float32), "sample bad: its ecg holds NaN"),
        (np.full((LEADS, 900), np.inf, np.float32), "sample bad: its ecg holds NaN or infinite"),
        (np.zeros((8, 500), np.float32), r"sample bad: its ecg has shape \(8, 500\), but the data has 12 leads"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(ecg: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform()([*records(2), {"key": "bad", "ecg": ecg}], streams(3))


def test_nan_outside_of_the_crop_is_refused_too() -> None:
    sample = records(1, length=600)[0]
    sample["ecg"][3, 0] = np.nan
    with pytest.raises(ValueError, match="sample r0"):
        transform(crop="center")([sample], streams(1))


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_wander_is_one_slow_sine_at_the_true_sampling_rate(rate: float) -> None:
    batch, seconds = 40, 100
    ecg_BCT = np.zeros((batch, LEADS, int(seconds * rate)), np.float32)
    add_wander(ecg_BCT, WanderConfig(probability=1.0, amplitude=0.1, frequency=0.5), rate, streams(batch))
    spectrum = np.abs(np.fft.rfft(ecg_BCT, axis=2))
    hz = np.fft.rfftfreq(ecg_BCT.shape[2], 1 / rate)[spectrum.argmax(2)]
    assert (hz == hz[:, :1]).all()
    assert stats.kstest(hz[:, 0], stats.uniform(0.05, 0.45).cdf).pvalue > 1e-3
    largest = np.abs(ecg_BCT).max(2)
    assert largest.max() <= 0.1
    assert stats.kstest(largest.reshape(-1), stats.uniform(0, 0.1).cdf).pvalue > 1e-3


def test_wander_outside_of_what_the_rate_can_hold_is_refused() -> None:
    for frequency in (0.05, 51.0):
        with pytest.raises(ValueError, match=r"data\.transform\.wander\.frequency"):
            transform(wander=WanderConfig(frequency=frequency))


def test_noise_is_white_with_the_given_deviation_in_millivolts() -> None:
    ecg_BCT = np.zeros((20, LEADS, 400), np.float32)
    add_noise(ecg_BCT, NoiseConfig(probability=1.0, std=0.02), streams(20))
    assert stats.kstest(ecg_BCT.reshape(-1), stats.norm(0, 0.02).cdf).pvalue > 1e-3
    power = np.abs(np.fft.rfft(ecg_BCT, axis=2)[:, :, 1:-1]) ** 2
    assert power.mean((0, 1)).std() / power.mean() < 0.1


def test_noise_comes_before_normalising() -> None:
    samples = [sample(np.zeros((LEADS, 500)))]
    noisy = transform(std=0.1, noise=NoiseConfig(probability=1.0, std=0.02))(samples, streams(1))
    assert noisy.std() == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("name", ["wander", "noise", "lead_mask"])
def test_each_transform_has_its_own_probability(name: str) -> None:
    section = {"wander": WanderConfig, "noise": NoiseConfig, "lead_mask": LeadMaskConfig}[name]
    samples = [sample(np.ones((LEADS, 8)))] * 2000
    got = transform(length=8, normalize="none", **{name: section(probability=0.3)})(samples, streams(2000))
    changed = int((got != 1).any((1, 2)).sum())
    assert stats.binomtest(changed, 2000, 0.3).pvalue > 1e-3
    untouched = transform(length=8, normalize="none", **{name: section(probability=0.0)})(samples, streams(2000))
    assert (untouched == 1).all()


def test_a_flat_or_missing_lead_becomes_zero_and_not_nan() -> None:
    ecg_BCT = np.random.default_rng(0).normal(3.0, 2.0, (2, 3, 1000)).astype(np.float32)
    ecg_BCT[:, 1] = 0.1
    normalize(ecg_BCT, *sample_statistics(ecg_BCT))
    assert (ecg_BCT[:, 1] == 0).all()
    np.testing.assert_allclose(ecg_BCT[:, [0, 2]].mean(2), 0, atol=1e-5)
    np.testing.assert_allclose(ecg_BCT[:, [0, 2]].std(2), 1, rtol=1e-5)
    zeros = [sample(np.zeros((LEADS, 500)))]
    assert (transform(std=0.0)(zeros, streams(1)) == 0).all()


def test_leads_are_dropped_apart_and_one_always_stays() -> None:
    ecg_BCT = np.ones((4000, 3, 4), np.float32)
    every = np.ones((4000, 3), np.bool_)
    mask_leads(ecg_BCT, every, LeadMaskConfig(probability=1.0, lead_probability=0.5), streams(4000))
    assert ((ecg_BCT == 0).all(2) | (ecg_BCT == 1).all(2)).all()
    patterns = np.bincount((ecg_BCT[:, :, 0] @ [1, 2, 4]).astype(int), minlength=8)
    assert patterns[0] == 0
    single, other = 1 / 8 + 1 / 24, 1 / 8  # the eighth in which all would go is shared by the three single leads
    expected = 4000 * np.array([single, single, other, single, other, other, other])
    assert stats.chisquare(patterns[1:], expected).pvalue > 1e-3


@pytest.mark.parametrize("there", [range(LEADS), (1, 4, 5)])
def test_with_all_leads_dropped_the_one_that_stays_is_any_that_is_there(there: Sequence[int]) -> None:
    ecg_BCT = np.ones((6000, LEADS, 1), np.float32)
    there_BC = np.zeros((6000, LEADS), np.bool_)
    there_BC[:, list(there)] = True
    mask_leads(ecg_BCT, there_BC, LeadMaskConfig(probability=1.0, lead_probability=1.0), streams(6000))
    assert (ecg_BCT.sum(1) == 1).all()
    stayed_C = ecg_BCT[:, :, 0].sum(0)
    assert stayed_C.sum() == stayed_C[list(there)].sum()
    assert stats.chisquare(stayed_C[list(there)]).pvalue > 1e-3


def test_a_missing_lead_is_zero_whatever_mean_wander_and_noise_make_of_it() -> None:
    rng = np.random.default_rng(1)
    samples = [sample(rng.normal(0.1, 0.3, (LEADS, 500)), missing=(2, 7)) for _ in range(4)]
    run = transform(mean=0.3, std=0.1, wander=WanderConfig(probability=1.0), noise=NoiseConfig(probability=1.0))
    got = run(samples, streams(4))
    assert (got[:, [2, 7]] == 0).all()
    assert (np.delete(got, [2, 7], axis=1) != 0).any(axis=2).all()


def test_leads_are_masked_last_so_that_a_dropped_lead_is_zero() -> None:
    run = transform(mean=1.0, std=0.1, lead_mask=LeadMaskConfig(probability=1.0, lead_probability=1.0))
    got = run(records(5), streams(5))
    assert ((got == 0).all(2).sum(1) == LEADS - 1).all()
