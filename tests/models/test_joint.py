"""BatchNorm over some rows is torch's over those rows."""

import pytest
import torch
from torch import nn

from src.models.joint import JointHead, RowBatchNorm
from src.models.text_config import JointHeadConfig

DRAW = torch.Generator().manual_seed(0)
ROWS = torch.randn(9, 5, generator=DRAW) * 3 + 2


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 3, 7]])
def test_it_is_torchs_of_the_rows_that_are_kept(kept):
    own, torchs = RowBatchNorm(5), nn.BatchNorm1d(5)
    keep = torch.zeros(9, dtype=torch.bool).index_fill(0, torch.tensor(kept), True)
    found, expected = own(ROWS, keep), torchs(ROWS[kept])
    torch.testing.assert_close(found[kept], expected, atol=1e-5, rtol=1e-5)
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(buffer, dict(torchs.named_buffers())[name])
    found[kept].square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(own.weight.grad, torchs.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.eval()(ROWS, keep), torchs.eval()(ROWS))


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_no_error_and_no_nan(count):
    norm = RowBatchNorm(5)
    keep = torch.arange(9) < count
    rows = ROWS.clone()
    rows[8] = torch.nan
    found = norm(rows, keep)
    assert found[:8].isfinite().all() and all(buffer.isfinite().all() for buffer in norm.buffers())
    assert norm.num_batches_tracked == min(count, 1) and (count > 0 or not norm.running_mean.any())


def test_a_head_without_batchnorm_gives_a_row_the_same_in_any_batch():
    for norm in ("layer", "none"):
        head = JointHead(5, JointHeadConfig(widths=(7, 3), norm=norm)).train()
        torch.testing.assert_close(head(ROWS[:1]), head(ROWS)[:1])
    assert [type(layer) for layer in JointHead(5, JointHeadConfig(widths=(3,)))] == [nn.Linear]
