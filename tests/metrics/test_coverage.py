"""Nominal 95 % intervals hold a known truth in 93 to 97 of 100 simulated tests; drawing records would narrow them."""

import numpy as np
import pytest

from src.metrics.bootstrap import interval, patient_draws
from src.metrics.classification import auroc, balanced_accuracy
from src.metrics.coverage import THRESHOLD_K, WEAKER, coverage, estimates, population, simulate

DATASETS, DRAWS, PATIENTS = 400, 400, 200


def of_one_label(sample, weights_DN):
    """The estimates that take milliseconds."""
    truth_N, (scores_NK, weaker_NK) = sample.truth_NK[:, 0], sample.scores
    auroc_D = auroc(scores_NK[:, 0], truth_N, weights_DN)
    return {
        "AUROC": auroc_D,
        "difference in AUROC, paired": auroc_D - auroc(weaker_NK[:, 0], truth_N, weights_DN),
        "balanced accuracy": balanced_accuracy(scores_NK[:, 0], truth_N, THRESHOLD_K[0], weights_DN),
    }


def test_intervals_hold_the_truth_as_often_as_they_say():
    found = coverage(PATIENTS, DATASETS, DRAWS, seed=1, estimate=of_one_label)
    chance = 2 * np.sqrt(0.95 * 0.05 / DATASETS)
    for name in ("AUROC", "difference in AUROC, paired", "balanced accuracy"):
        assert found[name].given == DATASETS
        assert 0.93 - chance < found[name].share < min(1, 0.97 + chance), (name, found[name])
        assert found[name].error == pytest.approx(np.sqrt(0.95 * 0.05 / DATASETS), abs=0.007)


def test_population_values_are_those_of_a_very_large_sample():
    sample = simulate(100_000, np.random.default_rng(0))
    found, truth = estimates(sample, None), population()
    assert {name: values_D[0] for name, values_D in found.items()} == pytest.approx(truth, abs=0.006)
    assert WEAKER < 1 and truth["difference in AUROC, paired"] > 0.04


def test_drawing_records_that_are_alike_makes_intervals_too_narrow():
    generator = np.random.default_rng(0)
    truth_P = (generator.random(200) < 0.4).astype(float)
    score_P = truth_P + generator.standard_normal(200)
    patients_N = np.repeat(np.arange(200), 4)
    widths = []
    for names in (patients_N, np.arange(800)):
        values_D = auroc(score_P[patients_N], truth_P[patients_N], patient_draws(names, 1000, seed=0))
        found = interval(0.5, values_D)
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)  # the root of the records of a patient


def test_no_data_sets_have_no_coverage():
    found = coverage(PATIENTS, 1, 10, estimate=of_one_label)["AUROC"]  # ten draws give no interval
    assert found.given == 0 and np.isnan(found.share) and np.isnan(found.error)
