"""Tokens without signal, by counting samples one by one; means and predictions as if padding were not there."""

import math

import pytest
import torch

from src.models.any_config import read_encoder_section
from src.models.config import PredictorConfig
from src.models.padding import mean_token, valid_tokens, without
from src.models.predictor import Predictor

KINDS = {
    "ecg_tiny": '{"name": "ecg_tiny", "leads": 3, "length": 40, "patch": 8, "width": 16, "depth": 1, "heads": 2}',
    "ecg_lead_tiny": '{"name": "ecg_lead_tiny", "leads": 3, "length": 40, "patch": 8, "width": 16, "heads": 2}',
    "s4": '{"name": "s4", "leads": 3, "length": 40, "patch": 8, "width": 8, "depth": 1}',
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_valid_where_its_patch_holds_a_sample(kind):
    config = read_encoder_section(KINDS[kind])
    ends = [1, 7, 8, 9, 33, 40]
    found = valid_tokens(torch.arange(40) < torch.tensor(ends)[:, None], config)
    assert found.shape == (6, math.prod(config.grid)) and found.dtype == torch.bool
    for row, end in zip(found.tolist(), ends, strict=True):
        times = [any(sample < end for sample in range(8 * time, 8 * time + 8)) for time in range(5)]
        assert row == times * (len(row) // 5)


def test_a_mean_is_that_of_each_sample_alone_whatever_the_padding_is():
    tokens = torch.randn(3, 5, 4)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    tokens[~valid] = math.nan
    wanted = torch.stack([own[there].mean(0) for own, there in zip(tokens, valid, strict=True)])
    torch.testing.assert_close(mean_token(tokens, valid), wanted)
    assert without(tokens, valid, -1.0)[~valid].eq(-1).all() and mean_token(tokens)[1:].isnan().all()


@pytest.mark.parametrize("per_lead", [False, True])
def test_a_prediction_is_that_of_the_tokens_with_signal_alone(per_lead):
    """Two leads of five times, of which three are signal."""
    torch.manual_seed(0)
    predictor = Predictor(PredictorConfig(width=12, depth=2, heads=2, per_lead=per_lead), 8, (2, 5)).double()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    valid = torch.arange(5).expand(2, 2, 5).flatten(1) < 3
    context, targets = torch.tensor([[0, 3, 5, 8]] * 2), torch.tensor([[[1, 4, 6, 9], [2, 3, 7, 8]]] * 2)
    features = torch.randn(2, 4, 8, dtype=torch.float64)
    padded = predictor(features, context, targets, valid_BL=valid)
    alone = predictor(features[:, [0, 2]], context[:, [0, 2]], targets[..., [0, 2]])
    torch.testing.assert_close(padded[:, :, [0, 2]], alone, rtol=0.0, atol=1e-12)
    assert not torch.allclose(predictor(features, context, targets)[:, :, [0, 2]], alone)
    everything = torch.ones_like(valid)
    torch.testing.assert_close(
        predictor(features, context, targets, valid_BL=everything), predictor(features, context, targets)
    )
