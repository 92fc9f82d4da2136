"""Scores at a threshold against scikit-learn, and the threshold that is best by trying all."""

import math

import numpy as np
import pytest
from sklearn import metrics

from src.metrics import classification
from src.metrics.bootstrap import patient_draws
from src.metrics.classification import best_threshold
from tests.metrics import worlds


def specificity_score(truth_N, called_N, sample_weight=None):
    return metrics.recall_score(truth_N, called_N, pos_label=0, sample_weight=sample_weight)


PAIRS = {
    "f1": metrics.f1_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
    "accuracy": metrics.accuracy_score,
    "specificity": specificity_score,
}


@pytest.mark.parametrize("name", PAIRS)
def test_as_scikit_learn(name):
    probability_N, truth_N = worlds.binary()
    weights_DN = worlds.real_weights()
    expected_D = [PAIRS[name](truth_N, probability_N >= 0.5, sample_weight=weight_N) for weight_N in weights_DN]
    np.testing.assert_allclose(getattr(classification, name)(probability_N, truth_N, 0.5, weights_DN), expected_D)


@pytest.mark.parametrize("name", PAIRS)
def test_every_draw_is_the_score_of_the_repeated_records(name):
    probability_N, truth_N = worlds.binary()
    draws_DN = patient_draws(worlds.patients(), 200, seed=2)
    found_D = getattr(classification, name)(probability_N, truth_N, 0.5, draws_DN)
    repeated = [(np.repeat(truth_N, count_N), np.repeat(probability_N, count_N) >= 0.5) for count_N in draws_DN]
    np.testing.assert_allclose(found_D, [PAIRS[name](*pair) for pair in repeated], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_unknown_truth_is_left_out(name):
    probability_N, truth_N = worlds.binary()
    truth_N[::7] = np.nan
    known_N = ~np.isnan(truth_N)
    expected = PAIRS[name](truth_N[known_N], probability_N[known_N] >= 0.5)
    assert getattr(classification, name)(probability_N, truth_N, 0.5)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "undefined"),
    [(0.0, {"f1", "recall", "balanced_accuracy"}), (1.0, {"specificity", "balanced_accuracy"}), (np.nan, set(PAIRS))],
)
def test_one_class_leaves_undefined_what_divides_by_the_other(truth, undefined):
    found = {name: getattr(classification, name)([0.2, 0.8], [truth] * 2, 0.5)[0] for name in PAIRS}
    assert {name for name, value in found.items() if math.isnan(value)} == undefined


def test_precision_of_nothing_called_is_undefined_and_f1_is_zero():
    assert math.isnan(classification.precision([0.1, 0.2], [0, 1], 0.5)[0])
    assert classification.f1([0.1, 0.2], [0, 1], 0.5)[0] == 0


def test_a_threshold_that_was_not_found_gives_no_score():
    assert np.isnan(classification.accuracy([0.1, 0.2], [0, 1], math.nan)).all()


@pytest.mark.parametrize("criterion", ["f1", "balanced_accuracy"])
@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_the_lowest_of_the_best(criterion, seed):
    probability_N, truth_N = worlds.binary(40, seed=seed)
    truth_N[:3] = np.nan
    distinct = np.unique(probability_N[3:])
    candidates = [distinct[0], *(distinct[:-1] + distinct[1:]) / 2]
    found = {cut: getattr(classification, criterion)(probability_N, truth_N, cut)[0] for cut in candidates}
    best = min(cut for cut, score in found.items() if score >= max(found.values()) - 1e-12)
    assert best_threshold(probability_N, truth_N, criterion) == pytest.approx(best, abs=1e-15)


def test_of_equally_good_thresholds_the_lowest_is_taken():
    assert best_threshold([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], "balanced_accuracy") == pytest.approx(0.15)
    assert best_threshold([0.1, 0.2, 0.3, 0.4], [1, 0, 0, 1], "f1") == 0.1


def test_best_threshold_does_not_depend_on_the_order_of_records():
    probability_N, truth_N = worlds.binary()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(truth_N))
        shuffled = best_threshold(probability_N[order], truth_N[order], "f1")
        assert shuffled == best_threshold(probability_N, truth_N, "f1")


def test_best_threshold_between_neighbouring_floats_divides_them():
    low, high = 0.5, np.nextafter(0.5, 1)
    assert best_threshold([low, high], [0, 1], "f1") == high


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], [np.nan, 1], [np.nan, np.nan]])
def test_one_class_has_no_threshold(truth):
    assert math.isnan(best_threshold([0.1, 0.2], truth, "f1"))


def test_unknown_criterion_is_refused():
    with pytest.raises(ValueError, match="accuracy"):
        best_threshold([0.1, 0.2], [0, 1], "accuracy")
