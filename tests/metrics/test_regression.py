"""Scores of numbers against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics

from src.metrics import regression
from src.metrics.bootstrap import patient_draws
from src.metrics.regression import score_numbers
from tests.metrics import worlds

REFERENCES = {
    "mae": metrics.mean_absolute_error,
    "rmse": metrics.root_mean_squared_error,
    "r2": metrics.r2_score,
    "pearson": lambda truth_N, predicted_N: pearsonr(truth_N, predicted_N)[0],
}


def numbers(offset=0.0, seed=0):
    generator = np.random.default_rng(seed)
    truth_N = offset + generator.standard_normal(worlds.RECORDS)
    return truth_N + 0.5 * generator.standard_normal(worlds.RECORDS), truth_N


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_every_draw_is_the_score_of_the_repeated_records(name, offset):
    predicted_N, truth_N = numbers(offset)
    draws_DN = patient_draws(worlds.patients(), 200, seed=2)
    repeated = [(np.repeat(truth_N, count_N), np.repeat(predicted_N, count_N)) for count_N in draws_DN]
    found_D = getattr(regression, name)(predicted_N, truth_N, draws_DN)
    np.testing.assert_allclose(found_D, [REFERENCES[name](*pair) for pair in repeated], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2"])
def test_weights_as_scikit_learn(name):
    predicted_N, truth_N = numbers()
    weights_DN = worlds.real_weights()
    expected_D = [REFERENCES[name](truth_N, predicted_N, sample_weight=weight_N) for weight_N in weights_DN]
    np.testing.assert_allclose(getattr(regression, name)(predicted_N, truth_N, weights_DN), expected_D)


@pytest.mark.parametrize("name", REFERENCES)
def test_unknown_truth_is_left_out_by_target(name):
    (first_N, truth_N), (second_N, other_N) = numbers(), numbers(5.0, seed=1)
    truth_N[::7], first_N[::7] = np.nan, np.nan
    known_N = ~np.isnan(truth_N)
    found_DK = score_numbers(np.stack([first_N, second_N], 1), np.stack([truth_N, other_N], 1))[name]
    expected_K = [REFERENCES[name](truth_N[known_N], first_N[known_N]), REFERENCES[name](other_N, second_N)]
    np.testing.assert_allclose(found_DK[0], expected_K, rtol=1e-12)


def test_one_number_has_no_correlation_and_no_r2():
    weights_DN = np.array([[1, 1, 1, 1], [3, 0, 0, 1], [4, 0, 0, 0], [0, 0, 0, 0]])
    predicted_N, truth_N = [0.1, 0.2, 0.3, 0.1], [70.0, 80.0, 95.0, 70.0]
    for name, undefined in {"mae": 1, "rmse": 1, "r2": 3, "pearson": 3}.items():
        assert np.isnan(getattr(regression, name)(predicted_N, truth_N, weights_DN)).sum() == undefined, name
    for count in range(1, 100):  # rounding leaves something of the spread of one number
        assert np.isnan(regression.r2(predicted_N, [70.1, 80.3, 95.7, 70.1], np.array([[count, 0, 0, 3]]))).all()
    assert np.isnan(regression.pearson([1.0, 1.0, 1.0, 1.0], truth_N)).all()
    assert not np.isnan(regression.r2([1.0, 1.0, 1.0, 1.0], truth_N)).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="finite"):
        regression.mae([np.nan, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="not both"):
        score_numbers(np.ones((3, 2)), np.ones((3, 1)))
