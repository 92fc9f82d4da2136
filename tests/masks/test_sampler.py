import pickle
import random

import numpy as np
import pytest
from scipy import stats

from src.masks import sampler as sampler_module
from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler, Sizes
from src.randomness import Streams
from tests.masks.reference import draw, indicators, p_same_mean, p_zero_mean, remaining

STYLES = ("multiblock", "complement", "legacy_ijepa")
GRIDS = ((50,), (9, 7), (3, 6, 5))
SMALL = {"min_context": 4}


def streams(batch: int, first: int = 0) -> Streams:
    samples_B = np.arange(first, first + batch)
    return Streams.of_samples(5, np.zeros(batch, np.int64), samples_B)


def coverage(masks: Masks, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Context and targets as indicators [B, L]."""
    context_BL, target_BL = np.zeros((2, len(masks.context_BK), length))
    np.put_along_axis(context_BL, masks.context_BK, 1.0, axis=1)
    np.put_along_axis(target_BL, masks.targets_BMT.reshape(len(target_BL), -1), 1.0, axis=1)
    return context_BL, target_BL


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("grid", GRIDS)
def test_coverage_is_that_of_the_definition(style: str, grid: tuple[int, ...]) -> None:
    config, length, rng = MaskConfig(style=style, **SMALL), int(np.prod(grid)), random.Random(1)
    sampler = MaskSampler(config, grid, seed=3)
    context_BL, target_BL = coverage(sampler(2, streams(4000)), length)
    wanted = [draw(grid, sampler.sizes(2), config.targets, rng, style) for _ in range(1500)]
    for ours, theirs in ((context_BL, [c for c, _ in wanted]), (target_BL, [t for _, t in wanted])):
        reference = indicators(theirs, length)
        assert p_same_mean(ours, reference) > 1e-3
        np.testing.assert_allclose(ours.mean(0), reference.mean(0), atol=0.07)


@pytest.mark.parametrize("grid", [(50,), (9, 7)])
@pytest.mark.parametrize("style", ["multiblock", "complement"])
def test_context_count_is_the_median_of_what_remains(style: str, grid: tuple[int, ...]) -> None:
    sampler, rng = MaskSampler(MaskConfig(style=style, **SMALL), grid, seed=0), random.Random(2)
    reached, exceeded = [], []
    for step in range(6):
        sizes = sampler.sizes(step)
        left = np.array([len(remaining(grid, sizes.target_shape, sizes.context_shape, 4, rng)[0]) for _ in range(500)])
        reached.append(np.mean(left >= sizes.context_tokens))
        exceeded.append(np.mean(left > sizes.context_tokens))
    # both Monte Carlos err: 0.04 for one step, 0.016 for the mean
    assert min(reached) > 0.38 and max(exceeded) < 0.62
    assert np.mean(reached) > 0.45 and np.mean(exceeded) < 0.55


def test_legacy_count_is_the_minimum_of_a_batch_of_128() -> None:
    grid, rng = (14, 14), random.Random(3)
    sampler = MaskSampler(MaskConfig(style="legacy_ijepa"), grid, seed=0)
    ours, theirs = [], []
    for step in range(16):
        sizes = sampler.sizes(step)
        draws = [remaining(grid, sizes.target_shape, sizes.context_shape, 4, rng, legacy=True)[0] for _ in range(128)]
        ours.append(sizes.context_tokens)
        theirs.append(min(len(free) for free in draws if len(free) >= 10))
    assert stats.ttest_rel(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("grid", GRIDS)
def test_context_and_targets_are_disjoint_and_counted_by_the_step(style: str, grid: tuple[int, ...]) -> None:
    config, length = MaskConfig(style=style, **SMALL), int(np.prod(grid))
    sampler = MaskSampler(config, grid, seed=1)
    for step, batch in enumerate([1, 2, 5, 64, 1000]):
        sizes, masks = sampler.sizes(step), sampler(step, streams(batch))
        blocks = 1 if style == "complement" else config.targets
        assert masks.context_BK.dtype == masks.targets_BMT.dtype == np.int64
        assert masks.context_BK.shape == (batch, sizes.context_tokens)
        assert masks.targets_BMT.shape == (batch, blocks, sizes.target_tokens)
        assert (np.diff(masks.context_BK) > 0).all() and (np.diff(masks.targets_BMT) > 0).all()
        context_BL, target_BL = coverage(masks, length)
        assert not (context_BL * target_BL).any()
        if style == "complement":
            assert (context_BL + target_BL == 1).all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_samples_masks_do_not_depend_on_its_batch(style: str, grid: tuple[int, ...]) -> None:
    sampler = MaskSampler(MaskConfig(style=style, **SMALL), grid, seed=1)
    whole = sampler(7, streams(128))
    for row in (0, 3, 127):
        alone = sampler(7, streams(1, first=row))
        np.testing.assert_array_equal(alone.context_BK[0], whole.context_BK[row])
        np.testing.assert_array_equal(alone.targets_BMT[0], whole.targets_BMT[row])


Sets = list[tuple[set[int], set[int]]]  # (context, targets) of samples


def one_of_each_batch(sampler: MaskSampler, steps: range, batch: int) -> Sets:
    """The last sample of each step's batch: of different steps, so that all samples are independent."""
    found = []
    for step in steps:
        masks = sampler(step, streams(batch, first=step * batch))
        found.append((set(masks.context_BK[-1].tolist()), set(masks.targets_BMT[-1].reshape(-1).tolist())))
    return found


def p_same_distribution(first: Sets, second: Sets, length: int) -> tuple[float, float, float]:
    """Of equal numbers of context tokens, equal coverage by context, equal coverage by targets."""
    counts = stats.ks_2samp([len(context) for context, _ in first], [len(context) for context, _ in second]).pvalue
    roles = zip(zip(*first, strict=True), zip(*second, strict=True), strict=True)
    context, target = (p_same_mean(indicators(list(a), length), indicators(list(b), length)) for a, b in roles)
    return float(counts), context, target


@pytest.mark.parametrize("style", [*STYLES, "runs"])
def test_masks_over_steps_have_the_same_distribution_at_batch_1_and_128(style: str) -> None:
    sampler = MaskSampler(MaskConfig(style=style), (50,), seed=0)
    alone, together = one_of_each_batch(sampler, range(300), 1), one_of_each_batch(sampler, range(300, 600), 128)
    assert min(p_same_distribution(alone, together, 50)) > 1e-3
    for step in (0, 1, 2):
        assert len(sampler(step, streams(1)).context_BK[0]) == len(sampler(step, streams(128)).context_BK[0])


@pytest.mark.parametrize("cut", ["first", "random"])
def test_that_test_sees_contexts_cut_to_the_smallest_of_their_batch(cut: str) -> None:
    sampler, rng = MaskSampler(MaskConfig(), (50,), seed=0), random.Random(4)

    def cut_to_the_batch(steps: range, batch: int) -> Sets:
        found = []
        for step in steps:
            sizes = sampler.sizes(step)
            draws = [remaining((50,), sizes.target_shape, sizes.context_shape, 4, rng) for _ in range(batch)]
            count, (free, hidden) = min(len(free) for free, _ in draws), draws[-1]
            found.append((set(sorted(free)[:count] if cut == "first" else rng.sample(sorted(free), count)), hidden))
        return found

    alone, together = cut_to_the_batch(range(150), 1), cut_to_the_batch(range(150, 300), 128)
    counts, context, target = p_same_distribution(alone, together, 50)
    assert counts < 1e-6 and context < 1e-6 and target > 1e-3


@pytest.mark.parametrize("style", ["multiblock", "complement"])
def test_masks_over_steps_are_those_of_the_definition_with_sizes_drawn_apart(style: str) -> None:
    config, rng = MaskConfig(style=style), random.Random(5)

    def sizes_of_a_step() -> Sizes:
        while True:
            target = (round(50 * rng.uniform(0.15, 0.2)),)
            context = (round(50 * rng.uniform(0.85, 1.0)),) if style == "multiblock" else (50,)
            left = [len(remaining((50,), target, context, 4, rng)[0]) for _ in range(256)]
            if np.median(left) >= config.min_context:
                return Sizes(target, context, int(np.median(left)), 0)

    wanted = [draw((50,), sizes_of_a_step(), 4, rng, style) for _ in range(150)]
    ours = one_of_each_batch(MaskSampler(config, (50,), seed=0), range(600), 1)
    assert min(p_same_distribution(ours, wanted, 50)) > 1e-3


def test_sizes_are_a_function_of_seed_and_step_only() -> None:
    config = MaskConfig()
    forwards, backwards = MaskSampler(config, (50,), seed=1), MaskSampler(config, (50,), seed=1)
    steps = list(range(12))
    sizes = [forwards.sizes(step) for step in steps]
    assert sizes == [backwards.sizes(step) for step in reversed(steps)][::-1]
    other = MaskSampler(config, (50,), seed=2)
    assert sizes != [other.sizes(step) for step in steps]
    assert len(set(sizes)) > 5
    assert pickle.loads(pickle.dumps(forwards)).sizes(3) == sizes[3]  # noqa: S301


@pytest.mark.parametrize("style", ["multiblock", "complement"])
@pytest.mark.parametrize("grid", [(50,), (100,), (200,), (16, 16)])
def test_every_token_is_sometimes_context_and_sometimes_target(style: str, grid: tuple[int, ...]) -> None:
    length = int(np.prod(grid))
    context_BL, target_BL = coverage(MaskSampler(MaskConfig(style=style), grid, seed=0)(0, streams(3000)), length)
    assert context_BL.any(0).all() and target_BL.any(0).all()


@pytest.mark.parametrize("style", ["multiblock", "complement"])
@pytest.mark.parametrize("grid", GRIDS)
def test_coverage_is_symmetric_under_reversal(style: str, grid: tuple[int, ...]) -> None:
    length = int(np.prod(grid))
    sampler = MaskSampler(MaskConfig(style=style, **SMALL), grid, seed=0)
    for covered_BL in coverage(sampler(1, streams(4000)), length):
        for axis in range(len(grid)):
            assert p_flip(covered_BL, grid, axis) > 1e-3


def p_flip(covered_BL: np.ndarray, grid: tuple[int, ...], axis: int) -> float:
    """Of the hypothesis that coverage does not change when an axis is reversed."""
    covered = covered_BL.reshape(-1, *grid)
    difference = covered - np.flip(covered, axis + 1)
    half = np.take(difference, range(grid[axis] // 2), axis + 1)  # the other half is its mirror image
    return p_zero_mean(half.reshape(len(half), -1)) if half.any() else 1.0  # tubes are the same in every frame


def test_the_symmetry_test_sees_a_missing_last_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        MaskSampler, "_places", lambda self, shape: tuple(g - b for g, b in zip(self.grid, shape, strict=True))
    )
    sampler = MaskSampler(MaskConfig(context_scale=(0.8, 0.9)), (50,), seed=0)
    context_BL, target_BL = coverage(sampler(0, streams(4000)), 50)
    assert p_flip(context_BL, (50,), 0) < 1e-6 and p_flip(target_BL, (50,), 0) < 1e-6


@pytest.mark.parametrize("grid", [(50,), (14, 14)])
def test_legacy_never_covers_the_last_row_and_column(grid: tuple[int, ...]) -> None:
    sampler = MaskSampler(MaskConfig(style="legacy_ijepa"), grid, seed=0)
    for step in range(10):
        covered = sum(coverage(sampler(step, streams(300)), int(np.prod(grid)))).sum(0).reshape(grid)
        for axis in range(len(grid)):
            assert not np.take(covered, -1, axis).any()


def test_legacy_starves_the_end_of_the_grid_and_the_default_does_not() -> None:
    frequency = {}
    for style in ("legacy_ijepa", "multiblock"):
        sampler = MaskSampler(MaskConfig(style=style), (16, 16), seed=0)
        context = sum(coverage(sampler(step, streams(200)), 256)[0].mean(0) for step in range(20)) / 20
        frequency[style] = context.reshape(16, 16).mean(1)
    assert frequency["legacy_ijepa"][0] > 0.6 and frequency["legacy_ijepa"][14] < 0.1
    assert frequency["multiblock"][15] == pytest.approx(frequency["multiblock"][0], abs=0.05)


@pytest.mark.parametrize(("style", "correlated"), [("multiblock", False), ("legacy_ijepa", True)])
def test_scale_and_aspect_are_drawn_apart(style: str, correlated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "COUNT_DRAWS", 4)
    sampler = MaskSampler(MaskConfig(style=style, legacy_batch=4 if correlated else 128), (64, 64), seed=0)
    shapes = np.array([sampler.sizes(step).target_shape for step in range(200)], float)
    scale, aspect = shapes[:, 0] * shapes[:, 1] / 64**2, shapes[:, 0] / shapes[:, 1]
    assert scale.min() == pytest.approx(0.15, abs=0.006) and scale.max() == pytest.approx(0.2, abs=0.006)
    assert aspect.min() == pytest.approx(0.75, abs=0.06) and aspect.max() == pytest.approx(1.5, abs=0.06)
    correlation = stats.pearsonr(scale, aspect)
    assert correlation.statistic > 0.95 if correlated else correlation.pvalue > 1e-3


def test_video_blocks_are_tubes_of_full_length_or_of_the_given_share() -> None:
    grid = (8, 6, 6)
    tubes = MaskSampler(MaskConfig(), grid, seed=0)
    _, target_BL = coverage(tubes(0, streams(20)), 288)
    frames = target_BL.reshape(20, 8, 36)
    assert (frames == frames[:, :1]).all()
    short = MaskSampler(MaskConfig(temporal_scale=(0.5, 0.5)), grid, seed=0)
    assert short.sizes(0).target_shape[0] == 4 and short.sizes(0).context_shape[0] == 8


VJEPA = {
    "short": MaskConfig(style="complement", targets=8, target_scale=(0.15, 0.15), min_context=4),
    "long": MaskConfig(style="complement", targets=2, target_scale=(0.7, 0.7), min_context=4),
}


@pytest.mark.parametrize("tubes", VJEPA)
def test_tubes_of_vjepa_are_those_of_the_definition_symmetric_and_a_partition(tubes: str) -> None:
    grid, rng = (4, 6, 6), random.Random(6)
    sampler = MaskSampler(VJEPA[tubes], grid, seed=0)
    context_BL, target_BL = coverage(sampler(2, streams(4000)), 144)
    wanted = [draw(grid, sampler.sizes(2), VJEPA[tubes].targets, rng, "complement")[0] for _ in range(1500)]
    assert p_same_mean(context_BL, indicators(wanted, 144)) > 1e-3
    assert min(p_flip(context_BL, grid, axis) for axis in range(3)) > 1e-3
    assert (context_BL + target_BL == 1).all() and len(np.unique(context_BL.sum(1))) == 1


@pytest.mark.parametrize("tubes", VJEPA)
def test_tubes_span_all_frames_and_every_token_is_context_and_target_at_some_time(tubes: str) -> None:
    grid = (8, 14, 14)
    sampler = MaskSampler(VJEPA[tubes], grid, seed=0)
    assert {sampler.sizes(step).target_shape[0] for step in range(5)} == {8}
    covered = [coverage(sampler(step, streams(60, first=60 * step)), 1568) for step in range(20)]
    for context_BL, _ in covered:  # nothing is asked for whose neighbour in time is seen
        frames_BTP = context_BL.reshape(60, 8, 196)
        assert (frames_BTP == frames_BTP[:, :1]).all()
    context_L, target_L = (sum(of_step[role].sum(0) for of_step in covered) for role in (0, 1))
    if tubes == "short":
        assert context_L.all() and target_L.all()
    else:  # two blocks that hide most always meet in the middle
        assert target_L.all() and context_L.reshape(grid)[:, [0, -1]].all() and context_L.reshape(grid)[:, :, 0].all()


def test_the_kinds_of_masks_of_a_sample_are_independent() -> None:
    counts = []
    for name, tubes in enumerate(VJEPA):
        of_kind = streams(2000).fork(f"mask {name}")
        context_BL, _ = coverage(MaskSampler(VJEPA[tubes], (2, 8, 8), seed=name)(0, of_kind), 128)
        counts.append(context_BL.reshape(-1, 2, 8, 8)[..., :4].mean((1, 2, 3)))  # where the context lies: left or right
    assert stats.pearsonr(*counts).pvalue > 1e-3
    same = [MaskSampler(VJEPA["short"], (2, 8, 8), seed=0)(0, streams(200).fork(f"mask {kind}")) for kind in (0, 1)]
    assert not np.array_equal(same[0].context_BK, same[1].context_BK)


def test_legacy_falls_along_time_and_the_default_does_not() -> None:
    frequency = {}
    for style, keys in (("legacy_ijepa", {"context_scale": (1.0, 1.0)}), ("complement", {})):
        sampler = MaskSampler(MaskConfig(style=style, targets=8, target_scale=(0.15, 0.15), **keys), (8, 14, 14), 0)
        context = sum(coverage(sampler(step, streams(50)), 1568)[0].mean(0) for step in range(10)) / 10
        frequency[style] = context.reshape(8, 196).mean(1)
    assert frequency["legacy_ijepa"][0] > 0.2 and frequency["legacy_ijepa"][-1] < 0.02
    assert frequency["complement"][-1] == pytest.approx(frequency["complement"][0], abs=0.01)


def test_a_legacy_batch_of_one_never_asks_for_more_than_positions_reach() -> None:
    keys = {"targets": 8, "target_scale": (0.15, 0.15), "context_scale": (1.0, 1.0), "legacy_batch": 1}
    sampler = MaskSampler(MaskConfig(style="legacy_ijepa", **keys), (8, 14, 14), seed=0)
    assert sampler(34, streams(1)).context_BK.shape[1] == sampler.sizes(34).context_tokens


def test_sizes_that_leave_no_context_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"mask\.min_context.*\(16,\)"):
        MaskSampler(MaskConfig(), (16,), seed=0)
    with pytest.raises(ValueError, match=r"\(3, 3\) tokens leave fewer than 5 .* \(in each of 2 frames\)"):
        MaskSampler(MaskConfig(style="complement", targets=8, target_scale=(0.5, 0.5)), (2, 3, 3), seed=0)
    with pytest.raises(ValueError, match=r"mask\.min_context"):
        MaskSampler(MaskConfig(style="complement", target_scale=(1.0, 1.0)), (14, 14), seed=0)
    with pytest.raises(ValueError, match="1, 2 or 3 axes"):
        MaskSampler(MaskConfig(), (2, 2, 2, 2), seed=0)


def test_sizes_that_leave_too_little_are_drawn_again() -> None:
    config = MaskConfig(targets=1, target_scale=(0.2, 0.9), min_context=20)
    sampler = MaskSampler(config, (50,), seed=0)
    sizes = [sampler.sizes(step) for step in range(100)]
    assert min(s.context_tokens for s in sizes) >= 20
    assert max(s.target_tokens for s in sizes) <= 30


def test_a_setting_that_does_nothing_is_told() -> None:
    with pytest.warns(UserWarning, match=r"mask\.temporal_scale has no effect"):
        MaskSampler(MaskConfig(temporal_scale=(0.5, 1.0)), (50,), seed=0)
