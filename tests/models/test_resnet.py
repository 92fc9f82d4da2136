"""The 1-D ResNets against transformers' 2-D one on images of one row, and against the papers' definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetConfig as TheirConfig
from transformers import ResNetModel

from src.distributed.batchnorm import SyncBatchNorm
from src.models.build import build_encoder
from src.models.config import ResNetConfig
from src.models.resnet import Residual

SMALL = {"leads": 3, "length": 200, "depths": (1, 2, 1, 1), "widths": (8, 8, 16, 16)}


def small(name, **keys):
    torch.manual_seed(0)
    return build_encoder(ResNetConfig(name=name, **SMALL | keys))


def copy_pair(pair, convolution, norm):
    """Ours into theirs: a row of the kernel meets the only row of the image, the others meet padding."""
    middle = convolution.kernel_size[0] // 2
    convolution.weight.data[:, :, middle] = pair[0].weight.data
    nn.init.normal_(pair[1].weight)
    norm.load_state_dict(pair[1].state_dict())


@pytest.mark.parametrize(("name", "kind", "expansion"), [("resnet1d_34", "basic", 1), ("resnet1d_50", "bottleneck", 4)])
def test_equals_transformers_resnet_on_an_image_of_one_row(name, kind, expansion):
    ours = small(name)
    sizes = [width * expansion for width in SMALL["widths"]]
    config = TheirConfig(num_channels=3, hidden_sizes=sizes, depths=list(SMALL["depths"]), layer_type=kind)
    theirs = ResNetModel(config).train()
    stem = theirs.embedder.embedder
    copy_pair(ours.stem[0], stem.convolution, stem.normalization)
    layers = [layer for stage in theirs.encoder.stages for layer in stage.layers]
    for block, layer in zip(ours.blocks, layers, strict=True):
        for mine, their in zip(block.path[::2], layer.layer, strict=True):
            copy_pair(mine, their.convolution, their.normalization)
        assert isinstance(layer.shortcut, nn.Identity) == (len(block.shortcut) == 0)
        for mine in block.shortcut:
            copy_pair(mine, layer.shortcut.convolution, layer.shortcut.normalization)
    ecg = torch.randn(4, 3, 200)
    for _ in range(2):  # by the statistics of the batch, then by those followed
        expected = theirs(ecg.unsqueeze(2)).last_hidden_state.squeeze(2).transpose(1, 2)
        torch.testing.assert_close(ours(ecg), expected, rtol=1e-4, atol=1e-5)
        ours, theirs = ours.eval(), theirs.eval()


def test_block_of_xresnet_is_its_formula():
    torch.manual_seed(0)
    block = Residual(6, 4, 4, stride=2, kernel=5, pooled=True)
    x = torch.randn(3, 6, 11)

    def convolved(x, pair, stride=1, padding=0):
        weight = pair[0].weight
        x = F.conv1d(F.pad(x, (padding, padding)), weight, stride=stride)
        mean, variance = x.mean((0, 2), keepdim=True), x.var((0, 2), unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    pairs = torch.stack([(x[..., 2 * i : 2 * i + 2]).mean(-1) for i in range(6)], dim=-1)  # the last is alone
    short = convolved(pairs, block.shortcut[1])
    narrow = convolved(x, block.path[0]).relu()
    seen = convolved(narrow, block.path[2], stride=2, padding=2).relu()
    torch.testing.assert_close(block(x), (short + convolved(seen, block.path[4])).relu(), rtol=1e-4, atol=1e-5)


def count(name):
    with torch.device("meta"):
        encoder = build_encoder(ResNetConfig(name=name, leads=12, length=1000))
    return sum(parameter.numel() for parameter in encoder.parameters())


def conv(channels, width, kernel):
    return channels * width * kernel + 2 * width


def test_resnets_have_the_papers_layers():
    stem = conv(12, 64, 7)

    def basic(widths, blocks):
        total, before = stem, 64
        for width, number in zip(widths, blocks, strict=True):
            total += conv(before, width, 3) + (2 * number - 1) * conv(width, width, 3)
            total += conv(before, width, 1) if before != width else 0
            before = width
        return total

    widths = (64, 128, 256, 512)
    assert count("resnet1d_18") == basic(widths, (2, 2, 2, 2))
    assert count("resnet1d_34") == basic(widths, (3, 4, 6, 3))
    fifty, before = stem, 64
    for width, number in zip(widths, (3, 4, 6, 3), strict=True):
        first = conv(before, width, 1) + conv(before, 4 * width, 1)
        others = (number - 1) * conv(4 * width, width, 1)
        fifty += first + others + number * (conv(width, width, 3) + conv(width, 4 * width, 1))
        before = 4 * width
    assert count("resnet1d_50") == fifty


@pytest.mark.parametrize(("name", "blocks"), [("xresnet1d_50", 16), ("xresnet1d_101", 33)])
def test_xresnets_have_the_papers_layers(name, blocks):
    stem = conv(12, 32, 5) + conv(32, 32, 5) + conv(32, 64, 5)
    widening = conv(64, 256, 1)  # the first shortcut; later ones only pool
    first = conv(64, 64, 1) + (blocks - 1) * conv(256, 64, 1)
    assert count(name) == stem + widening + first + blocks * (conv(64, 64, 5) + conv(64, 256, 1))


@pytest.mark.parametrize("name", ["resnet1d_18", "xresnet1d_50"])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 160, 201])
def test_a_token_for_every_32_samples_that_were_begun(name, length):
    encoder = small(name, length=length).eval()
    tokens = encoder(torch.randn(2, 3, length))
    assert tokens.shape == (2, -(-length // 32), encoder.width)
    assert encoder.config.grid == (tokens.shape[1],) and encoder.config.token_width == encoder.width


def test_a_sample_alters_only_the_tokens_that_see_it():
    """Radius by hand: stem 3, pool 2, blocks 4 + 4, 4 + 8, 8 + 16, 16 + 32 around sample 32 i."""
    encoder = small("resnet1d_18", depths=(1, 1, 1, 1), length=640).eval()
    ecg = torch.randn(1, 3, 640)
    before = encoder(ecg)
    for sample in (0, 200, 333, 639):
        touched = ecg.clone()
        touched[:, :, sample] += 100.0
        altered = (encoder(touched) != before).any(-1)[0]
        near = (32 * torch.arange(20) - sample).abs() <= 97
        assert altered.any() and not (altered & ~near).any()


def test_blocks_of_xresnet_begin_as_their_shortcuts():
    encoder = small("xresnet1d_50")
    x = torch.randn(2, 64, 40)
    for block in encoder.blocks:
        torch.testing.assert_close(block(x), block.shortcut(x).relu())
        x = block(x)


def test_statistics_are_those_of_all_ranks():
    norms = [layer for layer in small("xresnet1d_50").modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    assert norms and all(type(norm) is SyncBatchNorm for norm in norms)


def test_says_that_it_drops_no_tokens():
    encoder = small("resnet1d_18")
    assert not encoder.config.drops_tokens and not encoder.config.knows_padding
    with pytest.raises(AssertionError, match="whole records"):
        encoder(torch.randn(1, 3, 200), torch.zeros(1, 1, dtype=torch.long))
