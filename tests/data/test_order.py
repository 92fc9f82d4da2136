"""The global order: every sample once an epoch, as good as a true shuffle, and the same for every world size."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from src.data.order import Order, batch_positions, deal, micro_batches
from src.data.permutation import permute, unpermute
from src.randomness import derive_seed

SMALL = [*range(1, 70), 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 4096, 4097, 65_537, 100_003]


@pytest.mark.parametrize("key", [0, 1, derive_seed(3, "order", 5), 2**64 - 1])
def test_permutation_is_a_bijection(key):
    for n in SMALL:
        assert np.array_equal(np.sort(permute(key, n, np.arange(n))), np.arange(n)), n


@pytest.mark.parametrize("key", [0, 1, derive_seed(3, "order", 5), 2**64 - 1])
def test_the_inverse_leads_back(key):
    for n in [*SMALL, 10**9 + 7, 2**62]:
        positions = np.unique(np.random.default_rng(n).integers(0, n, 2000))
        assert np.array_equal(unpermute(key, n, permute(key, n, positions)), positions), n


@pytest.mark.parametrize("n", [10**9 + 7, 10**12, 2**62])
def test_huge_permutation_stays_in_range_and_never_collides(n):
    positions = np.unique(np.random.default_rng(0).integers(0, n, 200_000))
    samples = permute(11, n, positions)
    assert samples.min() >= 0
    assert samples.max() < n
    assert len(np.unique(samples)) == len(positions)
    assert kstest(samples / n, "uniform").pvalue > 1e-3


def test_a_position_alone_gets_what_it_gets_among_others():
    together = permute(7, 1000, np.arange(1000))
    assert [int(permute(7, 1000, np.array([p]))[0]) for p in range(1000)] == together.tolist()
    assert permute(7, 1000, np.array([], np.int64)).shape == (0,)


def chi_square_pvalue(counts):
    expected = counts.sum() / counts.size
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1)


@pytest.mark.parametrize(("n", "keys"), [(2, 400), (3, 1200), (4, 1800), (5, 3600)])
def test_each_of_the_n_factorial_orders_is_equally_likely(n, keys):
    orders = np.array([permute(derive_seed(0, "order", epoch), n, np.arange(n)) for epoch in range(keys)])
    counts = np.unique(orders @ n ** np.arange(n), return_counts=True)[1]
    assert len(counts) == math.factorial(n)
    assert chi_square_pvalue(counts) > 1e-3


def test_each_sample_is_equally_likely_at_each_position():
    n, epochs = 12, 2400
    _, samples = Order(1, [n]).order(np.arange(n * epochs))
    counts = np.zeros((n, n))
    np.add.at(counts, (np.tile(np.arange(n), epochs), samples), 1)
    expected = epochs / n  # rows and columns have fixed sums: (n - 1)^2 degrees of freedom, and n / (n - 1) in variance
    statistic = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n
    assert chi2.sf(statistic, (n - 1) ** 2) > 1e-3


def pair_statistics(samples):
    """Mean distance of neighbours, correlation of position and sample, lag-1 correlation, fixed points, inversions."""
    n = len(samples)
    distance = np.abs(np.diff(samples)).mean() / n
    trend = np.corrcoef(np.arange(n), samples)[0, 1]
    serial = np.corrcoef(samples[:-1], samples[1:])[0, 1]
    parity = np.mean((samples[:-1] ^ samples[1:]) & 1)
    rises = np.mean(np.diff(samples) > 0)
    return np.array([distance, trend, serial, parity, rises])


@pytest.mark.parametrize("n", [100, 1000, 1025])
def test_orders_are_distributed_like_true_permutations(n):
    repeats = 300
    rng = np.random.default_rng(n)
    true = np.array([pair_statistics(rng.permutation(n)) for _ in range(repeats)])
    ours = np.array([pair_statistics(Order(2, [n]).order(np.arange(e * n, (e + 1) * n))[1]) for e in range(repeats)])
    mean_z = (ours.mean(0) - true.mean(0)) / np.sqrt((ours.var(0) + true.var(0)) / repeats)
    spread_z = np.log(ours.std(0) / true.std(0)) * np.sqrt(repeats)
    assert (2 * norm.sf(np.abs(mean_z)) > 1e-3).all(), mean_z
    assert (2 * norm.sf(np.abs(spread_z)) > 1e-3).all(), spread_z


def test_neighbouring_epochs_are_not_correlated():
    n = 5000
    orders = [Order(0, [n]).order(np.arange(e * n, (e + 1) * n))[1] for e in range(40)]
    z = np.array([np.corrcoef(a, b)[0, 1] * np.sqrt(n) for a, b in pairwise(orders)])
    assert kstest(z, "norm").pvalue > 1e-3


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 4), (3, 8), (10, 4), (100, 7), (100, 100), (64, 48)])
def test_each_epoch_has_each_sample_once_though_batches_span_epochs(samples, batch_size):
    steps = 3 * samples
    order = Order(5, [samples])
    batches = [order.order(batch_positions(step, batch_size)) for step in range(steps)]
    epochs, drawn = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert (np.diff(epochs) >= 0).all()
    for epoch in range(epochs.max()):
        assert np.array_equal(np.sort(drawn[epochs == epoch]), np.arange(samples))


def test_epochs_and_seeds_have_different_orders():
    n = 50
    orders = {tuple(Order(s, [n]).order(np.arange(e * n, (e + 1) * n))[1]) for s in range(20) for e in range(20)}
    assert len(orders) == 400


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8, 12, 24, 48])
def test_shares_of_all_ranks_are_the_global_batch(world_size):
    positions = batch_positions(9, 48)
    shares = [deal(positions, rank, world_size) for rank in range(world_size)]
    assert {len(share) for share in shares} == {48 // world_size}
    assert np.array_equal(np.concatenate(shares), np.arange(9 * 48, 10 * 48))


@pytest.mark.parametrize(("batch_size", "world_size"), [(10, 3), (4, 8), (1, 2)])
def test_a_batch_the_ranks_cannot_share_is_refused(batch_size, world_size):
    with pytest.raises(ValueError, match=rf"data\.batch_size {batch_size} .* multiple of {world_size}"):
        deal(batch_positions(0, batch_size), 0, world_size)


def test_micro_batches_are_few_near_equal_and_complete():
    for share in range(1, 60):
        assert micro_batches(share, None) == [slice(0, share)]
        for limit in range(1, 70):
            slices = micro_batches(share, limit)
            sizes = [len(range(share)[s]) for s in slices]
            assert [i for s in slices for i in range(share)[s]] == list(range(share))
            assert len(slices) == math.ceil(share / limit)
            assert max(sizes) <= limit
            assert max(sizes) - min(sizes) <= 1


def test_the_order_of_4096_ranks_over_a_billion_samples_is_asked_for_one_rank_alone():
    order = Order(0, [10**9])
    share = deal(batch_positions(123_456, 32_768), 4095, 4096)
    epochs, samples = order.order(share)
    assert share.tolist() == list(range(123_457 * 32_768 - 8, 123_457 * 32_768))
    assert set(epochs.tolist()) == {123_457 * 32_768 // 10**9}
    assert len(set(samples.tolist())) == 8
