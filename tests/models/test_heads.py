"""Heads against their layers written down, and what of a batch an encoder is given."""

import numpy as np
import pytest
import torch

from src.distributed.batchnorm import SyncBatchNorm
from src.models.build import build_encoder
from src.models.config import EncoderConfig, ResNetConfig
from src.models.drop_path import kept_branches
from src.models.heads import MLPHead
from src.models.views import VIEWS, embed_views
from src.randomness import Streams

ECG = EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=2, heads=2, drop_path=0.9)


def batch(B=5):
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randn(B, 2, 48, generator=draw) for name in VIEWS}


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_head_is_linear_layers_with_a_norm_and_relu_between_them(norm):
    torch.manual_seed(0)
    head = MLPHead(6, (8, 10, 3), norm).double()
    rows = torch.randn(7, 6, dtype=torch.float64)
    first, norm_1, _, second, norm_2, _, last = head
    wanted = rows
    for linear, layer in ((first, norm_1), (second, norm_2)):
        torch.nn.init.normal_(layer.bias)
        wanted = wanted @ linear.weight.T
        axis = 0 if norm == "batch" else 1
        mean, variance = wanted.mean(axis, keepdim=True), wanted.var(axis, keepdim=True, correction=0)
        wanted = ((wanted - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias).clamp(min=0)
    torch.testing.assert_close(head(rows), wanted @ last.weight.T)
    assert all(layer.bias is None for layer in (first, second, last))


def test_views_go_through_one_behind_the_other():
    encoder, views = build_encoder(ECG), batch()
    both = embed_views(encoder, views, VIEWS)
    for view, half in zip(VIEWS, both.chunk(2), strict=True):
        torch.testing.assert_close(half, encoder(views[view]).mean(1))


def test_batchnorm_of_an_encoder_sees_both_views_together_or_each_by_itself():
    encoder = build_encoder(ResNetConfig(name="resnet1d_18", leads=2, length=48, widths=(4, 4, 4, 4)))
    views = batch()
    together = embed_views(encoder, views, VIEWS)
    apart = torch.cat([embed_views(encoder, views, (view,)) for view in VIEWS])
    torch.testing.assert_close(together, encoder(torch.cat([views[view] for view in VIEWS])).mean(1))
    assert not torch.allclose(together, apart, atol=1e-3)


def test_each_view_drops_its_own_branches_and_a_teacher_none():
    encoder, views = build_encoder(ECG), batch()
    streams = Streams.of_samples(0, np.zeros(5, np.int64), np.arange(5))
    drawn = {view: torch.from_numpy(kept_branches(ECG, streams.fork(view))) for view in VIEWS}
    dropped = views | {f"{view}_branches": branches for view, branches in drawn.items()}
    found = embed_views(encoder, dropped, VIEWS).chunk(2)
    for view, half in zip(VIEWS, found, strict=True):
        torch.testing.assert_close(half, encoder(views[view], branches_BN2=drawn[view]).mean(1))
    whole = embed_views(encoder, dropped, VIEWS, dropping=False)
    torch.testing.assert_close(whole, embed_views(encoder, views, VIEWS))
    assert not torch.allclose(whole, torch.cat(found), atol=1e-3)


def test_tokens_of_padding_are_no_part_of_a_view():
    encoder, views = build_encoder(ECG), batch()
    keep = torch.arange(48) < torch.tensor([48, 48, 20, 48, 10]).unsqueeze(1)
    views = {name: ecg * keep.unsqueeze(1) for name, ecg in views.items()}
    found = embed_views(encoder, views | {"keep": keep}, VIEWS).chunk(2)
    for view, half in zip(VIEWS, found, strict=True):
        for row, length in enumerate([48, 48, 20, 48, 12]):
            alone = encoder(views[view][row : row + 1, :, :length]).mean(1)[0]
            torch.testing.assert_close(half[row], alone, atol=1e-5, rtol=1e-4)


def test_one_row_in_a_single_process_is_told_of_by_the_keys_that_give_more():
    norm = SyncBatchNorm(3)
    with pytest.raises(ValueError, match=r"raise data.batch_size, or data.micro_batch_size if that is 1"):
        norm(torch.ones(1, 3))
    assert norm(torch.ones(1, 3, 2)).shape == (1, 3, 2) and norm.eval()(torch.ones(1, 3)).shape == (1, 3)
