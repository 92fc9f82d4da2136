import hashlib

import numpy as np
import pytest
from scipy import stats

from src.randomness import GOLDEN, Streams, derive_seed, mix

WORD = 2**64


def samples(batch: int, seed: int = 0, epoch: int = 0) -> Streams:
    return Streams.of_samples(seed, np.full(batch, epoch), np.arange(batch))


# SplitMix64 and the addresses once more, in Python's integers


def python_mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def python_fold(key: int, *parts: int | str) -> int:
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        key = python_mix(python_mix((key + int(GOLDEN)) % WORD) ^ part)
    return key


def python_uniform(key: int, count: int) -> list[float]:
    return [(python_mix((key + i * int(GOLDEN)) % WORD) >> 11) / 2**53 for i in range(1, count + 1)]


def test_bits_are_those_of_the_published_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]  # of seed 1234567
    states = np.uint64(1234567) + np.arange(1, 5, dtype=np.uint64) * GOLDEN
    assert mix(states).tolist() == published == [python_mix(int(state)) for state in states]


def test_addresses_are_the_same_on_every_machine() -> None:
    root = python_fold(0, 7, "sample") >> 1
    ours = Streams.of_samples(7, np.array([2]), np.array([5])).fork("mask").fork(3).uniform("scale", 4)[0]
    assert ours.tolist() == python_uniform(python_fold(root, 2, 5, "mask", 3, "scale"), 4)
    step = python_fold(0, 7, "step", 11) >> 1
    assert Streams.of_step(7, 11).uniform("scale", 2)[0].tolist() == python_uniform(python_fold(step, "scale"), 2)
    assert derive_seed(7, "step", 11) == step == 4222741735916431833
    assert ours[0] == 0.9613969057117762


def test_uniforms_are_uniform() -> None:
    for drawn in (
        samples(20000).uniform("a"),
        samples(20).uniform("a", 1000),
        Streams.of_step(0, 3).uniform("a", 20000),
    ):
        assert drawn.min() >= 0.0 and drawn.max() < 1.0
        assert stats.kstest(drawn.reshape(-1), "uniform").pvalue > 1e-3


def test_normals_have_the_moments_of_a_normal() -> None:
    drawn = samples(200).normal("n", 10, 25)
    assert drawn.shape == (200, 10, 25)
    assert stats.kstest(drawn.reshape(-1), "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert np.mean(drawn**power) == pytest.approx(moment, abs=0.1)


def test_integers_are_uniform_and_reach_both_ends() -> None:
    drawn = samples(7000).integers("i", 7)
    assert set(drawn.tolist()) == set(range(7))
    assert stats.chisquare(np.bincount(drawn)).pvalue > 1e-3


def test_integers_take_a_count_of_their_own_for_each_sample() -> None:
    counts = np.array([1, 2, 5, 10])
    drawn = samples(4).integers("i", counts, 3000)
    assert (drawn.min(1) == 0).all() and (drawn.max(1) == counts - 1).all()
    for row, count in zip(drawn[1:], counts[1:], strict=True):
        assert stats.chisquare(np.bincount(row, minlength=count)).pvalue > 1e-3


@pytest.mark.parametrize(
    "other",
    [
        samples(20000).uniform("b"),
        samples(20000, epoch=1).uniform("a"),
        samples(20000, seed=1).uniform("a"),
        samples(20001)[1:].uniform("a"),
        samples(20000).fork("f").uniform("a"),
        samples(20000).fork(0).uniform("a"),
        samples(20000).uniform("a", 2)[:, 1],
    ],
    ids=["name", "epoch", "seed", "sample", "fork", "attempt", "draw"],
)
def test_neighbouring_addresses_are_independent(other: np.ndarray) -> None:
    table = np.histogram2d(samples(20000).uniform("a"), other, bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.reshape(-1)).pvalue > 1e-3


def test_steps_and_samples_of_one_seed_are_independent() -> None:
    steps = np.array([Streams.of_step(0, step).uniform("a")[0] for step in range(2000)])
    assert stats.kstest(steps, "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(steps, samples(2000).uniform("a")).statistic) < 0.075
    assert abs(stats.pearsonr(steps[1:], steps[:-1]).statistic) < 0.075


def test_a_sample_draws_the_same_in_any_batch() -> None:
    whole, rows = samples(100), np.array([90, 3, 40])
    part = Streams.of_samples(0, np.zeros(3, np.int64), rows)
    for streams in (part, whole[rows]):
        np.testing.assert_array_equal(streams.normal("n", 3), whole.normal("n", 3)[rows])
        np.testing.assert_array_equal(streams.integers("i", 9, 3), whole.integers("i", 9, 3)[rows])
    np.testing.assert_array_equal(whole[:1].uniform("u", 5)[:, :3], whole[:1].uniform("u", 3))


def test_a_billion_samples_have_distinct_keys_nearby() -> None:
    far = Streams.of_samples(0, np.zeros(10000, np.int64), np.arange(10000) * 10**5)
    assert len(np.unique(far.keys_B)) == 10000


def test_no_warning_of_overflow() -> None:
    with np.errstate(all="raise"):
        samples(10).fork(2**63).normal("n", 2)
