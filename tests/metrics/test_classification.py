"""Tables of labels and classes agree with scikit-learn label by label; what has one class is skipped, never 0.5."""

import numpy as np
import pytest
from sklearn import metrics

from src.metrics import classification
from src.metrics.bootstrap import patient_draws
from src.metrics.classification import macro, score_classes, score_labels, score_pooled, two_classes
from tests.metrics import worlds

CUTS_K = np.array([0.3, 0.4, 0.5, 0.6])
AT_A_THRESHOLD = ("f1", "balanced_accuracy", "precision", "recall", "specificity", "accuracy")
WITHOUT = ("auroc", "average_precision", "brier", "calibration_error")


def test_score_labels_is_the_metric_of_each_label():
    probability_NK, truth_NK = worlds.multilabel()
    weights_DN = worlds.real_weights()
    found = score_labels(probability_NK, truth_NK, CUTS_K, weights_DN)
    assert set(found) == {*AT_A_THRESHOLD, *WITHOUT}
    for name, values_DK in found.items():
        for label, cut in enumerate(CUTS_K):
            arguments = (cut, weights_DN) if name in AT_A_THRESHOLD else (weights_DN,)
            expected_D = getattr(classification, name)(probability_NK[:, label], truth_NK[:, label], *arguments)
            np.testing.assert_allclose(values_DK[:, label], expected_D, rtol=1e-12, err_msg=name)


def test_macro_auroc_as_scikit_learn():
    probability_NK, truth_NK = worlds.multilabel()
    truth_NK = np.nan_to_num(truth_NK)
    found_D = macro(score_labels(probability_NK, truth_NK)["auroc"], two_classes(truth_NK))
    np.testing.assert_allclose(found_D, metrics.roc_auc_score(truth_NK, probability_NK, average="macro"), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 1.0, np.nan])
def test_a_label_with_one_class_is_skipped_and_never_a_half(constant):
    probability_NK, truth_NK = worlds.multilabel()
    rest = macro(score_labels(probability_NK[:, 1:], truth_NK[:, 1:])["auroc"])
    truth_NK[:, 0] = constant
    np.testing.assert_array_equal(two_classes(truth_NK), [False, True, True, True])
    found = score_labels(probability_NK, truth_NK, CUTS_K, patient_draws(worlds.patients(), 50, seed=0))
    for name, values_DK in found.items():
        assert np.isnan(values_DK[:, 0]).all() and not np.isnan(values_DK[:, 1:]).all(), name
    found_D = macro(score_labels(probability_NK, truth_NK)["auroc"], two_classes(truth_NK))
    np.testing.assert_array_equal(found_D, rest)


def test_macro_leaves_out_of_a_draw_what_the_draw_does_not_define():
    values_DK = np.array([[0.9, 0.7, np.nan], [np.nan, 0.7, 0.1], [np.nan, np.nan, 0.1]])
    np.testing.assert_allclose(macro(values_DK, np.array([True, True, False])), [0.8, 0.7, np.nan])
    np.testing.assert_allclose(macro(values_DK), [0.8, 0.4, 0.1])


def test_labels_without_threshold_have_no_score_at_one():
    probability_NK, truth_NK = worlds.multilabel()
    found = score_labels(probability_NK, truth_NK, [0.3, np.nan, 0.5, 0.6])
    assert set(score_labels(probability_NK, truth_NK)) == set(WITHOUT)
    for name, values_DK in found.items():
        np.testing.assert_array_equal(np.isnan(values_DK[0]), [False, name in AT_A_THRESHOLD, False, False])


