"""The plain engine against torch itself: one big batch, torch's AdamW, and gradients that are not finite."""

import copy
import math

import pytest
import torch
from torch import nn

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup

KEYS = [f"s{i}" for i in range(12)]


class Objective(nn.Module):
    """Two losses with counts of their own: tokens of unequal texts, and labels of which some are unknown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Linear(3, 4)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.head = nn.Linear(4, 1)
        self.coefficients = {"tokens": 1.0, "labels": 0.5}

    def forward(self, batch, mode="train"):
        features = self.student(batch["x"])
        drift = (features - self.teacher(batch["x"])) ** 2
        tokens = ((features + drift).mean(-1) * batch["lengths"]).sum()
        known = ~batch["labels"].isnan()
        errors = (self.head(features)[:, 0] - batch["labels"].nan_to_num()) ** 2
        return {"tokens": tokens, "labels": torch.where(known, errors, 0.0).sum()}

    def weights(self, batch):
        return {"tokens": float(batch["lengths"].sum()), "labels": float((~batch["labels"].isnan()).sum())}


def make_batch():
    generator = torch.Generator().manual_seed(5)
    labels = torch.randn(12, generator=generator)
    labels[[0, 1, 2, 7]] = math.nan
    lengths = torch.randint(1, 9, (12,), generator=generator).float()
    return {"x": torch.randn(12, 3, generator=generator), "lengths": lengths, "labels": labels, "keys": KEYS}


def cut(batch, sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append({name: value[start : start + size] for name, value in batch.items()})
        start += size
    return parts


def make_engine(precision="fp32", **optimization):
    settings = OptimizationConfig(**{"steps": 10, "lr": 0.1, "weight_decay": 0.3, "clip": 0.5} | optimization)
    setup = Setup(
        config=EngineConfig(precision=precision),
        optimization=settings,
        ranks=Ranks(0, 1, torch.device("cpu")),
        seed=4,
        learning_rate=lambda step: 0.1 / (step + 1),
        weight_decay=lambda step: 0.3 - 0.01 * step,
    )
    return build_engine(Objective(), setup)


def reference_loss(objective, batch):
    sums, weights = objective(batch), objective.weights(batch)
    return sum(objective.coefficients[name] * sums[name] / weights[name] for name in sums)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [1, 4, 7], [3, 9], [1] * 12])
def test_gradient_and_losses_are_the_big_batchs_however_it_is_cut(sizes):
    engine, objective, batch = make_engine(), Objective(), make_batch()
    loss = reference_loss(objective, batch)
    loss.backward()
    losses = engine.forward_backward(0, cut(batch, sizes))
    assert losses["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(engine.trainable[name].grad, parameter.grad, rtol=1e-5, atol=1e-7)


def test_steps_are_torchs_adamw_with_this_steps_rates_and_the_papers_ema():
    engine, objective = make_engine(networks={"head": {"lr": 0.25, "weight_decay": 3.0}}), Objective()
    decayed, plain = [objective.student.weight, objective.head.weight], [objective.student.bias, objective.head.bias]
    slower, more = [0.25 if "head" in name else 1.0 for name in ("student", "head") * 2], [1.0, 3.0, 0.0, 0.0]
    optimizer = torch.optim.AdamW([{"params": [parameter]} for parameter in decayed + plain])
    for step in range(6):
        batch = make_batch()
        batch["x"] += step
        engine.forward_backward(0, cut(batch, [5, 7]))
        engine.step(step)
        engine.ema("teacher", "student", 0.9)
        reference_loss(objective, batch).backward()
        norm = nn.utils.clip_grad_norm_(decayed + plain, 0.5)
        assert engine.metrics()["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        for group, rate, decay in zip(optimizer.param_groups, slower, more, strict=True):
            group["lr"], group["weight_decay"] = 0.1 / (step + 1) * rate, (0.3 - 0.01 * step) * decay
        assert engine.metrics()["lr/head"] == engine.metrics()["lr/student"] / 4
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for average, value in zip(objective.teacher.parameters(), objective.student.parameters(), strict=True):
                average.copy_(0.9 * average + 0.1 * value)
    for name, parameter in objective.named_parameters():
        torch.testing.assert_close(engine.parameters[name], parameter, rtol=1e-4, atol=1e-6, msg=name)


def snapshot(engine):
    moments = [
        engine.optimizer.state[p][kind].clone() for p in engine.trainable.values() for kind in ("exp_avg", "step")
    ]
    return [p.detach().clone() for p in engine.parameters.values()] + moments


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    engine, batch = make_engine(), make_batch()
    engine.forward_backward(0, [batch])
    engine.step(0)
    before = snapshot(engine)
    broken = make_batch()
    broken["x"][3] = math.nan
    engine.forward_backward(0, cut(broken, [6, 6]))
    engine.step(1)
    engine.ema("teacher", "student", 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(engine), strict=True))
    assert engine.state()["skipped_steps"] == 1 and engine.optimizer_steps == 1
    engine.forward_backward(0, [batch])
    engine.step(2)
    assert engine.state() == {"skipped_steps": 1, "skipped_in_a_row": 0, "empty_losses": {}}


def test_too_many_skipped_steps_stop_the_run_and_name_the_samples():
    engine = make_engine(max_skipped=2)
    broken = make_batch()
    broken["x"][7] = math.inf
    engine.forward_backward(0, cut(broken, [6, 6]))
    engine.step(0)
    engine.forward_backward(0, cut(broken, [6, 6]))
    with pytest.raises(ValueError, match=r"2 steps in a row .*rank 0: s6, s7, s8, s9, s10, s11;"):
        engine.step(1)


def test_a_loss_that_nothing_counts_for_is_zero_and_counted():
    engine, batch = make_engine(), make_batch()
    batch["labels"][:] = math.nan
    losses = engine.forward_backward(0, [batch])
    engine.step(0)
    assert losses["labels"] == 0 and torch.isfinite(losses["loss"])
    assert engine.state()["empty_losses"] == {"labels": 1} and engine.optimizer_steps == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_for_which_nothing_counts_is_skipped(precision):
    """Moments would move the weights on, and decay shrink them, for the sake of no sample."""
    engine, batch = make_engine(precision), make_batch()
    engine.forward_backward(0, [batch])
    engine.step(0)
    before = snapshot(engine)
    batch["labels"][:], batch["lengths"][:] = math.nan, 0.0
    losses = engine.forward_backward(1, cut(batch, [6, 6]))
    engine.step(1)
    engine.ema("teacher", "student", 0.5)
    assert set(losses) == {"tokens", "labels", "loss"} and not any(losses.values())
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(engine), strict=True))
    assert engine.state()["skipped_steps"] == 1 and engine.optimizer_steps == 1


def test_bf16_is_autocast_and_leaves_parameters_in_fp32():
    engine, batch = make_engine(precision="bf16"), make_batch()
    exact = make_engine().forward_backward(0, [batch])["loss"].item()
    rounded = engine.forward_backward(0, [batch])["loss"].item()
    engine.step(0)
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.05)
    assert all(p.dtype == torch.float32 for p in engine.parameters.values())


def test_a_parameter_that_a_step_does_not_touch_gets_zeros():
    engine, batch = make_engine(), make_batch()
    engine.objective.forward = lambda batch, mode: {
        "tokens": engine.objective.student(batch["x"]).sum(),
        "labels": engine.objective.student(batch["x"]).sum(),
    }
    engine.forward_backward(0, [batch])
    engine.step(0)
    assert engine.optimizer.state[engine.objective.head.weight]["step"] == 1


def test_dropout_is_a_function_of_step_and_micro_batch():
    def losses(step, sizes):
        engine = make_engine()
        engine.objective.student = nn.Sequential(engine.objective.student, nn.Dropout(0.5))
        torch.rand(step * 7 + 1)  # whatever was drawn before, as after a resume
        return engine.forward_backward(step, cut(make_batch(), sizes))["loss"].item()

    assert losses(3, [6, 6]) == losses(3, [6, 6])
    assert losses(3, [6, 6]) != losses(4, [6, 6])


def test_tied_parameters_are_saved_once_and_passing_buffers_not_at_all():
    engine = make_engine()
    objective = engine.objective
    objective.tied = nn.Linear(3, 4)
    objective.tied.weight = objective.student.weight
    objective.register_buffer("counter", torch.zeros(2))
    objective.register_buffer("positions", torch.zeros(2), persistent=False)
    kept = [(piece.kind, piece.name) for piece in engine.pieces()]
    assert ("buffer", "counter") in kept and len(set(kept)) == len(kept)
    assert not {("buffer", "positions"), ("buffer", "tied.weight"), ("model", "tied.weight")} & set(kept)


def test_metrics_tell_what_each_loss_ran_over():
    engine, batch = make_engine(), make_batch()
    batch["labels"][:] = math.nan
    engine.forward_backward(0, cut(batch, [5, 7]))
    engine.step(0)
    assert engine.metrics()["weight/tokens"] == batch["lengths"].sum() and engine.metrics()["weight/labels"] == 0
    assert engine.metrics()["empty_steps/labels"] == 1
