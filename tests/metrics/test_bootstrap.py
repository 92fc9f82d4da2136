"""Draws are of whole patients, reproducible and unbiased; intervals are percentiles of what is defined."""

import numpy as np
import pytest

from src.metrics.bootstrap import count_patients, interval, over_draws, patient_draws
from src.metrics.classification import auroc
from tests.metrics import worlds


def test_records_of_a_patient_move_together_and_each_draw_has_as_many_patients_as_there_are():
    names = np.array(worlds.patients())
    counts_DN = patient_draws(names, 300, seed=1)
    _, first, of_record = np.unique(names, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(counts_DN, counts_DN[:, first][:, of_record])
    assert (counts_DN[:, first].sum(1, dtype=int) == len(first)).all() and count_patients(names) == len(first)


def test_draws_are_those_of_explicit_resampling():
    names = np.array(worlds.patients())
    unique = np.unique(names)
    generator = np.random.Generator(np.random.PCG64(5))
    for counts_N in patient_draws(names, 200, seed=5):
        drawn = unique[generator.integers(len(unique), size=len(unique))]
        np.testing.assert_array_equal(counts_N, [(drawn == name).sum() for name in names])


def test_every_patient_is_drawn_once_on_average_with_the_variance_of_drawing_with_replacement():
    counts_DN = patient_draws(range(100), 4000, seed=0)
    assert np.abs(counts_DN.mean(0) - 1).max() < 5 / np.sqrt(4000)
    assert counts_DN.var() == pytest.approx(1 - 1 / 100, rel=0.02)


def test_draws_depend_on_patients_and_seed_only():
    names = np.array(worlds.patients())
    order = np.random.default_rng(0).permutation(len(names))
    draws_DN = patient_draws(names, 50, seed=3)
    np.testing.assert_array_equal(draws_DN, patient_draws(list(names), 50, seed=3))
    np.testing.assert_array_equal(draws_DN[:, order], patient_draws(names[order], 50, seed=3))
    np.testing.assert_array_equal(draws_DN[:20], patient_draws(names, 20, seed=3))
    np.testing.assert_array_equal(patient_draws([1, 2, 10], 50, seed=3), patient_draws(["1", "2", "10"], 50, seed=3))
    assert (draws_DN != patient_draws(names, 50, seed=4)).any()


def test_global_random_state_is_untouched():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    patient_draws(worlds.patients(), 100, seed=0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("names", [["a", ""], ["a", None], [1.0, float("nan")], []])
def test_a_record_without_patient_is_refused(names):
    with pytest.raises(ValueError, match=r"record 1 has no patient|0 records"):
        patient_draws(names, 10, seed=0)


def test_interval_is_percentiles_of_the_defined_draws():
    values_D = np.append(np.random.default_rng(0).random(950), [np.nan] * 50)
    found = interval(0.5, values_D, seeds=(0.4, float("nan")))
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(values_D, (0.025, 0.975))), abs=1e-12)
    assert (found.value, found.draws, found.seeds) == (0.5, 950, (0.4, None))


def test_no_interval_of_an_undefined_score_or_of_too_few_draws():
    values_D = np.ones(1000)
    assert interval(float("nan"), values_D).low is None and interval(float("nan"), values_D).value is None
    assert interval(1.0, np.append(np.ones(900), [np.nan] * 100)).low == 1.0
    assert interval(1.0, np.append(np.ones(899), [np.nan] * 101)).low is None
    assert interval(1.0, np.ones(40)).high == 1.0 and interval(1.0, np.ones(39)).high is None


def test_draws_in_pieces_are_draws_at_once():
    weights_DN = worlds.real_weights(draws=5000)
    statistic_N = np.random.default_rng(0).random(worlds.RECORDS)
    pieces = []

    def statistic(part_DN):
        pieces.append(len(part_DN))
        return part_DN @ statistic_N

    np.testing.assert_allclose(over_draws(statistic, weights_DN, worlds.RECORDS), weights_DN @ statistic_N, rtol=1e-13)
    assert len(pieces) > 1


@pytest.mark.parametrize("shape", [(150,), (3, 149), (0, 150)])
def test_weights_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="weights of shape"):
        auroc(*worlds.binary(), np.ones(shape))
