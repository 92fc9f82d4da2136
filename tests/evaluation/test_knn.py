"""Nearest neighbours against a loop and against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from src.evaluation.knn import knn_scores


def records(count, seed, width=8):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def targets(count, seed=5, labels=3, unknown=0.0):
    generator = np.random.default_rng(seed)
    known = (generator.random((count, labels)) < 0.4).astype(np.float64)
    known[generator.random(known.shape) < unknown] = np.nan
    return known


def by_hand(train, truth, test, neighbours, temperature, allowed=lambda row, other: True):
    scores = np.full((len(test), truth.shape[1]), np.nan)
    for row, features in enumerate(test.astype(np.float64)):
        found = []
        for other, candidate in enumerate(train.astype(np.float64)):
            if allowed(row, other):
                cosine = features @ candidate / np.sqrt((features @ features) * (candidate @ candidate))
                found.append((cosine, other))
        nearest = sorted(found, reverse=True)[:neighbours]
        for label in range(truth.shape[1]):
            votes = [(np.exp(cosine / temperature), truth[other, label]) for cosine, other in nearest]
            votes = [(weight, vote) for weight, vote in votes if not np.isnan(vote)]
            if votes:
                scores[row, label] = sum(w * v for w, v in votes) / sum(w for w, _ in votes)
    return scores


@pytest.mark.parametrize("unknown", [0.0, 0.5])
@pytest.mark.parametrize("neighbours", [1, 7, 1000])
def test_scores_are_those_of_a_loop(neighbours, unknown):
    train, truth, test = records(60, 0), targets(60, unknown=unknown), records(25, 1)
    expected = by_hand(train, truth, test, neighbours, 0.07)
    np.testing.assert_allclose(knn_scores(train, truth, test, neighbours), expected, atol=1e-10)


def test_scores_are_sklearns_weighted_vote():
    train, test = records(200, 0), records(50, 1)
    classes = np.random.default_rng(2).integers(0, 3, 200)
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1.0 - distance) / 0.07))
    reference.fit(train.astype(np.float64), classes)
    expected = reference.predict_proba(test.astype(np.float64))
    np.testing.assert_allclose(knn_scores(train, np.eye(3)[classes], test), expected, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 61, 10**9])
def test_chunks_change_nothing(chunk, monkeypatch):
    train, truth, test = records(60, 0), targets(60), records(25, 1)
    whole = knn_scores(train, truth, test)
    monkeypatch.setattr("src.evaluation.knn.CHUNK", chunk)
    np.testing.assert_allclose(knn_scores(train, truth, test), whole, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 61, 10**9])
def test_patients_do_not_vote_for_themselves(chunk, monkeypatch):
    monkeypatch.setattr("src.evaluation.knn.CHUNK", chunk)
    x_NF, truth, patients = records(60, 0), targets(60), np.arange(60) // 4
    expected = by_hand(x_NF, truth, x_NF, 10, 0.07, lambda row, other: patients[row] != patients[other])
    scores = knn_scores(x_NF, truth, x_NF, 10, train_patients=patients, test_patients=patients.astype(str))
    np.testing.assert_allclose(scores, expected, atol=1e-10)


def test_without_anybody_to_vote_there_is_no_score():
    x_NF = records(5, 0)
    assert np.isnan(knn_scores(x_NF, targets(5), x_NF, train_patients=[1] * 5, test_patients=[1] * 5)).all()
    assert np.isnan(knn_scores(x_NF, np.full((5, 1), np.nan), x_NF)).all()


def test_scale_of_a_record_and_cold_temperatures_do_not_matter():
    train, truth, test = records(60, 0), targets(60), records(25, 1)
    lengths = np.random.default_rng(3).uniform(0.01, 100.0, (60, 1))
    np.testing.assert_allclose(knn_scores(train * lengths, truth, test), knn_scores(train, truth, test), atol=1e-10)
    cold = knn_scores(train, truth, test, temperature=1e-5)
    np.testing.assert_allclose(cold, knn_scores(train, truth, test, neighbours=1), atol=1e-10)


def test_records_that_are_all_alike_predict_the_rate():
    truth = targets(60)
    scores = knn_scores(np.zeros((60, 4)), truth, np.zeros((3, 4)))
    np.testing.assert_allclose(scores, np.tile(truth.mean(0), (3, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_NF": np.full((60, 8), np.inf)}, "finite"),
        ({"targets_NK": np.zeros(60)}, r"\[N, K\]"),
        ({"targets_NK": np.zeros((59, 2))}, "60 training records"),
        ({"test_MF": np.zeros((3, 7))}, "7 features"),
        ({"neighbours": 0}, "neighbours"),
        ({"temperature": 0.0}, "temperature"),
        ({"train_patients": np.arange(60)}, "together"),
        ({"train_patients": np.arange(60), "test_patients": np.arange(2)}, "each record"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    arguments = {"train_NF": records(60, 0), "targets_NK": targets(60), "test_MF": records(3, 1)}
    with pytest.raises(ValueError, match=message):
        knn_scores(**{**arguments, **change})
