"""Losses of labels and classes beside torch's, and beside sums that are written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.losses.classification import binary_cross_entropy, cross_entropy, known_classes, known_labels

NAN = math.nan


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    truth = (torch.rand(9, 4) > 0.5).float()
    return 3 * torch.randn(9, 4, dtype=torch.float64).float(), truth


def by_hand(logits, truth, weight, smoothing, focal):
    """Label by label, in Python's floats."""
    total = 0.0
    for row, of_row in zip(logits.tolist(), truth.tolist(), strict=True):
        for place, (logit, y) in enumerate(zip(row, of_row, strict=True)):
            if math.isnan(y):
                continue
            p, s = 1 / (1 + math.exp(-logit)), y * (1 - smoothing) + smoothing / 2
            loss = -(weight[place] * s * math.log(p) + (1 - s) * math.log(1 - p))
            if focal is not None:
                gamma, alpha = focal
                factor = alpha if alpha >= 1 else (alpha if y else 1 - alpha)
                loss *= factor * (1 - (p if y else 1 - p)) ** gamma
            total += loss
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("focal", [None, (2.0, 1.0), (0.5, 0.25), (0.0, 1.0), (3.0, 2.0)])
def test_labels_are_those_of_a_sum_by_hand(drawn, smoothing, focal):
    logits, truth = drawn
    truth[0, 1] = truth[4] = NAN
    weight = torch.tensor([1.0, 0.5, 3.0, 20.0])
    found = binary_cross_entropy(logits, truth, weight, smoothing, focal)
    assert found.item() == pytest.approx(by_hand(logits, truth, weight.tolist(), smoothing, focal), rel=1e-5)


def test_labels_without_settings_are_torchs(drawn):
    logits, truth = drawn
    reference = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    torch.testing.assert_close(binary_cross_entropy(logits, truth), reference)


def test_a_focal_loss_of_gamma_0_is_the_plain_one(drawn):
    logits, truth = drawn
    torch.testing.assert_close(
        binary_cross_entropy(logits, truth, focal=(0.0, 1.0)), binary_cross_entropy(logits, truth)
    )


def test_the_probability_of_the_truth_does_not_know_of_the_weight(drawn):
    """A heavier positive counts more, and is as easy as before: the focal loss is linear in the weight."""
    logits, _ = drawn
    truth = torch.ones_like(logits)
    once, twice = (binary_cross_entropy(logits, truth, torch.full((4,), w), focal=(2.0, 1.0)) for w in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_certain_answers_have_finite_slopes(gamma):
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    binary_cross_entropy(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]), focal=(gamma, 1.0)).backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 2] > 0 > logits.grad[0, 3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.5, 3.0, 20.0])])
def test_classes_are_torchs(drawn, smoothing, weight):
    logits, _ = drawn
    classes = torch.arange(9) % 4
    reference = F.cross_entropy(logits, classes, weight, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(classes, 4).float(), weight, smoothing), reference)


def test_what_is_unknown_has_no_loss_and_no_gradient(drawn):
    logits, truth = drawn
    truth[2, 0] = NAN
    logits.requires_grad_()
    binary_cross_entropy(logits, truth, focal=(2.0, 1.0)).backward()
    assert logits.grad[2, 0] == 0 and (logits.grad != 0).sum() == 9 * 4 - 1
    assert known_labels(truth).sum() == 9 * 4 - 1
    classes = F.one_hot(torch.arange(9) % 4, 4).float()
    classes[3] = NAN
    logits.grad = None
    cross_entropy(logits, classes).backward()
    assert (logits.grad[3] == 0).all() and (logits.grad != 0).sum() == 8 * 4
    assert known_classes(classes).tolist() == [n != 3 for n in range(9)]


def test_nothing_known_is_zero_with_a_gradient(drawn):
    logits = drawn[0].requires_grad_()
    nothing = torch.full((9, 4), NAN)
    for loss in (binary_cross_entropy(logits, nothing), cross_entropy(logits, nothing)):
        loss.backward()
        assert loss == 0 and (logits.grad == 0).all()


def test_sums_do_not_depend_on_how_they_are_cut(drawn):
    logits, truth = drawn
    truth[1, 1] = NAN
    parts = [binary_cross_entropy(logits[rows], truth[rows]) for rows in (slice(0, 2), slice(2, 9))]
    torch.testing.assert_close(sum(parts), binary_cross_entropy(logits, truth))
