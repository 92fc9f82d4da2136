"""Windows and lanes: every sample once an epoch still, few shards at a time, each rank in a range of its own."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from src.data.order import Order, batch_positions, deal

SIZES = [7, 1, 12, 5, 30, 2, 9, 9, 1, 4, 20]


def shards_of(samples, sizes):
    return np.searchsorted(np.cumsum(sizes), samples, side="right")


@pytest.mark.parametrize("window", [None, 1, 2, 3, 5, 11, 50])
@pytest.mark.parametrize(("lanes", "batch_size"), [(1, 7), (2, 8), (4, 8), (8, 8), (3, 24), (5, 500)])
def test_each_epoch_has_each_sample_once(window, lanes, batch_size):
    order = Order(3, SIZES, window, lanes, batch_size)
    epochs, samples = order.order(np.arange(4 * order.samples))
    for epoch in range(4):
        assert np.array_equal(np.sort(samples[epochs == epoch]), np.arange(sum(SIZES)))
    assert len({samples[epochs == epoch].tobytes() for epoch in range(4)}) == 4


@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize(("lanes", "batch_size"), [(1, 7), (2, 8), (8, 8), (3, 24), (5, 500)])
def test_where_a_sample_stands_is_where_it_is_found(window, lanes, batch_size):
    order = Order(3, SIZES, window, lanes, batch_size)
    positions = np.arange(3 * order.samples)
    epochs, samples = order.order(positions)
    found = [order.positions(epoch, samples[epochs == epoch]) for epoch in range(3)]
    assert np.array_equal(np.concatenate(found), positions)


@pytest.mark.parametrize(("lanes", "batch_size"), [(1, 8), (2, 8), (8, 8), (3, 12), (5, 500)])
def test_lanes_are_queues_that_the_slots_of_a_batch_are_filled_from(lanes, batch_size):
    order = Order(0, SIZES, 2, lanes, batch_size)
    n, own = order.samples, batch_size // lanes
    slots = np.arange(3 * n) % batch_size // own
    for epoch in range(3):
        counts = np.bincount(slots[epoch * n : (epoch + 1) * n], minlength=lanes)
        ends = np.cumsum(counts).tolist()
        queues = [iter(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]
        expected = [next(queues[slot]) for slot in slots[epoch * n : (epoch + 1) * n]]
        assert order.places(np.arange(epoch * n, (epoch + 1) * n))[1].tolist() == expected
        assert counts.max() - counts.min() <= own


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_holds_whole_shards_and_is_done_before_the_next(window):
    order = Order(1, SIZES, window)
    shards = shards_of(order.order(np.arange(order.samples))[1], SIZES)
    groups, seen = [], set()
    while len(seen) < len(SIZES):
        start = sum(SIZES[shard] for shard in seen)
        size, group = 0, set()
        while size < len(shards) - start and (len(group) < window or set(shards[start : start + size]) == group):
            group = set(shards[start : start + size + 1].tolist())
            if len(group) > window:
                break
            size += 1
        groups.append(set(shards[start : start + size].tolist()))
        assert not groups[-1] & seen
        seen |= groups[-1]
        assert sum(SIZES[shard] for shard in groups[-1]) == size
    assert [len(group) for group in groups[:-1]] == [window] * (len(groups) - 1)


def test_within_a_window_each_sample_is_equally_likely_at_each_place():
    counts = np.zeros((12, 12))
    for seed in range(1200):
        samples = Order(seed, [12, 5], 1).order(np.arange(17))[1]
        at = np.flatnonzero(samples < 12)
        counts[at - at.min(), samples[at]] += 1
    assert (chisquare(counts, axis=0).pvalue > 1e-4).all()


def test_shards_come_first_equally_often():
    first = Counter(int(shards_of(Order(seed, SIZES, 1).order(np.array([0]))[1], SIZES)[0]) for seed in range(1100))
    assert chisquare([first[shard] for shard in range(len(SIZES))]).pvalue > 1e-3


def test_a_rank_with_a_lane_of_its_own_reads_few_shards_and_none_of_its_neighbours():
    sizes = [100] * 64
    opened = []
    for rank in range(4):
        order = Order(0, sizes, window=2, lanes=4, batch_size=32)
        samples = [order.order(deal(batch_positions(step, 32), rank, 4))[1] for step in range(20)]
        opened.append(set(shards_of(np.concatenate(samples), sizes).tolist()))
        assert len(opened[-1]) <= 4
    assert len(set.union(*opened)) == sum(map(len, opened))


@pytest.mark.parametrize("settings", [{}, {"window": 2}, {"window": 3, "lanes": 4, "batch_size": 8}])
def test_the_samples_instead_of_another_are_all_others_of_its_epoch(settings):
    order = Order(9, SIZES, **settings)
    for position in (0, 5, order.samples - 1, order.samples, 3 * order.samples - 2):
        epoch = position // order.samples
        of_epoch = order.order(np.arange(epoch * order.samples, (epoch + 1) * order.samples))[1]
        at = order.order(np.array([position]))[1][0]
        walk = [order.instead(position, places) for places in range(order.samples)]
        assert walk[0] == at
        assert sorted(walk) == sorted(of_epoch.tolist())
    if not settings:
        first_epoch = order.order(np.arange(order.samples))[1]
        assert [order.instead(0, places) for places in range(order.samples)] == first_epoch.tolist()


def test_a_position_alone_gets_what_it_gets_among_others():
    order = Order(2, SIZES, 3, 4, 8)
    together = order.order(np.arange(400))[1].tolist()
    assert [int(Order(2, SIZES, 3, 4, 8).order(np.array([p]))[1][0]) for p in range(400)] == together
