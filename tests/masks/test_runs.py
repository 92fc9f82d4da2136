"""The style runs is Weimann & Conrad's definition: how many tokens are hidden, in which runs, and where."""

import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from src.masks.config import MaskConfig
from src.masks.sampler import MaskSampler
from tests.masks.reference import hide_runs, indicators, p_same_mean, stretches
from tests.masks.test_sampler import coverage, p_flip, streams

Lengths = tuple[int, ...]


def sampler_of(length: int = 200, seed: int = 0, **keys: object) -> MaskSampler:
    return MaskSampler(MaskConfig.model_validate({"style": "runs", **keys}), (length,), seed)


def run_lengths(hidden_BL: np.ndarray) -> list[Lengths]:
    """Of each sample, from left to right."""
    return [tuple(map(len, stretches(set(np.flatnonzero(hidden_L).tolist())))) for hidden_L in hidden_BL]


@pytest.mark.parametrize(
    ("length", "keep", "shortest"),
    [
        (200, (0.15, 0.25), 10),
        (100, (0.15, 0.25), 10),
        (50, (0.5, 0.8), 10),  # as much hidden as one run, or a little more
        (200, (0.01, 0.02), 10),  # next to nothing is kept
        (60, (0.3, 0.3), 7),
        (30, (0.1, 0.9), 1),
        (11, (0.01, 0.01), 10),
    ],
)
def test_each_sample_hides_the_same_number_in_runs_that_are_long_enough(
    length: int, keep: tuple[float, float], shortest: int
) -> None:
    sampler = sampler_of(length, keep=keep, shortest=shortest)
    for step in range(12):
        masks, sizes = sampler(step, streams(300, first=300 * step)), sampler.sizes(step)
        context_BL, target_BL = coverage(masks, length)
        assert masks.context_BK.shape == (300, sizes.context_tokens) and masks.targets_BMT.shape[1] == 1
        assert (context_BL + target_BL == 1).all()
        assert (np.diff(masks.context_BK) > 0).all() and (np.diff(masks.targets_BMT) > 0).all()
        assert min(min(lengths) for lengths in run_lengths(target_BL)) >= shortest


def test_the_number_of_context_tokens_is_a_uniform_share_rounded_up_and_depends_on_the_step_alone() -> None:
    sampler, again = sampler_of(), sampler_of()
    counts = [sampler.sizes(step).context_tokens for step in range(4000)]
    assert counts[:50] == [again.sizes(step).context_tokens for step in reversed(range(50))][::-1]
    assert counts[:50] != [sampler_of(seed=1).sizes(step).context_tokens for step in range(50)]
    found = Counter(counts)
    assert set(found) == set(range(31, 51))
    assert stats.chisquare([found[count] for count in range(31, 51)]).pvalue > 1e-3
    assert sampler_of(50, keep=(0.25, 0.25)).sizes(0).context_tokens == 13  # 12.5


@pytest.mark.parametrize(("length", "shortest"), [(200, 10), (50, 10), (40, 3)])
def test_coverage_and_runs_are_those_of_the_definition(length: int, shortest: int) -> None:
    sampler, rng = sampler_of(length, shortest=shortest), random.Random(1)
    _, ours_BL = coverage(sampler(2, streams(4000)), length)
    hidden = sampler.sizes(2).target_tokens
    theirs_BL = indicators([hide_runs(length, hidden, shortest, rng) for _ in range(4000)], length)
    assert p_same_mean(ours_BL, theirs_BL) > 1e-3
    assert p_same_mean(ours_BL[:, ::-1], theirs_BL) > 1e-3
    ours, theirs = run_lengths(ours_BL), run_lengths(theirs_BL)
    assert p_same_counts(list(map(len, ours)), list(map(len, theirs))) > 1e-3
    for role in (min, max, lambda lengths: lengths[0]):
        assert p_same_counts([role(lengths) for lengths in ours], [role(lengths) for lengths in theirs]) > 1e-3


def p_same_counts(first: list[int], second: list[int]) -> float:
    """Chi-square of two samples of whole numbers, in at most ten groups of about equal size."""
    edges = np.unique(np.quantile([*first, *second], np.linspace(0, 1, 11)))
    edges[-1] += 1
    table = np.array([np.histogram(values, edges)[0] for values in (first, second)])
    return float(stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


def test_those_tests_see_gaps_that_are_drawn_with_equal_weights() -> None:
    sampler, rng = sampler_of(), random.Random(2)
    _, ours_BL = coverage(sampler(2, streams(4000)), 200)
    hidden = sampler.sizes(2).target_tokens
    theirs_BL = indicators([hide_runs(200, hidden, 10, rng, by_length=False) for _ in range(4000)], 200)
    numbers = [list(map(len, run_lengths(hidden_BL))) for hidden_BL in (ours_BL, theirs_BL)]
    assert min(p_same_mean(ours_BL, theirs_BL), p_same_counts(*numbers)) < 1e-6


@pytest.mark.parametrize("length", [50, 100, 200])
def test_coverage_is_symmetric_and_every_token_is_context_and_target_at_some_time(length: int) -> None:
    context_BL, target_BL = coverage(sampler_of(length)(1, streams(4000)), length)
    assert p_flip(context_BL, (length,), 0) > 1e-3
    assert context_BL.any(0).all() and target_BL.any(0).all()


def test_a_samples_runs_do_not_depend_on_its_batch() -> None:
    sampler = sampler_of()
    whole = sampler(7, streams(128))
    for row in (0, 3, 127):
        alone = sampler(7, streams(1, first=row))
        np.testing.assert_array_equal(alone.context_BK[0], whole.context_BK[row])
        np.testing.assert_array_equal(alone.targets_BMT[0], whole.targets_BMT[row])


def test_the_defaults_have_the_numbers_of_the_published_masks() -> None:
    """Those of 60,000 samples of 200 tokens drawn by the rules of the authors' public code."""
    sampler, kept, runs, covered = sampler_of(seed=1), [], [], []
    for step in range(1200):
        context_BL, target_BL = coverage(sampler(step, streams(8, first=8 * step)), 200)
        kept.append(context_BL.sum(1).mean())
        runs.append((np.diff(target_BL, prepend=0) == 1).sum(1).mean())
        covered.append(context_BL.mean(0))
    share_L = np.mean(covered, axis=0)
    assert np.mean(kept) == pytest.approx(40.5, abs=0.5)
    assert np.mean(runs) == pytest.approx(2.67, abs=0.05)
    assert share_L[90:110].mean() == pytest.approx(0.093, abs=0.006)
    assert share_L[[20, 40, 60, 80]] == pytest.approx([0.270, 0.159, 0.118, 0.098], abs=0.015)
    assert share_L[[0, -1]] == pytest.approx(0.781, abs=0.015)


def test_runs_that_cannot_be_drawn_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^mask\.style: runs is for a signal of one axis, not .*\(14, 14\) tokens$"):
        MaskSampler(MaskConfig(style="runs"), (14, 14), seed=0)
    with pytest.raises(ValueError, match=r"^mask\.keep: up to 0.25 of 12 tokens leave 9 to hide.* lower mask\.keep"):
        sampler_of(12)
    with pytest.raises(ValueError, match=r"^mask\.keep: up to 1.0 of 50 tokens leave 0 to hide"):
        sampler_of(50, keep=(0.5, 1.0))


def test_a_key_of_blocks_is_told_to_do_nothing() -> None:
    with pytest.warns(UserWarning, match=r"mask\.targets has no effect: style runs"):
        sampler_of(targets=5)
