"""What MECLIP's modes must keep: CLIP without duplicates, 0 where all are one, nothing that is not finite."""

import pytest
import torch

from src.losses.contrastive.clip import clip
from src.losses.contrastive.duplicates import duplicate_rate
from tests.losses.contrastive.cases import SETS
from tests.losses.contrastive.reference import IDS, MODES, ROWS, pairs
from tests.losses.contrastive.reference import clip as by_loops


def step(duplicates, ids, scale=20.0, dtype=torch.float32, rows=ROWS, **more):
    """Loss and gradients."""
    values = [*pairs(dtype, rows), torch.tensor([scale], dtype=dtype)]
    values = [value.requires_grad_() for value in values]
    loss = clip(*values, ids, duplicates, **more)
    return [loss.detach(), *torch.autograd.grad(loss, values)]


@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("duplicates", MODES)
def test_without_duplicates_every_mode_is_clip_to_the_last_bit(duplicates, scale):
    plain, found = step("ignore", None, scale), step(duplicates, torch.arange(ROWS), scale)
    assert plain[0] > 0 and all(torch.equal(own, value) for own, value in zip(found, plain, strict=True))


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("duplicates", ["exclude", "share"])
def test_where_all_say_the_same_the_loss_is_0_and_so_is_its_gradient(duplicates, scale):
    ids = torch.zeros(ROWS, dtype=torch.int64)
    found = step(duplicates, ids, scale)
    assert found[0].item() == 0.0 and all(slope.isfinite().all() and not slope.any() for slope in found[1:])
    assert duplicate_rate(ids).item() == 1.0  # which tells it in the log


@pytest.mark.parametrize("duplicates", ["exclude", "share"])
def test_a_sample_that_shares_its_id_with_all_but_one_has_finite_gradients(duplicates):
    ids = torch.zeros(ROWS, dtype=torch.int64)
    ids[-1] = 1
    found = step(duplicates, ids, scale=100.0)
    assert found[0] > 0 and all(value.isfinite().all() for value in found)


def test_one_duplicated_pair_moves_the_loss_little():
    """A mean over the whole row instead of over the positives moved it from 7.6 to 18.2."""
    rows = 256
    ids = torch.arange(rows)
    ids[1] = ids[0]
    plain = step("ignore", None, 14.0, rows=rows)[0] / rows
    for duplicates in ("exclude", "share"):
        assert (step(duplicates, ids, 14.0, rows=rows)[0] / rows).item() == pytest.approx(plain.item(), rel=0.01)


def test_a_row_of_more_positives_weighs_as_much_as_one_of_fewer():
    """Features without any information: each of n negatives is as likely as the positive, whatever their number."""
    ids = torch.tensor([0, 0, 0, 0, 1, 2])
    same = torch.ones(6, 4, dtype=torch.float64)
    found = clip(same, same, torch.tensor([1.0]), ids, "share")
    wanted = 4 * torch.tensor(3.0, dtype=torch.float64).log() + 2 * torch.tensor(6.0, dtype=torch.float64).log()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize("duplicates", MODES)
def test_a_very_sure_loss_keeps_its_digits(duplicates):
    """Above 20 F.softplus rounds log(1 + exp(x)) to x."""
    first, _ = pairs(torch.float64)
    second = first + 0.05 * first.roll(1, 0)
    found = clip(first, -second, torch.tensor([60.0]).double(), torch.tensor(IDS), duplicates)
    wanted = by_loops(first, -second, 60.0, IDS, duplicates)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-13)


@pytest.mark.parametrize("duplicates", ["exclude", "share"])
def test_sets_of_diagnoses_are_duplicates_from_an_overlap_on(duplicates):
    """At an overlap of 1 they are ids; with disjoint sets nothing is a duplicate."""
    ids = (SETS.long() * 2 ** torch.arange(SETS.shape[1])).sum(1)
    assert len(set(ids.tolist())) < ROWS
    whole, by_id = step(duplicates, SETS), step(duplicates, ids)
    assert all(torch.equal(own, value) for own, value in zip(whole, by_id, strict=True))
    assert not torch.equal(step(duplicates, SETS, overlap=0.5)[0], whole[0])
    apart = torch.eye(ROWS, dtype=torch.bool)
    assert torch.equal(step(duplicates, apart, overlap=0.1)[0], step("ignore", None)[0])


def test_a_mode_without_ids_is_refused():
    with pytest.raises(AssertionError, match="share needs ids"):
        clip(*pairs(), torch.ones(1), None, "share")
