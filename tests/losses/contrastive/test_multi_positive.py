"""What losses with several positives must keep: true weight sums, rows without a positive, their special cases."""

import pytest
import torch

from src.losses.contrastive.clip import clip
from src.losses.contrastive.multi_positive import multi_positive, supervised_contrastive
from src.losses.contrastive.ntxent import nt_xent
from tests.losses.contrastive.reference import IDS, ROWS, pairs

SCALE = torch.tensor([8.0], dtype=torch.float64)


def test_with_one_positive_each_it_is_clip():
    found = multi_positive(*pairs(), SCALE, torch.arange(ROWS))
    assert found.item() == pytest.approx(clip(*pairs(), SCALE).item(), rel=1e-13)


def test_weights_count_by_their_share_so_that_tiny_ones_weigh_as_much_as_large_ones():
    """A weight sum clamped to 1 would make the loss of small weights small."""
    ids = torch.tensor(IDS)
    whole = multi_positive(*pairs(), SCALE, ids)
    for factor in (1e-6, 0.3, 1e6):
        scaled = multi_positive(*pairs(), SCALE, ids, lambda a, b, f=factor: f * (a[:, None] == b))
        assert scaled.item() == pytest.approx(whole.item(), rel=1e-12)


def test_rows_without_any_weight_add_nothing_and_have_zero_gradients():
    first, second = (view.requires_grad_() for view in pairs())
    none = multi_positive(first, second, SCALE, torch.tensor(IDS), lambda a, b: torch.zeros(len(a), len(b)))
    none.backward()
    assert none.item() == 0.0 and not first.grad.any() and not second.grad.any()
    some = lambda a, b: ((a[:, None] == b) & (b == 3)).double()  # noqa: E731
    assert multi_positive(*pairs(), SCALE, torch.tensor(IDS), some) > 0


def test_sets_of_diagnoses_can_weigh_by_what_they_share():
    sets = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    asked = []

    def share(rows, columns):
        asked.append((rows.shape, columns.shape))
        common = rows.double() @ columns.double().T
        return common / (rows.sum(1)[:, None] + columns.sum(1) - common)

    first, second = (view[:3] for view in pairs())
    found = multi_positive(first, second, SCALE, sets, share)
    target = torch.tensor([[2 / 3, 1 / 3, 0.0], [1 / 3, 2 / 3, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    x, y = (torch.nn.functional.normalize(view) for view in (first, second))
    logits = SCALE * x @ y.T
    wanted = -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum() / 2
    assert found.item() == pytest.approx(wanted.item(), rel=1e-13) and asked == [((3, 3), (3, 3))]


def test_two_views_of_each_label_are_ntxent():
    first, second = pairs()
    found = supervised_contrastive(torch.cat([first, second]), torch.arange(ROWS).repeat(2), 0.3)
    assert found.item() == pytest.approx(2 * nt_xent(first, second, 0.3).item(), rel=1e-13)


def test_labels_that_nobody_shares_give_zero_with_gradients():
    features = pairs()[0].requires_grad_()
    loss = supervised_contrastive(features, torch.arange(ROWS), 0.1)
    loss.backward()
    assert loss.item() == 0.0 and features.grad is not None and not features.grad.any()


def test_one_label_for_all_leaves_every_row_the_mean_over_the_others():
    features = pairs()[0]
    loss = supervised_contrastive(features, torch.zeros(ROWS, dtype=torch.int64), 0.1)
    rows = torch.nn.functional.normalize(features)
    scores = (rows @ rows.T / 0.1)[~torch.eye(ROWS, dtype=torch.bool)].view(ROWS, ROWS - 1)
    assert loss.item() == pytest.approx(-scores.log_softmax(1).mean(1).sum().item(), rel=1e-13)
