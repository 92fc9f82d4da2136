"""Schedules at their ends and against the textbook formula."""

import math

import pytest

from src.config.optimization import OptimizationConfig
from src.optimization.schedules import cosine, count_steps, learning_rate, linear, warmup_steps
from src.optimization.schedules import weight_decay as decay_of


def rates(**keys):
    return OptimizationConfig(epochs=1, **keys)


def test_warmup_cosine_reaches_start_peak_and_end():
    lr = learning_rate(rates(lr=1e-3, start_lr=2e-4, final_lr=1e-6), warmup=40, steps=300)
    assert lr(0) == 2e-4
    assert lr(40) == 1e-3
    assert lr(299) == pytest.approx(1e-6)
    assert lr(20) == pytest.approx((2e-4 + 1e-3) / 2)
    half = 40 + 259 / 2
    assert (lr(int(half)) + lr(int(half) + 1)) / 2 == pytest.approx((1e-3 + 1e-6) / 2, rel=1e-3)


def test_warmup_cosine_rises_then_falls():
    lr = [learning_rate(rates(lr=1.0), warmup=10, steps=50)(step) for step in range(50)]
    assert all(a < b for a, b in zip(lr[:10], lr[1:11], strict=True))
    assert all(a > b for a, b in zip(lr[10:], lr[11:], strict=False))


def test_a_constant_rate_stays_behind_its_warmup():
    """V-JEPA 2's: a warm-up from 1e-4, then 5.25e-4 to the end."""
    lr = learning_rate(rates(lr=5.25e-4, start_lr=1e-4, schedule="constant"), warmup=12, steps=90)
    assert lr(0) == 1e-4 and lr(6) == pytest.approx((1e-4 + 5.25e-4) / 2)
    assert {lr(step) for step in range(12, 90)} == {5.25e-4}


def test_a_linear_rate_falls_to_its_end():
    lr = learning_rate(rates(lr=1.0, final_lr=0.1, schedule="linear"), warmup=0, steps=10)
    assert [lr(step) for step in range(10)] == pytest.approx([1.0 - 0.1 * step for step in range(10)])


def test_a_constant_rate_has_no_end():
    with pytest.raises(ValueError, match="schedule constant never reaches a final_lr"):
        rates(lr=1.0, final_lr=0.1, schedule="constant")


def test_cosine_and_linear_follow_their_formulas():
    for step in range(101):
        assert cosine(0.04, 0.4, 101)(step) == pytest.approx(0.22 - 0.18 * math.cos(math.pi * step / 100))
        assert linear(0.996, 1.0, 101)(step) == pytest.approx(0.996 + 0.004 * step / 100)


def test_a_run_of_one_step_has_schedules():
    config = OptimizationConfig(steps=1, lr=0.1, weight_decay=0.2)
    assert learning_rate(config, 0, 1)(0) == 0.1
    assert decay_of(config, 1)(0) == 0.2


def test_epochs_cover_every_sample():
    config = OptimizationConfig(epochs=3, lr=0.1, warmup_epochs=0.5)
    assert count_steps(config, batch_size=16, samples=50) == 10  # 160 >= 150
    assert warmup_steps(config, batch_size=16, samples=50) == 2


def test_constant_weight_decay_without_a_final_one():
    assert decay_of(OptimizationConfig(steps=9, lr=1.0, weight_decay=0.3), 9)(5) == 0.3


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warm-up of 12 steps"):
        learning_rate(OptimizationConfig(epochs=1, lr=1.0), 12, 12)
