"""SimCLR against its definition, and the gradient of micro-batches against that of the whole batch."""

import copy

import pytest
import torch

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.models.config import EncoderConfig, ResNetConfig
from src.models.head_config import ProjectionConfig
from ssls.simclr.config import LossConfig, ModelConfig
from ssls.simclr.model import SimCLR

VIT = EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=1, heads=2)
RESNET = ResNetConfig(name="resnet1d_18", leads=2, length=48, widths=(4, 4, 6, 8), depths=(1, 1, 1, 1))


def make_simclr(encoder=VIT, norm="layer", **loss):
    torch.manual_seed(0)
    projection = ProjectionConfig(widths=(12, 6), norm=norm)
    return SimCLR(ModelConfig(encoder=encoder, projection=projection), LossConfig(**loss))


def make_batch(B=7):
    draw = torch.Generator().manual_seed(1)
    first = torch.randn(B, 2, 48, generator=draw)
    return {"first": first, "second": first + 0.5 * torch.randn(B, 2, 48, generator=draw)}


def by_loops(first, second, temperature):
    """Equation 1 of the paper, anchor by anchor; the mean over both views of each sample, summed over samples."""
    views = torch.cat([first, second]).double()
    views = views / views.norm(dim=1, keepdim=True)
    total, N = torch.zeros((), dtype=torch.float64), len(first)
    for anchor in range(2 * N):
        scores = {other: (views[anchor] @ views[other] / temperature).exp() for other in range(2 * N)}
        del scores[anchor]
        total = total - torch.log(scores[(anchor + N) % (2 * N)] / sum(scores.values())) / 2
    return total


def whole(simclr, batch):
    """Both modes, as an engine goes through them with one micro-batch."""
    return simclr(simclr(batch)["features"], mode="contrast")["contrast"]


def head(projection, rows, norm):
    """A projection by its weights."""
    first, scale, _, last = projection
    hidden, axis = rows @ first.weight.T, 0 if norm == "batch" else 1
    mean, variance = hidden.mean(axis, keepdim=True), hidden.var(axis, keepdim=True, correction=0)
    hidden = (hidden - mean) / (variance + 1e-5).sqrt() * scale.weight + scale.bias
    return hidden.clamp(min=0) @ last.weight.T


@pytest.mark.parametrize(("encoder", "norm"), [(VIT, "layer"), (VIT, "batch"), (RESNET, "batch")])
def test_the_loss_is_nt_xent_of_the_projected_mean_tokens(encoder, norm):
    simclr, batch = make_simclr(encoder, norm, temperature=0.2), make_batch()
    rows = copy.deepcopy(simclr.encoder)(torch.cat([batch["first"], batch["second"]])).mean(1)
    wanted = by_loops(*head(simclr.projection, rows, norm).chunk(2), 0.2)
    assert whole(simclr, batch).item() == pytest.approx(wanted.item(), rel=1e-4)
    assert simclr.weights(batch) == {"contrast": 7.0}


def test_every_parameter_gets_a_gradient():
    simclr = make_simclr(RESNET, "batch", learn_temperature=True)
    whole(simclr, make_batch()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in simclr.parameters())


def test_a_learned_temperature_begins_as_told_and_has_the_gradient_of_the_formula():
    simclr, batch = make_simclr(temperature=0.3, learn_temperature=True), make_batch()
    assert simclr.scale.log_scale.shape == (1,) and simclr.temperature().item() == pytest.approx(0.3)
    with torch.no_grad():
        first, second = simclr.features(batch).values()
    log_scale = (-torch.tensor(0.3, dtype=torch.float64).log()).requires_grad_()
    by_loops(first, second, (-log_scale).exp()).backward()
    whole(simclr, batch).backward()
    assert simclr.scale.log_scale.grad.item() == pytest.approx(log_scale.grad.item(), rel=1e-4)


def test_a_learned_temperature_stays_above_the_least():
    simclr = make_simclr(learn_temperature=True, least_temperature=0.05)
    with torch.no_grad():
        simclr.scale.log_scale.fill_(9.0)
    assert simclr.temperature().item() == pytest.approx(0.05)


def test_it_embeds_by_the_encoder():
    simclr, ecg = make_simclr(), make_batch()["first"]
    simclr.eval()
    assert torch.equal(simclr({"ecg": ecg}, mode="embed")["tokens"], simclr.encoder(ecg))
    keep = torch.arange(48) < torch.tensor([48] * 6 + [21]).unsqueeze(1)
    found = simclr({"ecg": ecg * keep.unsqueeze(1), "keep": keep}, mode="embed")
    assert found["valid"].sum(1).tolist() == [12] * 6 + [6]


def gradients(simclr, sizes):
    """Of one step of an engine, whose micro-batches are of these sizes."""
    ranks = Ranks(0, 1, torch.device("cpu"))
    setup = Setup(EngineConfig(), OptimizationConfig(steps=1, lr=1e-3), ranks, 0, lambda _: 1e-3, lambda _: 0.0)
    engine = build_engine(simclr, setup)
    batch = make_batch(sum(sizes))
    cut = {name: values.split(sizes) for name, values in batch.items()}
    micro = [{name: parts[n] for name, parts in cut.items()} | {"keys": []} for n in range(len(sizes))]
    loss = engine.forward_backward(0, micro)["loss"].item()
    learns = {name: parameter for name, parameter in simclr.named_parameters() if parameter.requires_grad}
    return loss, {name: parameter.grad.clone() for name, parameter in learns.items()}


@pytest.mark.parametrize("learned", [False, True])
def test_micro_batches_have_the_gradient_of_the_whole_batch_where_no_norm_mixes_samples(learned):
    loss, wanted = gradients(make_simclr(learn_temperature=learned), [9])
    cut_loss, found = gradients(make_simclr(learn_temperature=learned), [4, 3, 2])
    assert cut_loss == pytest.approx(loss, rel=1e-6)
    for name, slope in wanted.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-4, atol=1e-6 * max(slope.abs().max().item(), 1.0))


def test_micro_batches_change_what_batchnorm_learns():
    """What docs/pairs.md warns of."""
    loss, _ = gradients(make_simclr(norm="batch"), [9])
    cut_loss, _ = gradients(make_simclr(norm="batch"), [4, 3, 2])
    assert abs(cut_loss - loss) > 1e-3
