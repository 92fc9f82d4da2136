"""The encoder against timm's definition in plain torch, and its initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.models.build import build_encoder
from src.models.config import EncoderConfig, LeadEncoderConfig, VisionEncoderConfig
from src.models.positions import coordinates, rotate, rotations, sincos_positions
from src.models.vit import gather_tokens

CONFIG = EncoderConfig(name="ecg_tiny", leads=3, length=40, patch=4, width=24, depth=3, heads=4)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(CONFIG)


def reference(encoder, ecg, heads):
    """The forward by the paper's formulas: softmax(q k / sqrt d) v, pre-norm, residuals."""
    B, C, T = ecg.shape
    patches = ecg.view(B, C, T // 4, 4).permute(0, 2, 1, 3).reshape(B, T // 4, C * 4)
    x = (
        patches @ encoder.patch_embed.proj.weight.reshape(24, -1).T
        + encoder.patch_embed.proj.bias
        + encoder.places.waves
    )
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
    positions = encoder.places.waves.pow(2).mean().sqrt().item()
    assert signal == pytest.approx(1.0, rel=0.1) and positions == pytest.approx(0.5**0.5, rel=0.01)


VIDEO = {"name": "vit_tiny", "depth": 2, "width": 48, "heads": 2, "input": (4, 24, 32), "patch": (2, 8, 8), "colors": 2}
POSITIONS = ["sincos", "learned", "rope", "rope_vjepa2"]


def of_videos(**keys):
    """An encoder whose tokens look at each other in earnest: as drawn at first, attention is nearly even."""
    torch.manual_seed(0)
    encoder = build_encoder(VisionEncoderConfig(**VIDEO | keys)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return encoder


@pytest.mark.parametrize("axes", [2, 3])
def test_tokens_of_a_grid_are_its_patches_in_row_major_order(axes):
    torch.manual_seed(0)
    sides, patches = VIDEO["input"][-axes:], VIDEO["patch"][-axes:]
    encoder = build_encoder(VisionEncoderConfig(**VIDEO | {"input": sides, "patch": patches}))
    signal = torch.randn(1, 2, *sides)
    tokens = encoder.patch_embed(signal)
    grid = encoder.config.grid
    for token, place in enumerate(coordinates(grid).int().tolist()):
        part = signal[(0, slice(None), *(slice(p * k, p * k + k) for p, k in zip(place, patches, strict=True)))]
        expected = encoder.patch_embed.proj.weight.flatten(1) @ part.flatten() + encoder.patch_embed.proj.bias
        torch.testing.assert_close(tokens[0, token], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("registers", [0, 2])
def test_kept_tokens_are_those_of_all_without_the_others(positions, registers):
    """Dropping tokens equals seeing all while nobody looks at them, for every kind of position, with registers."""
    encoder, videos = of_videos(positions=positions, registers=registers), torch.randn(2, 2, 4, 24, 32)
    keep = torch.tensor([[0, 3, 7, 20], [1, 2, 9, 23]])
    valid = torch.zeros(2, 24, dtype=torch.bool).scatter(1, keep, True)
    seen = gather_tokens(encoder(videos, valid_BL=valid), keep)
    torch.testing.assert_close(encoder(videos, keep), seen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_positions_tell_tokens_apart(positions):
    """Without them the same tubelets in another order would give the same tokens in that order."""
    encoder, videos = of_videos(positions=positions), torch.randn(1, 2, 4, 24, 32)
    swapped = torch.cat([videos[:, :, 2:], videos[:, :, :2]], dim=2)
    assert not torch.allclose(encoder(videos)[:, :12], encoder(swapped)[:, 12:], atol=1e-3)


def test_registers_are_seen_and_not_given_back():
    encoder, videos = of_videos(registers=1), torch.randn(1, 2, 4, 24, 32)
    before = encoder(videos)
    assert before.shape == (1, 24, 48)
    with torch.no_grad():
        encoder.registers[0].add_(torch.randn(48))
    assert not torch.allclose(encoder(videos), before, atol=1e-3)


def test_what_is_not_valid_influences_nothing():
    encoder, videos = of_videos(positions="rope"), torch.randn(1, 2, 4, 24, 32)
    valid = torch.arange(24).view(1, 24) < 12
    before = encoder(videos, valid_BL=valid)[:, :12]
    videos[:, :, 2:] = 100.0
    assert torch.equal(encoder(videos, valid_BL=valid)[:, :12], before)


def test_a_rotation_turns_pairs_by_coordinate_times_frequency():
    turns = rotations((3, 4, 5), 14)  # 4 numbers for each axis, 2 that stay
    heads = torch.randn(1, 1, 60, 14)
    turned = rotate(heads, turns.unsqueeze(0))[0, 0]
    for token, place in enumerate(coordinates((3, 4, 5)).tolist()):
        for axis in range(3):
            for pair in range(2):
                at = 4 * axis + 2 * pair
                angle = place[axis] * 10000 ** (-2 * pair / 4)
                number = torch.view_as_complex(heads[0, 0, token, at : at + 2].contiguous()) * complex(
                    math.cos(angle), math.sin(angle)
                )
                torch.testing.assert_close(turned[token, at : at + 2], torch.view_as_real(number))
    assert torch.equal(turned[:, 12:], heads[0, 0, :, 12:])


def test_rotated_products_depend_on_the_distance_alone():
    turns = rotations((6, 7), 8).unsqueeze(0)
    q, k = torch.randn(8), torch.randn(8)
    products = rotate(q.expand(1, 1, 42, 8), turns)[0, 0] @ rotate(k.expand(1, 1, 42, 8), turns)[0, 0].T
    at = coordinates((6, 7)).int()
    for i, j in [(0, 8), (3, 11), (19, 27), (33, 41)]:  # one down, one right
        assert (at[j] - at[i]).tolist() == [1, 1]
        assert products[i, j].item() == pytest.approx(products[0, 8].item(), abs=1e-5)
    assert products[0, 1].item() != pytest.approx(products[0, 8].item(), abs=1e-3)


@pytest.mark.parametrize(
    ("keys", "millions"),
    [  # Dosovitskiy et al. 2021, Zhai et al. 2022, without class token, head, learned positions
        ({"name": "vit_base", "input": (224, 224), "patch": (16, 16)}, 85.6),
        ({"name": "vit_large", "input": (224, 224), "patch": (16, 16)}, 303.1),
        ({"name": "vit_huge", "input": (224, 224), "patch": (14, 14)}, 630.4),
        ({"name": "vit_giant", "input": (224, 224), "patch": (16, 16)}, 1011.2),
    ],
)
def test_vision_sizes_have_the_published_parameter_counts(keys, millions):
    with torch.device("meta"):
        encoder = build_encoder(VisionEncoderConfig(**keys))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.002)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"patch": (2, 7, 8)}, r"patch \[2, 7, 8\] does not divide input \[4, 24, 32\]"),
        ({"patch": (8, 8)}, "must both have two numbers"),
        ({"heads": 5}, "width 48 must be even and divisible by heads 5"),
        ({"heads": 12, "positions": "rope"}, "a head is 4 wide; use fewer heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        VisionEncoderConfig(**VIDEO | keys)


VARIABLE = {"length": 40, "patch": 4, "leads": 3, "width": 24, "depth": 3, "heads": 2}


@pytest.mark.parametrize("config", [EncoderConfig, LeadEncoderConfig], ids=["all leads", "one lead"])
@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("positions", POSITIONS)
def test_padded_records_are_what_they_are_alone(config, registers, positions):
    """Records of 2, 7 and 10 tokens in one batch, as long as the longest."""
    torch.manual_seed(0)
    name = "ecg_tiny" if config is EncoderConfig else "ecg_lead_tiny"
    encoder = build_encoder(config(name=name, positions=positions, registers=registers, **VARIABLE)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    counts, rows = [2, 7, 10], encoder.config.grid[0] if config is LeadEncoderConfig else 1
    ecg = torch.randn(3, 3, 40, dtype=torch.float64)
    valid = (torch.arange(10) < torch.tensor(counts).unsqueeze(1)).unsqueeze(1).expand(3, rows, 10)
    together = encoder(ecg, valid_BL=valid.flatten(1)).unflatten(1, (rows, 10))
    for record, count in enumerate(counts):
        alone = encoder(ecg[record : record + 1, :, : 4 * count]).unflatten(1, (rows, count))
        torch.testing.assert_close(together[record, :, :count], alone[0], rtol=0, atol=1e-12)


def test_a_shorter_input_is_what_a_smaller_encoder_makes_of_it():
    """Computed places are one apart whatever the size, so those of a part are the first of the whole."""
    encoder = of_videos(positions="sincos")
    smaller = build_encoder(VisionEncoderConfig(**VIDEO | {"input": (2, 16, 24)})).eval()
    smaller.load_state_dict(encoder.state_dict())
    videos, keep = torch.randn(2, 2, 2, 16, 24), torch.tensor([[0, 3], [5, 1]])
    torch.testing.assert_close(encoder(videos), smaller(videos), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder(videos, keep), smaller(videos, keep), rtol=0, atol=1e-5)


def test_a_larger_input_is_refused():
    with pytest.raises(ValueError, match=r"an input of \[4, 24, 40\] is larger than the \[4, 24, 32\]"):
        of_videos()(torch.randn(1, 2, 4, 24, 40))
