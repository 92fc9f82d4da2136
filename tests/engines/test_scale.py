"""The loss scale of fp16 as a state machine, and what does not have bf16."""

import pytest
import torch

from src.config.engine import EngineConfig
from src.engines.engine import check_precision
from src.engines.scale import FIRST, GROWS_AFTER, HIGHEST, LossScale


def test_it_halves_after_an_overflow_and_doubles_after_many_finite_steps():
    scale = LossScale(active=True)
    assert scale.value == FIRST
    scale.update(False)
    assert scale.value == FIRST / 2
    for _ in range(GROWS_AFTER - 1):
        scale.update(True)
    assert scale.value == FIRST / 2
    scale.update(True)
    assert scale.value == FIRST


def test_an_overflow_begins_the_count_anew():
    scale = LossScale(active=True)
    for finite in [*[True] * (GROWS_AFTER - 1), False, *[True] * (GROWS_AFTER - 1)]:
        scale.update(finite)
    assert scale.value == FIRST / 2


def test_it_stays_between_1_and_its_highest_and_says_when_it_is_not_to_blame():
    scale = LossScale(active=True)
    for _ in range(100):
        assert not scale.exhausted or scale.value == 1.0
        scale.update(False)
    assert scale.value == 1.0 and scale.exhausted
    scale.value = HIGHEST
    for _ in range(GROWS_AFTER):
        scale.update(True)
    assert scale.value == HIGHEST


def test_a_checkpoint_continues_it_and_one_of_another_precision_does_not():
    scale, other = LossScale(active=True), LossScale(active=True)
    for finite in (False, True, True):
        scale.update(finite)
    other.load(scale.state())
    assert (other.value, other.finite_steps) == (FIRST / 2, 2)
    other.load(None)
    assert other.value == FIRST / 2
    idle = LossScale(active=False)
    idle.load(scale.state())
    idle.update(False)
    assert idle.value == 1.0 and not idle.active


def test_bf16_on_a_gpu_that_lacks_it_is_refused_with_what_to_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla V100")
    old = torch.device("cuda:0")
    with pytest.raises(ValueError, match=r"engine\.precision is bf16, which Tesla V100 does not have; use fp16"):
        check_precision(EngineConfig(precision="bf16"), old)
    check_precision(EngineConfig(precision="fp16"), old)
    check_precision(EngineConfig(precision="bf16"), torch.device("cpu"))
