"""Tokens of leads x time against attention by brute force, and predictions of each lead alone."""

import pytest
import torch
import torch.nn.functional as F

from src.models.build import build_encoder
from src.models.config import LeadEncoderConfig, PredictorConfig
from src.models.positions import sincos_positions
from src.models.predictor import Predictor
from src.models.resize import resized
from src.models.vit import gather_tokens

LEADS, TIMES, PATCH, WIDTH = 3, 5, 4, 24
KEYS = {"name": "ecg_lead_tiny", "leads": LEADS, "length": TIMES * PATCH, "patch": PATCH, "width": WIDTH, "heads": 2}
CLOSE = {"rtol": 0.0, "atol": 1e-12}


def encoder_of(**keys):
    """An encoder whose tokens look at each other in earnest: as drawn at first, attention is nearly even."""
    torch.manual_seed(0)
    encoder = build_encoder(LeadEncoderConfig(**KEYS | {"depth": 2} | keys)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def ecgs(samples=2, times=TIMES):
    return torch.randn(samples, LEADS, times * PATCH, dtype=torch.float64)


def token(lead, time):
    return lead * TIMES + time


def one_by_one(encoder, ecg_CT):
    """Each token is a lead's patch; it attends to what is of its lead, and to what is of its time."""
    positions = sincos_positions((LEADS, TIMES), WIDTH).double()
    weight = encoder.patch_embed.proj.weight.view(WIDTH, PATCH)
    x = torch.stack(
        [
            weight @ ecg_CT[lead, PATCH * time : PATCH * (time + 1)]
            + encoder.patch_embed.proj.bias
            + positions[token(lead, time)]
            for lead in range(LEADS)
            for time in range(TIMES)
        ]
    )
    for block in encoder.blocks:
        q, k, v = (part.view(-1, 2, WIDTH // 2) for part in block.attn.qkv(block.norm1(x)).chunk(3, -1))
        mixed = torch.empty_like(q)
        for lead in range(LEADS):
            for time in range(TIMES):
                row = [token(lead, other) for other in range(TIMES)]
                column = [token(other, time) for other in range(LEADS) if other != lead]
                at = token(lead, time)
                for head in range(2):
                    scores = k[row + column, head] @ q[at, head] / (WIDTH // 2) ** 0.5
                    mixed[at, head] = scores.softmax(0) @ v[row + column, head]
        x = x + block.attn.proj(mixed.flatten(1))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
    return encoder.norm(x)


def test_attention_goes_along_the_lead_and_the_time():
    encoder, ecg = encoder_of(), ecgs()
    expected = torch.stack([one_by_one(encoder, one) for one in ecg])
    torch.testing.assert_close(encoder(ecg), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions", ["sincos", "rope", "learned"])
def test_in_one_layer_nothing_comes_from_another_lead_at_another_time(positions):
    encoder, ecg = encoder_of(depth=1, positions=positions), ecgs(1)
    before = encoder(ecg)
    ecg[0, 1, 2 * PATCH : 3 * PATCH] += 3.0  # token (1, 2)
    changed = (encoder(ecg) != before).any(-1)[0].view(LEADS, TIMES)
    expected = torch.zeros(LEADS, TIMES, dtype=torch.bool)
    expected[1], expected[:, 2] = True, True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("registers", [0, 2])
def test_kept_tokens_are_those_of_all_without_the_others(registers):
    encoder, ecg = encoder_of(registers=registers, positions="rope"), ecgs()
    keep = torch.tensor([[0, 3, 7, 12], [1, 2, 9, 14]])
    valid = torch.zeros(2, LEADS * TIMES, dtype=torch.bool).scatter(1, keep, True)
    seen = gather_tokens(encoder(ecg, valid_BL=valid), keep)
    torch.testing.assert_close(encoder(ecg, keep), seen, **CLOSE)
    touched = ecg.clone()
    touched[0, :, 4 * PATCH :] = 100.0
    assert torch.equal(encoder(touched, keep), encoder(ecg, keep))


def test_a_token_with_padding_alone_in_its_lines_is_a_number():
    encoder, ecg = encoder_of(), ecgs()
    valid = torch.zeros(2, LEADS * TIMES, dtype=torch.bool)
    valid[:, token(0, 0)] = True
    tokens = encoder(ecg, valid_BL=valid)
    tokens[valid].sum().backward()
    assert tokens.isfinite().all() and all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_the_published_size_is_a_vit_b_of_eight_leads_and_fifty_times():
    config = LeadEncoderConfig(name="ecg_lead_b", leads=8, length=2500, patch=50, heads=16)
    with torch.device("meta"):
        encoder = build_encoder(config)
    block = 4 * 768 * 768 + 4 * 768 + 2 * 4 * 768 * 768 + 5 * 768 + 4 * 768
    assert sum(p.numel() for p in encoder.parameters()) == 12 * block + 2 * 768 + (50 + 1) * 768
    assert config.grid == (8, 50) and config.sides == (2500,) and config.channels == 8


def test_a_standardised_signal_enters_as_loud_as_its_position():
    torch.manual_seed(0)
    encoder = build_encoder(LeadEncoderConfig(name="ecg_lead_tiny", leads=8, length=500, patch=50))
    assert encoder.patch_embed(torch.randn(8, 1, 8, 500)).std().item() == pytest.approx(1.0, rel=0.1)


def predictor_of(positions="sincos"):
    torch.manual_seed(0)
    config = PredictorConfig(width=16, depth=2, heads=2, per_lead=True)
    predictor = Predictor(config, WIDTH, (LEADS, TIMES), positions).double()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return predictor


def numbers(*times):
    """Tokens of these times in all leads, row-major."""
    return torch.tensor([[token(lead, time) for lead in range(LEADS) for time in times]])


@pytest.mark.parametrize("positions", ["sincos", "rope", "learned"])
def test_each_lead_is_predicted_alone(positions):
    """As by a predictor along time that is asked for one lead after the other."""
    predictor = predictor_of(positions)
    alone = Predictor(PredictorConfig(width=16, depth=2, heads=2), WIDTH, (TIMES,), positions).double()
    alone.load_state_dict(predictor.state_dict())
    context, targets = torch.randn(1, 2 * LEADS, WIDTH, dtype=torch.float64), torch.stack([numbers(1), numbers(4)], 1)
    found = predictor(context, numbers(0, 3), targets).view(2, LEADS, 1, WIDTH)
    for lead in range(LEADS):
        wanted = alone(context[:, 2 * lead : 2 * lead + 2], torch.tensor([[0, 3]]), torch.tensor([[[1], [4]]]))
        torch.testing.assert_close(found[:, lead], wanted[0], **CLOSE)


def test_leads_may_have_unequal_counts():
    predictor = predictor_of()
    context, index = torch.randn(1, 4, WIDTH, dtype=torch.float64), torch.tensor([[token(0, 0), 5, 7, 13]])
    before = predictor(context, index, torch.tensor([[[token(0, 2), token(2, 4)]]]))
    context[:, 3] += 1.0  # of lead 2
    after = predictor(context, index, torch.tensor([[[token(0, 2), token(2, 4)]]]))
    assert torch.equal(before[:, :, 0], after[:, :, 0]) and not torch.allclose(before[:, :, 1], after[:, :, 1])


def test_learned_positions_of_a_predictor_per_lead_are_resized_along_time():
    old = LeadEncoderConfig(**KEYS, positions="learned")
    new = LeadEncoderConfig(**KEYS | {"length": 8 * PATCH}, positions="learned")
    parts = {"student": build_encoder(old), "predictor": predictor_of("learned")}
    found = resized(torch.nn.ModuleDict(parts).state_dict(), old, new)
    build_encoder(new).load_state_dict({key[8:]: found[key] for key in found if key.startswith("student.")})
    assert found["predictor.places.learned"].shape == (1, 8, 16)


def test_a_predictor_per_lead_without_leads_is_refused():
    with pytest.raises(ValueError, match=r"per_lead needs an encoder whose tokens are of one lead each: .* ecg_lead_"):
        Predictor(PredictorConfig(per_lead=True), WIDTH, (TIMES,))
