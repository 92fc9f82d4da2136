"""Stochastic depth against its definition, sample by sample."""

import numpy as np
import pytest
import torch

from src.config.engine import EngineConfig
from src.engines.blocks import prepare_blocks
from src.models.build import build_encoder
from src.models.config import VisionEncoderConfig
from src.models.drop_path import drop_rates, kept_branches
from src.randomness import Streams

KEYS = {"name": "vit_tiny", "input": (24, 24), "patch": (8, 8), "depth": 4, "width": 24, "heads": 2, "drop_path": 0.6}
CONFIG = VisionEncoderConfig(**KEYS)


def streams(samples, epoch=0):
    return Streams.of_samples(0, np.full(samples, epoch), np.arange(samples))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(CONFIG).double()


def drawn(samples):
    return torch.from_numpy(kept_branches(CONFIG, streams(samples)))


def one_by_one(encoder, images, kept_BN2):
    """A branch that is left out is not computed; one that is kept is divided by the chance that it is."""
    found = []
    for image, kept_N2 in zip(images, kept_BN2.tolist(), strict=True):
        tokens, _ = encoder.places(encoder.patch_embed(image[None]))
        for number, (block, (attention, mlp)) in enumerate(zip(encoder.blocks, kept_N2, strict=True)):
            chance = 1 - 0.2 * number  # the rate rises from 0 to 0.6 over four blocks
            tokens = tokens + block.attn(block.norm1(tokens)) / chance if attention else tokens
            tokens = tokens + block.mlp(block.norm2(tokens)) / chance if mlp else tokens
        found.append(encoder.norm(tokens))
    return torch.cat(found)


def test_each_sample_goes_through_its_own_branches(encoder):
    images, kept = torch.randn(6, 3, 24, 24, dtype=torch.float64), drawn(6)
    assert not kept.flatten(1).all(1).any() and len({tuple(row) for row in kept.flatten(1).tolist()}) > 3
    found = encoder(images, branches_BN2=kept)
    torch.testing.assert_close(found, one_by_one(encoder, images, kept), rtol=0, atol=1e-12)


def test_rates_rise_linearly_and_are_kept():
    assert drop_rates(CONFIG) == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert drop_rates(VisionEncoderConfig(**KEYS | {"depth": 1})) == [0.0]
    kept_BN2 = kept_branches(CONFIG, streams(20000))
    assert kept_BN2.shape == (20000, 4, 2) and kept_BN2[:, 0].all()
    assert kept_BN2.mean((0, 2)) == pytest.approx([1.0, 0.8, 0.6, 0.4], abs=0.01)
    assert abs(np.corrcoef(kept_BN2[:, 3].T)[0, 1]) < 0.03, "attention and MLP are drawn apart"


def test_what_a_block_adds_is_the_same_on_average(encoder):
    tokens = torch.randn(1, 5, 24, dtype=torch.float64).expand(4, 5, 24)
    block, every = encoder.blocks[3], torch.cartesian_prod(torch.tensor([True, False]), torch.tensor([True, False]))
    chances = torch.tensor([0.4 * 0.4, 0.4 * 0.6, 0.6 * 0.4, 0.6 * 0.6], dtype=torch.float64)
    block.mlp = torch.nn.Linear(24, 24).double()  # a nonlinear one has no such mean behind a random attention
    block.norm2 = torch.nn.Identity()
    mean = (block(tokens, branches=every) * chances[:, None, None]).sum(0)
    torch.testing.assert_close(mean, block(tokens)[0], rtol=0, atol=1e-12)


def test_without_branches_nothing_is_left_out(encoder):
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    plain = build_encoder(VisionEncoderConfig(**KEYS | {"drop_path": 0.0})).double()
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(images), plain(images))
    assert torch.equal(plain(images, branches_BN2=torch.ones(2, 4, 2, dtype=torch.bool)), plain(images))


def test_branches_belong_to_the_sample_and_its_epoch():
    all_BN2 = kept_branches(CONFIG, streams(64))
    assert np.array_equal(kept_branches(CONFIG, streams(64)[10:20]), all_BN2[10:20])
    assert not np.array_equal(kept_branches(CONFIG, streams(64, epoch=1)), all_BN2)


def test_a_recomputed_block_leaves_out_the_same(encoder):
    images, kept = torch.randn(3, 3, 24, 24, dtype=torch.float64), drawn(3)
    slopes = []
    for recompute in (False, True):
        if recompute:
            prepare_blocks(encoder, EngineConfig(recompute=1, compile="off"), torch.device("cpu"))
        encoder.zero_grad()
        encoder(images, branches_BN2=kept).square().sum().backward()
        slopes.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


def test_a_rate_of_one_is_refused():
    with pytest.raises(ValueError, match="drop_path"):
        VisionEncoderConfig(**KEYS | {"drop_path": 1.0})
