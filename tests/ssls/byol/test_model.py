"""BYOL against its definition."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.models.config import EncoderConfig, ResNetConfig
from src.models.head_config import ProjectionConfig
from src.optimization.schedules import cosine
from ssls.byol.config import ModelConfig, PredictorConfig
from ssls.byol.model import AVERAGES, BYOL

VIT = EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=1, heads=2)
RESNET = ResNetConfig(name="resnet1d_18", leads=2, length=48, widths=(4, 4, 6, 8), depths=(1, 1, 1, 1))


def make_byol(encoder=RESNET, norm="batch", kind="mlp"):
    """Its teacher is no copy of the student any more."""
    torch.manual_seed(0)
    projection = ProjectionConfig(widths=(12, 6), norm=norm)
    predictor = PredictorConfig(kind=kind, hidden=(10,)) if kind == "mlp" else PredictorConfig(kind=kind)
    byol = BYOL(ModelConfig(encoder=encoder, projection=projection, predictor=predictor))
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [*byol.teacher.parameters(), *byol.teacher_projection.parameters()]:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return byol


def make_batch(B=6):
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randn(B, 2, 48, generator=draw) for name in ("first", "second")} | {"keys": ["k"] * B}


def mlp(head, rows):
    """A head by its weights: BatchNorm of this batch and ReLU behind its first layer."""
    first, norm, _, last = head
    hidden = rows @ first.weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
    return hidden.clamp(min=0) @ last.weight.T


def test_the_loss_is_between_a_prediction_from_one_view_and_the_teachers_projection_of_the_other():
    byol, batch = make_byol(), make_batch()
    encoder, teacher = copy.deepcopy(byol.student), copy.deepcopy(byol.teacher)
    total = 0.0
    for one, other in (("first", "second"), ("second", "first")):
        guess = mlp(byol.predictor, mlp(byol.projection, encoder(batch[one]).mean(1)))
        wanted = mlp(byol.teacher_projection, teacher(batch[other]).mean(1))
        for q, z in zip(guess, wanted, strict=True):
            total += 2 - 2 * (q @ z / (q.norm() * z.norm())).item()
    assert byol(batch)["prediction"].item() == pytest.approx(total, rel=1e-4)
    assert byol.weights(batch) == {"prediction": 6.0}


def as_its_own_teacher():
    byol = make_byol(VIT, "layer", "none")
    for average, network in AVERAGES.items():
        byol.get_submodule(average).load_state_dict(byol.get_submodule(network).state_dict())
    return byol


def test_a_view_is_not_compared_with_itself():
    """A student that is its teacher and predicts by doing nothing has no loss on one view: all of it is between two."""
    byol, batch = as_its_own_teacher(), make_batch()
    assert byol(batch | {"second": batch["first"]})["prediction"].item() == pytest.approx(0.0, abs=1e-5)
    assert byol(batch)["prediction"].item() > 0.1


def test_only_the_student_learns_and_all_of_it():
    byol = make_byol()
    byol(make_batch())["prediction"].backward()
    for name, parameter in byol.named_parameters():
        assert parameter.requires_grad == (not name.startswith("teacher")), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert byol.student.stem[0][0].weight.grad.abs().max() > 0


def test_what_a_batchnorm_takes_away_has_a_gradient_of_rounding_alone():
    """Why it is held: AdamW would make whole steps of it, others under each engine."""
    byol = make_byol(VIT, "batch")
    assert not byol.student.norm.bias.requires_grad and make_byol(VIT, "layer").student.norm.bias.requires_grad
    byol.student.norm.bias.requires_grad_(True)
    byol(make_batch())["prediction"].backward()
    scale, shift = (parameter.grad.abs().max() for parameter in (byol.student.norm.weight, byol.student.norm.bias))
    assert shift < 1e-4 * scale
    assert all("bias" not in name for name, _ in byol.projection[-1].named_parameters())


def test_the_target_is_no_way_for_gradients_into_the_other_view():
    byol, batch = make_byol(VIT, "layer"), make_batch()
    views = {name: batch[name].requires_grad_() for name in ("first", "second")}
    slope = torch.autograd.grad(byol(batch)["prediction"], views["second"])[0]
    guess, wanted = byol.predicted(batch, "second"), byol.target(batch, "first")
    own = (2 - 2 * F.cosine_similarity(guess, wanted)).sum()
    torch.testing.assert_close(slope, torch.autograd.grad(own, views["second"])[0])


def engine_of(byol):
    settings = OptimizationConfig(steps=4, lr=1e-2)
    ranks = Ranks(0, 1, torch.device("cpu"))
    return build_engine(byol, Setup(EngineConfig(), settings, ranks, 0, lambda step: 1e-2, lambda step: 0.0))


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_after_a_step_the_teachers_weights_follow_and_its_statistics_are_the_students():
    byol, batch = make_byol(), make_batch()
    engine = engine_of(byol)
    before = {name: value.clone() for name, value in byol.state_dict().items()}
    engine.forward_backward(0, [batch])
    engine.step(0)
    for average, network in AVERAGES.items():
        engine.ema(average, network, 0.9)
    after = byol.state_dict()
    for average, network in AVERAGES.items():
        for name, value in byol.get_submodule(average).named_parameters():
            wanted = 0.9 * before[f"{average}.{name}"] + 0.1 * after[f"{network}.{name}"]
            torch.testing.assert_close(value, wanted)
        for name, value in byol.get_submodule(average).named_buffers():
            assert torch.equal(value, after[f"{network}.{name}"]), name
    assert len(norms(byol.teacher)) > 3
    assert all(norm.num_batches_tracked == 2 and norm.running_mean.any() for norm in norms(byol.teacher)), "two views"


def test_the_teacher_takes_the_statistics_of_its_batch_whatever_it_has_followed():
    byol, batch = make_byol(), make_batch()
    engine = engine_of(byol)
    loss = engine.forward_backward(0, [batch])["prediction"].item()
    for norm in norms(byol.teacher) + norms(byol.teacher_projection):
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(0.01)
    assert engine.forward_backward(0, [batch])["prediction"].item() == loss


def test_without_a_predictor_the_projections_are_compared():
    byol, batch = make_byol(VIT, "layer", "none"), make_batch()
    assert not list(byol.predictor.parameters())
    wanted = {name: byol.target(batch, name) for name in ("first", "second")}
    mine = {name: byol.projection(byol.student(batch[name]).mean(1)) for name in wanted}
    pairs = ((mine["first"], wanted["second"]), (mine["second"], wanted["first"]))
    total = sum((F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum() for one, other in pairs)
    assert byol(batch)["prediction"].item() == pytest.approx(total.item(), rel=1e-4)


def test_keys_of_a_predictor_that_is_not_there_are_told():
    with pytest.warns(UserWarning, match="model.predictor.hidden has no effect: there is no predictor"):
        BYOL(ModelConfig(encoder=VIT, predictor=PredictorConfig(kind="none", hidden=(10,))))


def test_it_embeds_by_the_student():
    byol, ecg = make_byol(), make_batch()["first"]
    byol.eval()
    torch.testing.assert_close(byol({"ecg": ecg}, mode="embed")["tokens"], byol.student(ecg))


def test_the_momentum_is_the_papers():
    """tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2."""
    momentum = cosine(0.996, 1.0, 1001)
    for k in (0, 1, 250, 500, 999, 1000):
        assert momentum(k) == pytest.approx(1 - 0.004 * (math.cos(math.pi * k / 1000) + 1) / 2, abs=1e-12)
