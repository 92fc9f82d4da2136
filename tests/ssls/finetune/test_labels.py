"""What labels weigh and how validation counts: beside brute counts and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from src.evaluation.targets import Target
from ssls.finetune.config import FocalConfig, LossConfig
from ssls.finetune.labels import balanced_weights, refuse_what_does_not_fit, task_of
from ssls.finetune.validation import measures

NAN = math.nan


def test_balanced_weights_of_labels_are_negatives_over_positives():
    generator = np.random.default_rng(0)
    truth = (generator.uniform(size=(200, 5)) < [0.5, 0.1, 0.9, 0.02, 0.3]).astype(float)
    truth[generator.uniform(size=truth.shape) < 0.2] = NAN
    counted = []
    for column in truth.T:
        positives, negatives = sum(value == 1 for value in column), sum(value == 0 for value in column)
        counted.append(min(max(negatives / positives, 1 / 10), 10.0))
    np.testing.assert_allclose(balanced_weights("multilabel", truth, 10.0), counted)
    assert 10.0 in counted, "some are clipped"


def test_labels_of_one_kind_have_the_largest_or_smallest_weight():
    truth = np.array([[0, 1, NAN], [0, 1, NAN]])
    assert balanced_weights("multilabel", truth, 20.0).tolist() == [20.0, 1 / 20, 1.0]


def test_balanced_weights_of_classes_are_scikit_learns():
    classes = np.repeat([0, 1, 2], [50, 5, 20])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    truth = np.concatenate([np.eye(3)[classes], np.full((4, 3), NAN)])
    np.testing.assert_allclose(balanced_weights("multiclass", truth, 1e6), wanted)


def test_measures_of_labels_are_scikit_learns_without_those_of_one_kind():
    generator = np.random.default_rng(1)
    probability = generator.uniform(0.01, 0.99, size=(80, 4)).round(2)
    truth = (generator.uniform(size=(80, 4)) < 0.3).astype(float)
    truth[:, 2] = 0
    truth[generator.uniform(size=truth.shape) < 0.1] = NAN
    found, known = measures("multilabel", probability, truth), ~np.isnan(truth)
    scores = [roc_auc_score(truth[known[:, k], k], probability[known[:, k], k]) for k in (0, 1, 3)]
    assert found["auroc"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert (found["labels"], found["skipped"]) == (3, 1)
    assert found["cross_entropy"] == pytest.approx(log_loss(truth[known], probability[known]), rel=1e-9)


def test_measures_of_classes_are_scikit_learns():
    generator = np.random.default_rng(2)
    probability = generator.dirichlet(np.ones(3), size=60)
    classes = generator.integers(3, size=60)
    found = measures("multiclass", probability, np.eye(3)[classes])
    assert found["auroc"] == pytest.approx(roc_auc_score(classes, probability, multi_class="ovr", average="macro"))
    assert found["cross_entropy"] == pytest.approx(log_loss(classes, probability), rel=1e-9)


def test_without_two_kinds_of_any_label_there_is_no_auroc():
    found = measures("multilabel", np.full((3, 2), 0.5), np.zeros((3, 2)))
    assert math.isnan(found["auroc"]) and found["skipped"] == 2 and found["labels"] == 0


def test_certain_and_wrong_is_bad_and_finite():
    found = measures("multilabel", np.array([[1.0], [0.0]], np.float32), np.array([[0.0], [1.0]]))
    assert 15 < found["cross_entropy"] < 17


def test_a_model_that_gives_no_numbers_has_no_scores():
    found = measures("multilabel", np.array([[0.5], [NAN]]), np.array([[0.0], [1.0]]))
    assert math.isnan(found["auroc"]) and math.isnan(found["cross_entropy"]) and found["labels"] == 0


def test_what_does_not_fit_the_target_is_refused():
    classes = Target("multiclass", ("a", "b"), "site")
    with pytest.raises(ValueError, match=r"loss\.focal is for labels, and the target has classes"):
        refuse_what_does_not_fit(LossConfig(focal=FocalConfig()), classes)
    with pytest.raises(ValueError, match=r"loss\.weights has 3 numbers, but there are 2 labels: a, b"):
        refuse_what_does_not_fit(LossConfig(weights=(1.0, 2.0, 3.0)), classes)
    with pytest.raises(ValueError, match="target.column: age holds numbers"):
        task_of(Target("regression", ("age",), "age"))