def test_pooled_scores_are_those_of_all_known_pairs():
    probability_NK, truth_NK = worlds.multilabel()
    weights_DN = worlds.real_weights()
    known_NK = ~np.isnan(truth_NK)
    truth, score, called = truth_NK[known_NK], probability_NK[known_NK], (probability_NK >= CUTS_K)[known_NK]
    found = score_pooled(probability_NK, truth_NK, CUTS_K, weights_DN)
    for draw, weight_N in enumerate(weights_DN):
        weight = np.broadcast_to(weight_N[:, None], truth_NK.shape)[known_NK]
        expected = {
            "auroc": metrics.roc_auc_score(truth, score, sample_weight=weight),
            "average_precision": metrics.average_precision_score(truth, score, sample_weight=weight),
            "f1": metrics.f1_score(truth, called, sample_weight=weight),
            "precision": metrics.precision_score(truth, called, sample_weight=weight),
            "recall": metrics.recall_score(truth, called, sample_weight=weight),
        }
        assert {name: values_D[draw] for name, values_D in found.items()} == pytest.approx(expected, rel=1e-12)


def test_score_classes_as_scikit_learn():
    probability_NK, truth_N = worlds.multiclass()
    weights_DN = worlds.real_weights()
    classes, overall = score_classes(probability_NK, truth_N, weights_DN)
    known_N = truth_N >= 0
    truth, score_NK, called = truth_N[known_N], probability_NK[known_N], probability_NK[known_N].argmax(1)
    for draw, weight_N in enumerate(weights_DN):
        weight = weight_N[known_N]
        per_class = metrics.precision_recall_fscore_support(truth, called, sample_weight=weight)
        for name, expected_K in zip(("precision", "recall", "f1"), per_class[:3], strict=True):
            np.testing.assert_allclose(classes[name][draw], expected_K, err_msg=name)
        for index in range(worlds.LABELS):
            rest = (truth == index, score_NK[:, index])
            auroc = metrics.roc_auc_score(*rest, sample_weight=weight)
            average = metrics.average_precision_score(*rest, sample_weight=weight)
            np.testing.assert_allclose(classes["auroc"][draw, index], auroc, rtol=1e-12)
            np.testing.assert_allclose(classes["average_precision"][draw, index], average, rtol=1e-12)
        ours = {name: overall[name][draw] for name in ("accuracy", "balanced_accuracy", "brier")}
        theirs = {
            "accuracy": metrics.accuracy_score(truth, called, sample_weight=weight),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, called, sample_weight=weight),
            "brier": metrics.brier_score_loss(truth, score_NK, sample_weight=weight, scale_by_half=False),
        }
        assert ours == pytest.approx(theirs)


def test_calibration_error_of_classes_is_that_of_the_class_called():
    probability_NK, truth_N = worlds.multiclass()
    known_N = truth_N >= 0
    right_N = (probability_NK.argmax(1) == truth_N).astype(float)[known_N]
    expected_D = classification.calibration_error(probability_NK.max(1)[known_N], right_N)
    found_D = score_classes(probability_NK, truth_N).overall["calibration_error"]
    np.testing.assert_allclose(found_D, expected_D, rtol=1e-12)


def test_a_class_nobody_has_is_skipped():
    probability_NK, truth_N = worlds.multiclass()
    truth_N[truth_N == 2] = -1
    classes, overall = score_classes(probability_NK, truth_N)
    for name, values_DK in classes.items():
        np.testing.assert_array_equal(np.isnan(values_DK[0]), [False, False, True, False], err_msg=name)
    recall_K = classes["recall"][0]
    assert overall["balanced_accuracy"][0] == pytest.approx(recall_K[[0, 1, 3]].mean())


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda p, y: score_labels(p[:, :2], y), "not both"),
        (lambda p, y: score_labels(p + 1, y), "between 0 and 1"),
        (lambda p, y: score_labels(p, y, [0.5]), "thresholds"),
        (lambda p, y: score_labels(p, y + 1), "truth is 0, 1"),
        (lambda p, y: score_classes(p, np.full(len(p), 4)), "classes are 0 to 3"),
        (lambda p, y: score_classes(p, np.zeros(3, int)), "for 3 records"),
    ],
)
def test_what_does_not_fit_is_refused(work, message):
    with pytest.raises(ValueError, match=message):
        work(*worlds.multilabel())
