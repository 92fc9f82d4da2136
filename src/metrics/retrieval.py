"""How far up a gallery the right answers stand: recall, ranks, average precision, NDCG, in both directions of a pair.

A query and an item of the gallery belong together where their ids are equal. Scores are inner products, computed block
by block, each block twice: once for the scores of what is right, once to count what stands before it. No more scores
than a block's are ever held, and no metric is the mean of those of batches.

Ties are pessimistic: what is wrong stands before what is right where their scores are equal, that is where they differ
by less than about 1e-9. So an encoder that gives all inputs one vector is told to find nothing.

Legend: Q queries, G items of the gallery, R right ones of a query, F features, D draws, N records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.metrics.bootstrap import LEVEL, Array, interval, over_draws, patient_draws, ratio

Vectors = NDArray[np.floating]
Ids = NDArray[np.int64]
Ranks = NDArray[np.int64]

BLOCK = 2048
"""Queries, and items, whose scores are held at a time: 34 MB."""
DECIMALS = 9
RECALLS = (1, 5, 10)
NDCG = 10


@dataclass(frozen=True)
class Retrieved:
    """The places of what is right, for the queries that have something right in the gallery."""

    ranks: tuple[Ranks, ...]
    """Of each query: [R], from 1, ascending."""
    queries: NDArray[np.int64]
    """Which of the queries these are; the others have nothing right in the gallery."""
    gallery: int
    """Items; of several galleries those of the largest."""

    def metrics(self, recalls: Sequence[int] = RECALLS, ndcg: int = NDCG) -> dict[str, Array]:
        """Each metric of each query, [Q]; the mean over queries is what is usually told, of `rank` the median.

        recall_any@k: whether something right is among the first k. recall_frac@k: which share of what is right is.
        rank: the first right one's. mrr: one over it. map: mean precision at the places of all R right ones, found
        early or late. ndcg@k: discounted gain (Järvelin & Kekäläinen 2002) over that of the best order of G items.
        """
        found: dict[str, list[float]] = {}
        for ranks_R in self.ranks:
            for name, value in _of_query(ranks_R, recalls, ndcg):
                found.setdefault(name, []).append(value)
        return {name: np.array(values, np.float64) for name, values in found.items()}


def retrieve(
    queries_QF: Vectors, query_ids: Ids, gallery_GF: Vectors, gallery_ids: Ids, block: int = BLOCK
) -> Retrieved:
    """Rank the gallery for each query; memory for scores is block x block, for ranks one number for each right pair.

    Raises:
        ValueError: nothing in the gallery is right for any query, or features are not finite.
    """
    for what, vectors in (("query", queries_QF), ("gallery item", gallery_GF)):
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            raise ValueError(f"{what} {bad[0]} has features that are not finite, which can't be ranked")
    asked_Q = np.flatnonzero(np.isin(query_ids, gallery_ids))
    if not len(asked_Q):
        raise ValueError("no query has anything right in the gallery: their ids have nothing in common")
    queries = np.asarray(queries_QF, np.float64)
    gallery = np.asarray(gallery_GF, np.float64)
    ranks = []
    for start in range(0, len(asked_Q), block):
        rows = asked_Q[start : start + block]
        ranks += _ranks(queries[rows], np.asarray(query_ids)[rows], gallery, np.asarray(gallery_ids), block)
    return Retrieved(tuple(ranks), asked_Q, len(gallery))


def _ranks(queries_QF: Array, ids_Q: Ids, gallery_GF: Array, ids_G: Ids, block: int) -> list[Ranks]:
    """The n-th best of what is right stands behind n - 1 right ones and all wrong ones that score as much or more."""
    right: list[list[Array]] = [[] for _ in ids_Q]
    for scores_QG, right_QG in _blocks(queries_QF, ids_Q, gallery_GF, ids_G, block):
        for row in np.flatnonzero(right_QG.any(1)).tolist():
            right[row].append(scores_QG[row, right_QG[row]])
    bars = [np.sort(np.concatenate(parts))[::-1] for parts in right]
    ahead = [np.zeros(len(bars_R), np.int64) for bars_R in bars]
    for scores_QG, right_QG in _blocks(queries_QF, ids_Q, gallery_GF, ids_G, block):
        wrong_QG = np.sort(np.where(right_QG, -np.inf, scores_QG), axis=1)
        for row, bars_R in enumerate(bars):
            ahead[row] += wrong_QG.shape[1] - np.searchsorted(wrong_QG[row], bars_R, "left")
    return [ahead_R + np.arange(1, len(ahead_R) + 1) for ahead_R in ahead]


def _blocks(
    queries_QF: Array, ids_Q: Ids, gallery_GF: Array, ids_G: Ids, block: int
) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
    """Scores of some queries with some items, the same bits each time; and which pairs are right."""
    for start in range(0, len(ids_G), block):
        items = slice(start, start + block)
        scores_QG = (queries_QF @ gallery_GF[items].T).round(DECIMALS)
        yield scores_QG, ids_Q[:, None] == ids_G[None, items]


def _of_query(ranks_R: Ranks, recalls: Sequence[int], ndcg: int) -> Iterator[tuple[str, float]]:
    first, count = int(ranks_R[0]), len(ranks_R)
    for k in recalls:
        yield f"recall_any@{k}", float(first <= k)
    for k in recalls:
        yield f"recall_frac@{k}", float((ranks_R <= k).sum() / count)
    yield "rank", float(first)
    yield "mrr", 1.0 / first
    yield "map", float((np.arange(1, count + 1) / ranks_R).mean())
    gains = 1.0 / np.log2(1.0 + ranks_R[ranks_R <= ndcg])
    ideal = 1.0 / np.log2(1.0 + np.arange(1, min(ndcg, count) + 1))
    yield f"ndcg@{ndcg}", float(gains.sum() / ideal.sum())


def pooled(parts: Sequence[Retrieved]) -> Retrieved:
    """What was found in several galleries, such as those of folds, as one: queries are counted on."""
    ranks = tuple(ranks_R for part in parts for ranks_R in part.ranks)
    return Retrieved(ranks, np.arange(len(ranks)), max(part.gallery for part in parts))


def summary(found: Retrieved) -> dict[str, float]:
    """Means over the queries, and the median rank."""
    metrics = found.metrics()
    ranks = metrics.pop("rank")
    return {name: float(values.mean()) for name, values in metrics.items()} | {"median_rank": float(np.median(ranks))}


def with_intervals(
    metrics: Mapping[str, Array],
    owner_N: NDArray[np.integer],
    patients_N: Sequence[object] | NDArray[Any],
    draws: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, dict[str, Any]]:
    """The summary of each query's metrics [Q] (or of their differences from another model's) as cells {"value", "low",
    "high", "draws", "seeds"}, with intervals over draws of patients.

    `owner_N` is the query that each record belongs to, by its place among the Q, -1 for none. In a draw a query weighs
    as its records are drawn on average: one of one record, as an ECG is, as often as that is drawn; a text that several
    records have in common the mean of theirs.
    """
    counts_DN = patient_draws(patients_N, draws, seed)
    records = np.flatnonzero(owner_N >= 0)
    owner, queries = owner_N[records], len(next(iter(metrics.values())))
    sizes_Q = np.bincount(owner, minlength=queries).astype(np.float64)

    def weights(counts_dN: Array) -> Array:
        rows = [np.bincount(owner, counts_N[records], minlength=queries) / sizes_Q for counts_N in counts_dN]
        return np.stack(rows)

    cells = {}
    for name, values_Q in metrics.items():
        statistic = _median if name == "rank" else _mean
        of_draws = over_draws(partial(_of_weights, statistic, values_Q, weights), counts_DN, counts_DN.shape[1])
        value = float(statistic(values_Q, np.ones((1, queries)))[0])
        cells["median_rank" if name == "rank" else name] = asdict(interval(value, of_draws, level))
    return cells


def _of_weights(
    statistic: Callable[[Array, Array], Array], values_Q: Array, weights: Callable[[Array], Array], counts_dN: Array
) -> Array:
    return statistic(values_Q, weights(counts_dN))


def _mean(values_Q: Array, weights_DQ: Array) -> Array:
    return ratio(weights_DQ @ values_Q, weights_DQ.sum(1))


def _median(values_Q: Array, weights_DQ: Array) -> Array:
    """Weighted, halfway between the two middle values where the weights split evenly; NaN without weight."""
    order = np.argsort(values_Q, kind="stable")
    sums_DQ = np.cumsum(weights_DQ[:, order], axis=1)
    half_D = sums_DQ[:, -1:] / 2
    low, high = (sums_DQ >= half_D).argmax(1), (sums_DQ > half_D).argmax(1)
    found = (values_Q[order][low] + values_Q[order][high]) / 2
    return np.where(half_D[:, 0] > 0, found, np.nan)


def constant_answer(ids: Ids, gallery_ids: Ids) -> Retrieved:
    """What an answer that never looks at the query finds: the gallery in the order of how often these queries want it,
    items that are wanted equally often as they stand.

    No constant order has a higher recall, since this one knows what is wanted.
    """
    wanted = Counter(ids.tolist())
    wanted_G = np.array([wanted[item] for item in gallery_ids.tolist()])
    places_G1 = np.empty((len(wanted_G), 1))
    places_G1[np.argsort(-wanted_G, kind="stable"), 0] = np.arange(len(wanted_G))
    return retrieve(np.ones((len(ids), 1)), ids, -places_G1, gallery_ids)
