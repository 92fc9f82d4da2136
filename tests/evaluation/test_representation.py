"""Rank, spread and yardsticks against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from src.evaluation.representation import (
    feature_std,
    mean_prediction_loss,
    rankme,
    spread,
    variance_between_samples,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# RankMe


@pytest.mark.parametrize("centred", [True, False])
def test_rankme_is_the_paper_s_equation(centred):
    x_NF = normal(300, 40) * np.geomspace(1.0, 1e-3, 40).astype(np.float32) + 0.3
    values = x_NF.astype(np.float64)
    singular = np.linalg.svd(values - values.mean(0) if centred else values)[1]
    shares = [value / sum(singular) + 1e-7 for value in singular]
    expected = np.exp(-sum(share * np.log(share) for share in shares))
    assert rankme(x_NF, centred) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 5, 20])
def test_rankme_does_not_exceed_the_rank(rank):
    x_NF = normal(500, rank) @ normal(rank, 64, seed=1)
    assert 1.0 <= rankme(x_NF) <= rank * (1.0 + 2e-6 * 64)


def test_rankme_of_orthonormal_directions_is_their_number():
    x_NF = np.linalg.qr(normal(500, 64).astype(np.float64))[0]
    assert rankme(x_NF, centred=False) == pytest.approx(64.0, abs=1e-2)
    assert 0.97 * 64 < rankme(normal(20_000, 64)) <= 64.0 + 1e-2


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_rankme_does_not_depend_on_scale(scale):
    x_NF = normal(200, 30) * np.geomspace(1.0, 0.1, 30)
    assert rankme(x_NF * scale) == pytest.approx(rankme(x_NF), rel=1e-9)


def test_a_mean_that_all_share_hides_the_rank_unless_centred():
    x_NF = normal(2_000, 256)
    assert rankme(x_NF + np.float32(1000.0)) == pytest.approx(rankme(x_NF), rel=1e-3) == pytest.approx(252, abs=1)
    assert rankme(x_NF + np.float32(10.0), centred=False) == pytest.approx(57, abs=1)
    assert rankme(x_NF + np.float32(1000.0), centred=False) < 1.3


@pytest.mark.parametrize("centred", [True, False])
def test_constant_features_have_rank_one(centred):
    assert rankme(np.full((100, 16), 3.3, np.float32), centred) == pytest.approx(1.0, abs=1e-3)
    assert rankme(np.zeros((100, 16)), centred) == 1.0


def test_constant_up_to_float32_rounding_is_constant():
    x_NF = np.float32(3.3) * (1.0 + 1e-7 * normal(300, 64)).astype(np.float32)
    assert len(np.unique(x_NF)) > 1 and rankme(x_NF) == 1.0 and spread(x_NF).dead == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_features_give_nan(value):
    x_NF = normal(20, 4)
    x_NF[3, 2] = value
    assert np.isnan(rankme(x_NF))
    assert np.isnan([spread(x_NF).mean, spread(x_NF).minimum, spread(x_NF).dead]).all()


# Spread


def test_std_is_that_of_each_dimension():
    x_NF = normal(100, 5) * [1.0, 2.0, 0.5, 0.0, 1e-3] + [0.0, 5.0, 0.0, 7.0, 1.0]
    expected = [np.sqrt(np.mean((column - column.mean()) ** 2)) for column in x_NF.T]
    np.testing.assert_allclose(feature_std(x_NF), expected, atol=1e-12)
    assert feature_std(x_NF)[3] == 0.0


def test_spread_counts_dead_dimensions_beside_the_mean():
    x_NF = np.sqrt(0.5) * np.outer([1.0, -1.0, 0.0, 0.0], [1.0, 1.0, 0.005, 0.0]) * 2.0
    summary = spread(x_NF)
    assert summary.mean == pytest.approx(2.005 / 4)
    assert (summary.minimum, summary.dead) == (0.0, 0.5)
    assert spread(x_NF, dead_below=0.001).dead == 0.25
    assert spread(x_NF * 1e6).dead == 0.5


# Yardsticks of tokens


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_mean_prediction_loss_is_that_of_a_loop(kind):
    targets = torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(0)) * 3.0
    loss = functional.smooth_l1_loss if kind == "smooth_l1" else functional.l1_loss
    losses = []
    for position in range(5):
        mean = sum(targets[record, position] for record in range(7)) / 7
        losses += [loss(mean, targets[record, position]).item() for record in range(7)]
    assert mean_prediction_loss(targets, kind) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_targets_that_all_records_share_cost_nothing(kind):
    targets = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0)).expand(8, 5, 6)
    assert mean_prediction_loss(targets, kind) == pytest.approx(0.0, abs=1e-6)
    assert mean_prediction_loss(targets.bfloat16(), kind) == pytest.approx(0.0, abs=1e-6)


def test_variance_is_shared_between_positions_and_records():
    generator = torch.Generator().manual_seed(0)
    positions, noise = torch.randn(1, 20, 64, generator=generator), torch.randn(200, 20, 64, generator=generator)
    assert variance_between_samples(positions.expand(200, 20, 64)) == pytest.approx(0.0, abs=1e-9)
    assert variance_between_samples(noise) == pytest.approx(1.0, abs=0.01)
    assert variance_between_samples(positions + noise) == pytest.approx(0.5, abs=0.03)
    assert variance_between_samples(3.0 * positions + noise) == pytest.approx(0.1, abs=0.02)


def test_variance_between_samples_is_the_ratio_of_variances():
    tokens = torch.randn(30, 4, 8, generator=torch.Generator().manual_seed(1)) + torch.arange(8.0)
    normed = ((tokens - tokens.mean(-1, keepdim=True)) / tokens.std(-1, correction=0, keepdim=True)).numpy()
    between = np.mean([normed[:, position].var(0, ddof=1).mean() for position in range(4)])
    total = normed.reshape(-1, 8).var(0, ddof=1).mean()
    assert variance_between_samples(tokens) == pytest.approx(between / total, rel=1e-4)


def test_tokens_that_are_all_equal_share_nothing():
    assert variance_between_samples(torch.ones(4, 3, 2)) == 0.0
    assert np.isnan(variance_between_samples(torch.randn(1, 3, 2)))


# Padding


def test_padding_is_no_part_of_the_yardsticks():
    """Records that end at unequal positions, one by one."""
    tokens = torch.from_numpy(normal(9, 6, 5)) + torch.from_numpy(normal(6, 5, seed=1))
    valid = torch.arange(6) < torch.tensor([6, 6, 5, 4, 3, 3, 2, 1, 6])[:, None]
    garbage = tokens.masked_fill(~valid.unsqueeze(-1), 1e3)
    there = [tokens[valid[:, position], position] for position in range(6)]
    losses = [functional.smooth_l1_loss(own.mean(0).expand_as(own), own, reduction="none").mean(1) for own in there]
    assert mean_prediction_loss(garbage, "smooth_l1", valid) == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    normed = [functional.layer_norm(own, (5,)) for own in there]
    squares, freedom = sum((own - own.mean(0)).square().sum(0) for own in normed), sum(len(own) - 1 for own in normed)
    wanted = (squares / freedom).mean() / torch.cat(normed).var(0).mean()
    assert variance_between_samples(garbage, valid) == pytest.approx(wanted.item(), rel=1e-5)


def test_without_padding_the_yardsticks_are_what_they_are():
    tokens = torch.from_numpy(normal(9, 6, 5))
    everything = torch.ones(9, 6, dtype=torch.bool)
    assert mean_prediction_loss(tokens, "l1", everything) == pytest.approx(mean_prediction_loss(tokens, "l1"), rel=1e-5)
    assert variance_between_samples(tokens, everything) == pytest.approx(variance_between_samples(tokens), rel=1e-5)
