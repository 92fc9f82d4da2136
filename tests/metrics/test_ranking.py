"""AUROC against pair counting, it and average precision against scikit-learn: ties, weights, unknown truth."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from src.metrics.bootstrap import patient_draws
from src.metrics.classification import auroc, average_precision
from tests.metrics import worlds

PAIRS = [(auroc, roc_auc_score), (average_precision, average_precision_score)]


def by_pairs(score_N, truth_N, weight_N):
    """Every positive against every negative, a tie for one half."""
    wins = total = 0.0
    for positive in np.flatnonzero(truth_N == 1):
        for negative in np.flatnonzero(truth_N == 0):
            weight = weight_N[positive] * weight_N[negative]
            ahead = score_N[positive] - score_N[negative]
            wins += weight * (0.5 if ahead == 0 else float(ahead > 0))
            total += weight
    return wins / total


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_auroc_is_the_share_of_pairs_in_order(digits):
    score_N, truth_N = worlds.binary(60, digits=digits)
    weights_DN = worlds.real_weights(3, 60)
    expected_D = [by_pairs(score_N, truth_N, weight_N) for weight_N in weights_DN]
    np.testing.assert_allclose(auroc(score_N, truth_N, weights_DN), expected_D, rtol=1e-12)
    assert auroc(score_N, truth_N)[0] == pytest.approx(by_pairs(score_N, truth_N, np.ones(60)), rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("digits", [0, 1, 8])
@pytest.mark.parametrize("kind", ["real", "counts"])
def test_as_scikit_learn_with_ties_and_weights(ours, theirs, digits, kind):
    score_N, truth_N = worlds.binary(digits=digits)
    weights_DN = worlds.real_weights() if kind == "real" else patient_draws(worlds.patients(), 20, seed=0)
    expected_D = [theirs(truth_N, score_N, sample_weight=weight_N) for weight_N in weights_DN]
    np.testing.assert_allclose(ours(score_N, truth_N, weights_DN), expected_D, rtol=1e-12)
    np.testing.assert_allclose(ours(score_N, truth_N), theirs(truth_N, score_N), rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_draw_is_the_score_of_the_repeated_records(ours, theirs):
    score_N, truth_N = worlds.binary()
    draws_DN = patient_draws(worlds.patients(), 200, seed=2)
    expected_D = [theirs(np.repeat(truth_N, count_N), np.repeat(score_N, count_N)) for count_N in draws_DN]
    np.testing.assert_allclose(ours(score_N, truth_N, draws_DN), expected_D, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_unknown_truth_is_left_out(ours, theirs):
    score_N, truth_N = worlds.binary()
    truth_N[::7], score_N[::7] = np.nan, np.nan
    known_N, weights_DN = ~np.isnan(truth_N), worlds.real_weights()
    expected = theirs(truth_N[known_N], score_N[known_N], sample_weight=weights_DN[0, known_N])
    assert ours(score_N, truth_N, weights_DN)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ours", [auroc, average_precision])
@pytest.mark.parametrize("truth", [0.0, 1.0, np.nan])
def test_one_class_has_no_score(ours, truth):
    assert np.isnan(ours([0.1, 0.2, 0.3], [truth] * 3, np.ones((2, 3)))).all()
    mixed_D = ours([0.1, 0.2, 0.3], [0.0, 1.0, 1.0], np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(np.isnan(mixed_D), [False, True, True, True])


@pytest.mark.parametrize(
    ("score", "truth", "message"),
    [
        ([0.1, np.nan], [0, 1], "1 predictions are NaN"),
        ([0.1, 0.2], [0, 2], "truth is 0, 1"),
        ([0.1], [0, 1], "each a"),
    ],
)
def test_what_cannot_be_ranked_is_refused(score, truth, message):
    with pytest.raises(ValueError, match=message):
        auroc(score, truth)
