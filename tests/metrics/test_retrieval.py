"""Retrieval beside ten lines of brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from src.metrics.bootstrap import patient_draws
from src.metrics.retrieval import constant_answer, pooled, retrieve, summary, with_intervals

DRAW = np.random.default_rng(0)


def unit(rows, width=6):
    vectors = DRAW.normal(size=(rows, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute(queries, query_ids, gallery, gallery_ids):
    """Places of what is right for each query: sorted by score, what is wrong first where scores are equal."""
    found = []
    for query, own in zip(queries, query_ids, strict=True):
        scores = [round(float(query @ item), 9) for item in gallery]
        order = sorted(range(len(gallery)), key=lambda item: (-scores[item], gallery_ids[item] == own))
        found.append([place for place, item in enumerate(order, 1) if gallery_ids[item] == own])
    return found


@pytest.mark.parametrize("block", [3, 7, 2048])
def test_places_are_those_of_sorting_whatever_the_blocks(block):
    queries, gallery = unit(23), unit(31)
    query_ids, gallery_ids = DRAW.integers(0, 9, 23), DRAW.integers(0, 9, 31)
    gallery[4] = gallery[5] = gallery[6]
    found = retrieve(queries, query_ids, gallery, gallery_ids, block)
    expected = [ranks for ranks in brute(queries, query_ids, gallery, gallery_ids) if ranks]
    assert [ranks.tolist() for ranks in found.ranks] == expected
    assert found.gallery == 31


def test_metrics_are_their_definitions():
    queries, gallery = unit(40), unit(60)
    query_ids, gallery_ids = DRAW.integers(0, 12, 40), DRAW.integers(0, 12, 60)
    found = retrieve(queries, query_ids, gallery, gallery_ids)
    told = summary(found)
    right = query_ids[:, None] == gallery_ids
    scores = queries @ gallery.T
    places = brute(queries, query_ids, gallery, gallery_ids)
    for k in (1, 5, 10):
        assert told[f"recall_any@{k}"] == pytest.approx(np.mean([ranks[0] <= k for ranks in places]))
        shares = [np.mean([rank <= k for rank in ranks]) for ranks in places]
        assert told[f"recall_frac@{k}"] == pytest.approx(np.mean(shares))
    assert told["median_rank"] == np.median([ranks[0] for ranks in places])
    assert told["mrr"] == pytest.approx(np.mean([1 / ranks[0] for ranks in places]))
    precision = [average_precision_score(row, score) for row, score in zip(right, scores, strict=True)]
    assert told["map"] == pytest.approx(np.mean(precision))
    assert told["ndcg@10"] == pytest.approx(ndcg_score(right, scores, k=10))


def test_the_ideal_of_ndcg_is_cut_where_there_is_more_than_k_that_is_right():
    found = retrieve(np.ones((1, 1)), np.zeros(1, int), np.linspace(2, 1, 30)[:, None], np.array([0] * 25 + [1] * 5))
    assert summary(found)["ndcg@10"] == 1.0 and summary(found)["recall_frac@10"] == pytest.approx(10 / 25)


def test_one_vector_for_everything_finds_nothing_and_no_order_of_the_gallery_changes_that():
    ids = np.arange(20)
    for gallery_ids in (ids, ids[::-1]):
        told = summary(retrieve(np.ones((20, 4)), ids, np.ones((20, 4)), gallery_ids))
        assert told["recall_any@10"] == 0.0 and told["median_rank"] == 20 and told["mrr"] == pytest.approx(1 / 20)


def test_queries_without_anything_right_are_left_out_and_told():
    found = retrieve(unit(4), np.array([0, 7, 1, 8]), unit(3), np.array([0, 1, 2]))
    assert found.queries.tolist() == [0, 2] and len(found.ranks) == 2
    with pytest.raises(ValueError, match="nothing in common"):
        retrieve(unit(2), np.array([5, 6]), unit(3), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="gallery item 1 has features that are not finite"):
        retrieve(unit(2), np.array([0, 1]), np.array([[0.0], [np.nan]]), np.array([0, 1]))


def test_a_metric_is_of_all_queries_and_not_the_mean_of_batches():
    queries = unit(64)
    gallery = queries + 0.8 * unit(64)
    whole = summary(retrieve(queries, np.arange(64), gallery, np.arange(64)))["recall_any@1"]
    parts = [slice(start, start + 8) for start in range(0, 64, 8)]
    batches = [summary(retrieve(queries[part], np.arange(8), gallery[part], np.arange(8))) for part in parts]
    assert whole < np.mean([batch["recall_any@1"] for batch in batches])


def test_galleries_of_folds_are_pooled_query_by_query():
    parts = [retrieve(unit(8), np.arange(8), unit(8), np.arange(8)) for _ in range(3)]
    ranks = [part.metrics()["rank"] for part in parts]
    assert pooled(parts).metrics()["rank"].tolist() == np.concatenate(ranks).tolist()
    assert pooled(parts).queries.tolist() == list(range(24))


def test_a_constant_answer_is_right_as_often_as_the_most_frequent_text():
    ids = np.array([4] * 6 + [2] * 3 + [9])
    told = summary(constant_answer(ids, np.array([2, 4, 9])))
    assert told["recall_any@1"] == 0.6 and told["mrr"] == pytest.approx((6 + 3 / 2 + 1 / 3) / 10)
    tied = summary(constant_answer(np.array([7, 5, 3]), np.array([3, 5, 7])))
    assert tied["recall_any@1"] == pytest.approx(1 / 3) and tied["median_rank"] == 2


def test_intervals_are_over_patients_and_hold_the_value():
    queries = unit(60)
    gallery = queries + 1.2 * unit(60)
    found = retrieve(queries, np.arange(60), gallery, np.arange(60))
    patients = np.arange(60) // 3
    cells = with_intervals(found.metrics(), np.arange(60), patients, draws=200)
    told = summary(found)
    assert cells.keys() == told.keys()
    for name, cell in cells.items():
        assert cell["value"] == pytest.approx(told[name]) and cell["low"] <= cell["value"] <= cell["high"], name
    assert with_intervals(found.metrics(), np.arange(60), patients, draws=200) == cells
    same = [np.tile(values, (2, 1)) for values in (queries, gallery)]
    twice = retrieve(same[0], np.tile(np.arange(60), 2), same[1], np.tile(np.arange(60), 2))
    assert with_intervals(twice.metrics(), np.arange(120), np.tile(patients, 2), draws=200)["mrr"]["low"] is not None


def test_a_text_of_several_records_weighs_the_mean_of_them():
    gallery = np.array([[1.0, 0.9], [0.0, 0.8]])
    found = retrieve(np.eye(2), np.array([0, 1]), gallery, np.array([0, 1]))  # text 1 finds text 0 before its own
    owner, patients = np.array([0, 0, 1, 1, -1]), ["a", "b", "c", "c", "d"]
    cell = with_intervals(found.metrics(), owner, patients, draws=400)["recall_any@1"]
    shares = []
    for counts in patient_draws(patients, 400, 0).astype(float):
        of_text_0, of_text_1 = counts[:2].mean(), counts[2:4].mean()
        if of_text_0 + of_text_1:
            shares.append(of_text_0 / (of_text_0 + of_text_1))
    assert cell["value"] == 0.5 and cell["draws"] == len(shares)
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])))
