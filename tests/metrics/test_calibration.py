"""Brier score against scikit-learn, calibration error against the bins written out."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from src.metrics.bootstrap import patient_draws
from src.metrics.classification import brier, calibration_error
from tests.metrics import worlds


def by_bins(probability_N, truth_N):
    """Guo et al. 2017, equations 3 to 5, for the probability of the positive class."""
    error = 0.0
    for index in range(15):
        inside_N = (probability_N > index / 15) & (probability_N <= (index + 1) / 15)
        inside_N |= (probability_N == 0) & (index == 0)
        if inside_N.any():
            error += inside_N.mean() * abs(probability_N[inside_N].mean() - truth_N[inside_N].mean())
    return error


def test_brier_as_scikit_learn():
    probability_N, truth_N = worlds.binary(digits=8)
    weights_DN = worlds.real_weights()
    expected_D = [brier_score_loss(truth_N, probability_N, sample_weight=weight_N) for weight_N in weights_DN]
    np.testing.assert_allclose(brier(probability_N, truth_N, weights_DN), expected_D)


@pytest.mark.parametrize(
    ("ours", "reference"), [(brier, lambda p, y: ((p - y) ** 2).mean()), (calibration_error, by_bins)]
)
@pytest.mark.parametrize("digits", [1, 8])
def test_every_draw_is_the_score_of_the_repeated_records(ours, reference, digits):
    probability_N, truth_N = worlds.binary(digits=digits)
    draws_DN = patient_draws(worlds.patients(), 200, seed=2)
    expected_D = [reference(np.repeat(probability_N, count_N), np.repeat(truth_N, count_N)) for count_N in draws_DN]
    np.testing.assert_allclose(ours(probability_N, truth_N, draws_DN), expected_D, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ours", [brier, calibration_error])
def test_unknown_truth_is_left_out_and_nothing_known_is_undefined(ours):
    probability_N, truth_N = worlds.binary()
    truth_N[::7] = np.nan
    known_N = ~np.isnan(truth_N)
    np.testing.assert_allclose(ours(probability_N, truth_N), ours(probability_N[known_N], truth_N[known_N]), rtol=1e-13)
    assert np.isnan(ours(probability_N, truth_N * np.nan)).all()


def test_calibration_error_of_known_cases():
    assert calibration_error([0.0, 1.0], [0, 1])[0] == 0
    assert calibration_error([1.0, 0.0], [0, 1])[0] == 1
    assert calibration_error([0.15, 0.2], [0, 1])[0] == pytest.approx(0.325)  # one bin, which ends at 3 / 15
    assert calibration_error([0.25] * 4, [1, 0, 0, 0])[0] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("ours", [brier, calibration_error])
def test_what_is_no_probability_is_refused(ours):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ours([0.5, 1.5], [0, 1])
