"""Which parameters decay, and how a teacher follows."""

import pytest
import torch
from torch import nn

from src.config.optimization import NetworkRates
from src.optimization.ema import update_ema
from src.optimization.groups import parameter_groups


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Linear(4, 4), nn.LayerNorm(4))
        self.score = nn.Linear(4, 1)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.temperature = nn.Parameter(torch.zeros(1))


def test_matrices_decay_and_biases_norms_tokens_and_scalars_do_not():
    groups = {group.name: group for group in parameter_groups(Objective())}
    assert groups["encoder"].parameters == ("encoder.0.weight", "encoder.1.weight")
    assert groups["encoder"].weight_decay == groups["encoder"].lr == 1.0
    assert groups["encoder_no_decay"].parameters == (
        "encoder.0.bias",
        "encoder.1.bias",
        "encoder.2.weight",
        "encoder.2.bias",
    )
    assert groups["encoder_no_decay"].weight_decay == 0.0 and groups["encoder_no_decay"].lr == 1.0
    assert groups["score"].parameters == ("score.weight",)  # a matrix, if of one row
    assert groups["mask_token_no_decay"].parameters == ("mask_token",)
    assert groups["temperature_no_decay"].parameters == ("temperature",)


def test_a_network_has_its_own_rates_and_one_that_does_not_train_is_refused():
    slow = NetworkRates(lr=0.1, weight_decay=2.0)
    found = {group.name: (group.lr, group.weight_decay) for group in parameter_groups(Objective(), {"score": slow})}
    assert found["score"] == (0.1, 2.0) and found["score_no_decay"] == (0.1, 0.0) and found["encoder"] == (1.0, 1.0)
    with pytest.raises(
        ValueError, match=r"optimization\.networks\.frozen: .* it trains encoder, mask_token, score, temp"
    ):
        parameter_groups(Objective(), {"frozen": slow})


def test_every_trainable_parameter_is_in_exactly_one_group():
    objective = Objective()
    names = [name for group in parameter_groups(objective) for name in group.parameters]
    assert sorted(names) == sorted(name for name, p in objective.named_parameters() if p.requires_grad)


def test_ema_follows_its_formula_and_takes_buffers_along():
    torch.manual_seed(0)
    student, teacher = nn.BatchNorm1d(3), nn.BatchNorm1d(3).requires_grad_(False)
    expected = teacher.weight.clone()
    for momentum in (0.9, 0.99, 0.5):
        nn.init.normal_(student.weight)
        student(torch.randn(8, 3))
        update_ema(teacher, student, momentum)
        expected = momentum * expected + (1 - momentum) * student.weight.detach()
    torch.testing.assert_close(teacher.weight, expected)
    assert torch.equal(teacher.running_mean, student.running_mean) and teacher.num_batches_tracked == 3


def test_momentum_one_freezes_the_teacher_and_small_steps_still_move_it():
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    before = teacher.weight.clone()
    update_ema(teacher, student, 1.0)
    assert torch.equal(before, teacher.weight)
    update_ema(teacher, student, 0.9999)
    assert (before != teacher.weight).all()
