"""What SigLIP's blocks must keep beside the formula: digits, memory, and what duplicates are."""

import pytest
import torch
import torch.nn.functional as F

from src.losses.contrastive.siglip import siglip
from tests.losses.contrastive.reference import IDS, MODES, ROWS, pairs
from tests.losses.contrastive.reference import siglip as by_loops


def total(duplicates="ignore", ids=None, scale=10.0, bias=-10.0, dtype=torch.float64, **more):
    numbers = [torch.tensor([number], dtype=dtype) for number in (scale, bias)]
    return siglip(*pairs(dtype), *numbers, ids, duplicates, **more)


@pytest.mark.parametrize("duplicates", MODES)
def test_without_duplicates_every_mode_is_the_same_to_the_last_bit(duplicates):
    assert torch.equal(total(duplicates, torch.arange(ROWS)), total())


def test_it_is_divided_by_the_samples_and_not_by_the_pairs():
    """At the start of training, scale 10 and bias -10: the positives' surprise, nearly alone (section 3.2)."""
    same = torch.ones(64, 8)
    found = siglip(same, same, torch.tensor([0.0]), torch.tensor([-10.0])) / 64
    softplus = lambda x: F.softplus(torch.tensor(x)).item()  # noqa: E731
    assert found.item() == pytest.approx(softplus(10.0) + 63 * softplus(-10.0), rel=1e-6)


def test_where_all_say_the_same_exclude_asks_each_sample_of_itself_alone_and_share_has_no_negative():
    ids = torch.zeros(ROWS, dtype=torch.int64)
    first, second = pairs()
    logits = F.cosine_similarity(first, second) * 10.0 - 10.0
    assert total("exclude", ids).item() == pytest.approx(-F.logsigmoid(logits).sum().item(), rel=1e-12)
    every = F.cosine_similarity(first[:, None], second[None], dim=2) * 10.0 - 10.0
    assert total("share", ids).item() == pytest.approx(-F.logsigmoid(every).sum().item(), rel=1e-12)


@pytest.mark.parametrize(("scale", "bias"), [(40.0, 25.0), (40.0, -25.0), (100.0, 0.0)])
@pytest.mark.parametrize("duplicates", MODES)
def test_sure_answers_keep_their_digits(duplicates, scale, bias):
    """log(1 + exp(x)) is neither x above 20 nor infinite above 88."""
    found = total(duplicates, torch.tensor(IDS), scale, bias)
    assert found.item() == pytest.approx(by_loops(*pairs(), scale, bias, IDS, duplicates).item(), rel=1e-13)
    coarse = total(duplicates, torch.tensor(IDS), scale, bias, torch.float32)
    assert coarse.item() == pytest.approx(found.item(), rel=1e-6)


def test_sides_of_one_direction_and_of_none_have_finite_gradients():
    first = torch.zeros(4, 3, requires_grad=True)
    second = torch.ones(4, 3, requires_grad=True)
    siglip(first, second, torch.tensor([10.0]), torch.tensor([-10.0])).backward()
    assert first.grad.isfinite().all() and second.grad.isfinite().all()


def test_backward_inside_autocast_does_not_coarsen_it():
    exact, coarse = ([view.float().requires_grad_() for view in pairs()] for _ in range(2))
    numbers = torch.tensor([10.0]), torch.tensor([-3.0])
    siglip(*exact, *numbers).backward()
    with torch.autocast("cpu", torch.bfloat16):
        siglip(*coarse, *numbers).backward()
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(exact, coarse, strict=True))


@pytest.mark.parametrize("duplicates", MODES)
def test_no_graph_keeps_a_block(duplicates):
    """Between forward and backward: the sides and a few numbers, whatever the number of pairs."""
    rows, width = 300, 4
    sides = [torch.randn(rows, width, requires_grad=True) for _ in range(2)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        siglip(*sides, torch.tensor([10.0]), torch.tensor([-10.0]), torch.arange(rows) // 2, duplicates, block=50)
    assert 0 < max(kept) <= rows * width and sum(kept) <= 10 * rows * width


def test_a_second_derivative_is_refused_and_not_silently_wrong():
    first, second = (view.requires_grad_() for view in pairs())
    loss = siglip(first, second, torch.tensor([10.0]).double(), torch.tensor([-3.0]).double())
    with pytest.raises(AssertionError, match="differentiated once"):
        torch.autograd.grad(loss, first, create_graph=True)
