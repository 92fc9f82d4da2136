"""The encoder against timm's definition in plain torch, and its initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.models.config import EncoderConfig
from src.models.positions import sincos_positions
from src.models.vit import build_encoder, gather_tokens

CONFIG = EncoderConfig(name="ecg_tiny", leads=3, length=40, patch=4, width=24, depth=3, heads=4)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(CONFIG)


def reference(encoder, ecg, heads):
    """The forward by the paper's formulas: softmax(q k / sqrt d) v, pre-norm, residuals."""
    B, C, T = ecg.shape
    patches = ecg.view(B, C, T // 4, 4).permute(0, 2, 1, 3).reshape(B, T // 4, C * 4)
    x = patches @ encoder.patch_embed.proj.weight.reshape(24, -1).T + encoder.patch_embed.proj.bias + encoder.pos_embed
    for block in encoder.blocks:
        q, k, v = block.attn.qkv(F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, 1e-6)).chunk(3, -1)
        heads_out = []
        for h in range(heads):
            part = slice(h * 24 // heads, (h + 1) * 24 // heads)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(24 / heads)
            heads_out.append(scores.softmax(-1) @ v[..., part])
        x = x + block.attn.proj(torch.cat(heads_out, -1))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
    return encoder.norm(x)


def test_forward_equals_the_formulas(encoder):
    ecg = torch.randn(5, 3, 40)
    torch.testing.assert_close(encoder(ecg), reference(encoder, ecg, heads=4), rtol=1e-5, atol=1e-6)


def test_dropped_tokens_cannot_influence_kept_ones(encoder):
    ecg = torch.randn(2, 3, 40)
    keep = torch.tensor([[0, 3, 7], [1, 2, 9]])
    before = encoder(ecg, keep)
    touched = ecg.clone()
    touched[0, :, 4:12] += 5  # tokens 1 and 2 of sample 0
    touched[1, :, 0:4] -= 5  # token 0 of sample 1
    assert torch.equal(before, encoder(touched, keep))


def test_keeping_all_tokens_changes_nothing(encoder):
    ecg = torch.randn(2, 3, 40)
    torch.testing.assert_close(encoder(ecg, torch.arange(10).expand(2, 10)), encoder(ecg), rtol=1e-5, atol=1e-6)


def test_gather_tokens_picks_by_position():
    tokens = torch.arange(2 * 5 * 3).view(2, 5, 3)
    index = torch.tensor([[4, 0], [2, 2]])
    picked = gather_tokens(tokens, index)
    assert torch.equal(picked, torch.stack([tokens[0, [4, 0]], tokens[1, [2, 2]]]))


def test_sincos_positions_are_the_papers():
    table = sincos_positions((7,), 8)
    for position in range(7):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 4 + i] == pytest.approx(math.cos(angle), abs=1e-6)


def test_sincos_positions_tell_every_cell_of_a_grid_apart():
    table = sincos_positions((3, 4, 5), 26)  # 26 leaves 2 over: zeros
    assert table.shape == (60, 26) and not table[:, 24:].any()
    assert (torch.cdist(table, table) + torch.eye(60) > 1e-2).all()


def test_depth_rescaling_survives_initialisation():
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="ecg_s", length=100, patch=25))
    stds = [block.mlp.fc2.weight.std().item() for block in encoder.blocks]
    plain = encoder.blocks[0].mlp.fc1.weight.std().item()
    for layer, std in enumerate(stds, 1):
        assert std == pytest.approx(plain / math.sqrt(2 * layer), rel=0.02)


@pytest.mark.parametrize(("name", "millions"), [("ecg_xs", 3.6), ("ecg_s", 14.3), ("ecg_b", 85.3)])
def test_sizes_have_the_published_parameter_counts(name, millions):
    with torch.device("meta"):
        config = EncoderConfig(name=name, length=5000, patch=25)
        encoder = build_encoder(config)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_patch_that_does_not_divide_the_length_is_refused():
    with pytest.raises(ValueError, match="patch 7 does not divide length 40"):
        EncoderConfig(name="ecg_tiny", leads=3, length=40, patch=7)


@pytest.mark.parametrize(("leads", "patch"), [(2, 8), (12, 25), (1, 4)])
def test_a_standardised_signal_enters_as_loud_as_its_position(leads, patch):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="ecg_tiny", leads=leads, length=20 * patch, patch=patch))
    signal = encoder.patch_embed(torch.randn(64, leads, 20 * patch)).std().item()
    positions = encoder.pos_embed.pow(2).mean().sqrt().item()
    assert signal == pytest.approx(1.0, rel=0.1) and positions == pytest.approx(0.5**0.5, rel=0.01)
