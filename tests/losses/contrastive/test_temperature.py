"""What is learned beside the features: started as published, bounded in forward, never decayed, of one dimension."""

import math

import pytest
import torch

from src.losses.contrastive.temperature import LogitScale, SigmoidScale, balanced_bias
from src.optimization.groups import parameter_groups


def test_they_start_as_published():
    assert LogitScale()().item() == pytest.approx(1 / 0.07)
    scale, bias = SigmoidScale()()
    assert scale.item() == pytest.approx(10.0) and bias.item() == -10.0
    assert balanced_bias(513) == pytest.approx(-math.log(512)) and balanced_bias(1) == 0.0


@pytest.mark.parametrize("module", [LogitScale(), SigmoidScale()], ids=lambda module: type(module).__name__)
def test_their_parameters_are_vectors_of_one_and_never_decay(module):
    assert all(parameter.shape == (1,) for parameter in module.parameters())
    assert all(group.weight_decay == 0.0 for group in parameter_groups(torch.nn.ModuleDict({"scale": module})))


def with_value(value):
    module = LogitScale()
    with torch.no_grad():
        module.log_scale.fill_(value)
    return module


@pytest.mark.parametrize(("value", "scale"), [(-3.0, 1.0), (0.0, 1.0), (1.5, math.exp(1.5)), (9.0, 100.0)])
def test_the_scale_is_bounded_in_forward_and_the_parameter_is_left_alone(value, scale):
    module = with_value(value)
    assert module().item() == pytest.approx(scale, rel=1e-6) and module.log_scale.item() == value


@pytest.mark.parametrize(("value", "pull", "moves"), [(9.0, 1.0, True), (9.0, -1.0, False), (-3.0, -1.0, True)])
def test_beyond_a_bound_it_is_pulled_back_and_not_further_out(value, pull, moves):
    """torch's clamp has no gradient there: a parameter that has stepped out could never come back."""
    module = with_value(value)
    (pull * module()).sum().backward()
    assert bool(module.log_scale.grad.abs() > 0) == moves


def test_inside_the_bounds_the_gradient_is_that_of_exp():
    module = with_value(1.5)
    (3.0 * module()).sum().backward()
    assert module.log_scale.grad.item() == pytest.approx(3.0 * math.exp(1.5), rel=1e-6)


def test_a_parameter_that_steps_out_comes_back_when_the_loss_asks_for_less():
    module = with_value(math.log(100.0) - 0.01)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for wanted in (200.0, 50.0):
        for _ in range(40):
            optimizer.zero_grad()
            (module() - wanted).square().sum().mul(1e-2).backward()
            optimizer.step()
        if wanted > 100.0:
            assert module().item() == pytest.approx(100.0) and module.log_scale.item() > math.log(100.0)
    assert module().item() == pytest.approx(50.0, rel=0.05)
