"""Attentive pooling against transformers' V-JEPA 2, and many probes at once against each alone."""

import pytest
import torch
import torch.nn.functional as F
from transformers import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

from src.models.attentive import AttentivePooler, AttentiveProbe, AttentiveProbes, ProbeSetting, from_vjepa2_pooler
from src.randomness import derive_seed

CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several, by far where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def published(layers, **keys):
    """Transformers' pooler with weights that leave nothing at zero or one."""
    torch.manual_seed(0)
    config = VJEPA2Config(hidden_size=48, num_attention_heads=4, num_pooler_layers=layers, **keys)
    config._attn_implementation = "eager"
    pooler = VJEPA2AttentivePooler(config).eval()
    with torch.no_grad():
        for parameter in pooler.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return pooler


def tokens(batch=3, length=11, width=48):
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", [0, 3])
def test_it_pools_as_vjepa2_does(layers):
    theirs = published(layers)
    own, x = from_vjepa2_pooler(theirs), tokens()
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in theirs.parameters())
    torch.testing.assert_close(own(x), theirs(x), **CLOSE)


def test_its_gradients_are_those_of_vjepa2():
    theirs = published(1)
    own = from_vjepa2_pooler(theirs)
    one, other = tokens().requires_grad_(), tokens().requires_grad_()
    own(one).square().mean().backward()
    theirs(other).square().mean().backward()
    torch.testing.assert_close(one.grad, other.grad, **CLOSE)
    torch.testing.assert_close(own.query.grad, theirs.query_tokens.grad, **CLOSE)


def test_another_epsilon_is_refused():
    with pytest.raises(ValueError, match=r"layer_norm_eps is 1e-05; poolers here have 1e-06"):
        from_vjepa2_pooler(published(1, layer_norm_eps=1e-5))


@pytest.mark.parametrize("layers", [0, 2])
def test_tokens_that_are_not_kept_do_not_matter(layers):
    pooler, x = from_vjepa2_pooler(published(layers)), tokens()
    keep = torch.ones(3, 11, dtype=torch.bool)
    torch.testing.assert_close(pooler(x, keep), pooler(x), **CLOSE)
    keep[0, 7:], keep[1, ::2] = False, False
    pooled = pooler(x, keep)
    for row in range(3):
        torch.testing.assert_close(pooled[row], pooler(x[row : row + 1, keep[row]])[0], **CLOSE)
    torch.testing.assert_close(pooler(torch.where(keep.unsqueeze(-1), x, 1e3), keep), pooled, **CLOSE)


def test_it_starts_with_a_query_that_looks_and_every_weight_learns():
    torch.manual_seed(0)
    pooler = AttentivePooler(48, 4, 1)
    pooler(tokens()).square().sum().backward()
    learning = {
        name: p.grad for name, p in pooler.named_parameters() if name != "cross.k.bias"
    }  # softmax is blind to it
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in learning.values())
    assert pooler.query.abs().max() > 0


SETTINGS = [ProbeSetting(1e-2, 0.01), ProbeSetting(1e-2, 0.4), ProbeSetting(1e-3, 0.01)]


def trained(module, groups, x, y, keep):
    """8 steps of AdamW; returns the loss of every step."""
    optimizer, losses = torch.optim.AdamW(groups), []
    for _ in range(8):
        logits = module(x, keep)
        loss = sum(F.cross_entropy(each, y) for each in (logits if logits.ndim == 3 else [logits]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("layers", [0, 1])
def test_probes_trained_at_once_are_those_trained_alone(layers):
    draw = torch.Generator().manual_seed(2)
    y = torch.randint(3, (16,), generator=draw)
    x = torch.randn(16, 5, 12, generator=draw)
    x[torch.arange(16), :, y] += 2.0
    keep = torch.rand(16, 5, generator=draw) < 0.8
    keep[:, 0] = True
    probes = AttentiveProbes(12, 2, layers, 3, SETTINGS, seed=5)
    together = trained(probes, probes.groups(), x, y, keep)
    apart = []
    for number, setting in enumerate(SETTINGS):
        torch.manual_seed(derive_seed(5, "attentive probe"))
        alone = AttentiveProbe(12, 2, layers, 3)
        rates = {"lr": setting.lr, "weight_decay": setting.weight_decay}
        matrices = {"params": [p for p in alone.parameters() if p.ndim == 2], **rates}
        vectors = {"params": [p for p in alone.parameters() if p.ndim != 2], **rates, "weight_decay": 0.0}
        apart.append(trained(alone, [matrices, vectors], x, y, keep))
        torch.testing.assert_close(probes(x, keep)[number], alone(x, keep), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(together), torch.tensor(apart).sum(0), rtol=1e-6, atol=1e-6)
    ends = torch.tensor(apart)[:, -1]
    assert ends[0] < 0.7 * apart[0][0] and ends.unique().numel() == len(SETTINGS)


def test_a_probe_starts_the_same_beside_any_others_and_leaves_the_generator_alone():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    many = AttentiveProbes(24, 2, 0, 3, SETTINGS, seed=5)
    assert torch.equal(torch.rand(3), wanted)
    one = AttentiveProbes(24, 2, 0, 3, SETTINGS[:1], seed=5)
    for probe in many.probes:
        for own, other in zip(probe.parameters(), one.probes[0].parameters(), strict=True):
            assert torch.equal(own, other)
