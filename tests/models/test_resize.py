"""Encoders at other input sizes than they were trained at, against numpy's interpolation and transformers' models."""

import numpy as np
import pytest
import torch
from transformers import IJepaConfig, IJepaModel, VJEPA2Config, VJEPA2Model

from src.models.backbone_config import TimmConfig
from src.models.build import build_encoder
from src.models.config import EncoderConfig, PredictorConfig, ResNetConfig, S4Config, VisionEncoderConfig
from src.models.predictor import Predictor
from src.models.published import from_ijepa, from_vjepa2
from src.models.resize import resized

SIZES = {"width": 24, "depth": 2, "heads": 2}
CLOSE = {"rtol": 0.0, "atol": 1e-5}


def ecg(length, **keys):
    return EncoderConfig(name="ecg_tiny", leads=2, length=length, patch=4, **SIZES | keys)


def vision(*sides, patch=8, **keys):
    return VisionEncoderConfig(name="vit_tiny", input=sides, patch=(patch,) * len(sides), **SIZES | keys)


PAIRS = [
    (ecg(40, positions="learned"), ecg(64, positions="learned")),
    (vision(224, 224, patch=16, positions="learned"), vision(160, 160, patch=16, positions="learned")),
    (vision(16, 24, 32, positions="learned"), vision(24, 16, 48, positions="learned")),
]


def drawn(config):
    torch.manual_seed(0)
    return build_encoder(config)


def linear(field, axis, size):
    """By numpy: token i of the new ones lies at (i + 1/2) old / new - 1/2 of the old, cut at the ends."""
    old = field.shape[axis]
    at = (np.arange(size) + 0.5) * old / size - 0.5
    return np.apply_along_axis(lambda values: np.interp(at, np.arange(old), values), axis, field)


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=["1d", "2d", "3d"])
def test_the_same_size_changes_nothing_and_another_one_fits(old, new):
    state = drawn(old).state_dict()
    same = resized(state, old, old)
    assert same.keys() == state.keys() and all(torch.equal(same[name], state[name]) for name in state)
    other = resized(state, old, new)
    build_encoder(new).load_state_dict(other)
    assert {name for name in state if other[name] is not state[name]} == {"places.learned"}


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=["1d", "2d", "3d"])
def test_a_constant_field_stays_constant(old, new):
    state = drawn(old).state_dict()
    state["places.learned"] = torch.randn(24).expand_as(state["places.learned"]).clone()
    found = resized(state, old, new)["places.learned"]
    torch.testing.assert_close(found, state["places.learned"][:, :1].expand_as(found))


@pytest.mark.parametrize(("old", "new"), [PAIRS[0], PAIRS[2]], ids=["1d", "3d"])
def test_interpolation_is_linear_along_each_axis(old, new):
    state = drawn(old).state_dict()
    expected = state["places.learned"][0].numpy().reshape(*old.grid, 24)
    for axis, size in enumerate(new.grid):
        expected = linear(expected, axis, size)
    found = resized(state, old, new)["places.learned"][0].numpy()
    np.testing.assert_allclose(found, expected.reshape(-1, 24), atol=1e-6)


@pytest.mark.parametrize("sides", [(42, 42), (70, 42), (98, 98)])
def test_images_of_other_sizes_are_what_they_are_to_transformers(sides):
    torch.manual_seed(0)
    config = IJepaConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    config.image_size, config.patch_size, config.layer_norm_eps = 56, 14, 1e-6
    model = IJepaModel(config).eval()
    model.embeddings.position_embeddings.data.normal_()
    trained = from_ijepa(model)
    wanted = trained.config.model_copy(update={"input": sides})
    encoder = build_encoder(wanted)
    encoder.load_state_dict(resized(trained.state_dict(), trained.config, wanted))
    images = torch.randn(2, 3, *sides)
    theirs = model(images, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(encoder(images), theirs, **CLOSE)


@pytest.mark.parametrize("sides", [(8, 80, 80), (16, 32, 32)])
def test_turning_positions_of_other_sizes_are_v_jepa_2s(sides):
    keys = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2.0, "patch_size": 16}
    keys |= {"pred_hidden_size": 40, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}
    torch.manual_seed(0)
    model = VJEPA2Model(VJEPA2Config(frames_per_clip=8, crop_size=48, **keys)).eval()
    trained, _ = from_vjepa2(model)
    larger = VJEPA2Model(VJEPA2Config(frames_per_clip=sides[0], crop_size=sides[1], **keys)).eval()
    larger.load_state_dict(model.state_dict())
    wanted = trained.config.model_copy(update={"input": sides})
    encoder = build_encoder(wanted)
    encoder.load_state_dict(resized(trained.state_dict(), trained.config, wanted))
    videos = torch.randn(2, 3, *sides)
    theirs = larger(videos.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encoder(videos), theirs, **CLOSE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ecg(40), ecg(64, drop_path=0.1)),
        (vision(24, 24, positions="rope"), vision(16, 40, positions="rope")),
        (
            ResNetConfig(name="resnet1d_18", length=64, depths=(1, 1, 1, 1), widths=(4, 4, 4, 4)),
            ResNetConfig(name="resnet1d_18", length=96, depths=(1, 1, 1, 1), widths=(4, 4, 4, 4)),
        ),
        (S4Config(name="s4", length=40, width=8, depth=1), S4Config(name="s4", length=64, width=8, depth=1)),
    ],
    ids=["sincos", "rope", "resnet", "s4"],
)
def test_what_is_computed_needs_no_change(old, new):
    state = drawn(old).state_dict()
    found = resized(state, old, new)
    assert all(found[name] is state[name] for name in state)
    other = build_encoder(new).eval()
    other.load_state_dict(found)
    assert other(torch.randn(1, new.channels, *new.sides)).shape == (1, np.prod(new.grid), new.token_width)


def test_predictor_and_teacher_of_an_objective_come_along():
    old, new = PAIRS[1]
    predictor = PredictorConfig(**SIZES)
    parts = {"student": build_encoder(old), "predictor": Predictor(predictor, 24, old.grid, "learned")}
    found = resized(torch.nn.ModuleDict(parts).state_dict(), old, new)
    wanted = {"student": build_encoder(new), "predictor": Predictor(predictor, 24, new.grid, "learned")}
    torch.nn.ModuleDict(wanted).load_state_dict(found)


def test_a_token_without_a_place_stays():
    old, new = (TimmConfig(name="timm", model="vit", input=(side, side), patch=(8, 8), width=6) for side in (32, 48))
    places = torch.randn(1, 1 + 16, 6)
    found = resized({"model.pos_embed": places}, old, new)["model.pos_embed"]
    assert found.shape == (1, 1 + 36, 6) and torch.equal(found[:, 0], places[:, 0])
    alone = resized({"places.learned": places[:, 1:]}, old, new)["places.learned"]
    assert torch.equal(found[:, 1:], alone)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (ecg(64, width=48), "model.encoder.width is 48, but the weights are of an encoder whose width is 24"),
        (ecg(64, positions="learned"), "model.encoder.positions is learned, but .* is sincos"),
        (vision(16, 16), "model.encoder.name is vit_tiny, but the weights are of an encoder whose name is ecg_tiny"),
    ],
)
def test_other_differences_are_refused(new, said):
    with pytest.raises(ValueError, match=said):
        resized({}, ecg(40), new)
