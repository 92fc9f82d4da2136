"""Models of other libraries as encoders: equal to their own forward, from safetensors, with nothing else let in."""

import json

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SwinConfig,
    SwinModel,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from src.models.any_config import read_encoder_section
from src.models.backbone_config import BackboneConfig, TimmConfig
from src.models.build import build_encoder

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VIT = ViTConfig(**SIZE, image_size=32, patch_size=8, num_channels=2)
DINO = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
STAGES = {"image_size": 64, "depths": [1, 1, 1, 1]}
# model, its config, special tokens before the others, and what its tokens do not depend on
MODELS = {
    "vit": (ViTModel, VIT, 1, {"pooler.dense.weight", "pooler.dense.bias"}),
    "dinov2": (Dinov2Model, Dinov2Config(**DINO), 1, {"embeddings.mask_token"}),
    "registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**DINO, num_register_tokens=3),
        4,
        {"embeddings.mask_token"},
    ),
    "swin": (SwinModel, SwinConfig(**STAGES, embed_dim=4, num_heads=[1, 1, 2, 2], window_size=2), 0, set()),
    "convnext": (ConvNextModel, ConvNextConfig(**STAGES, hidden_sizes=[4, 6, 8, 12]), 0, None),
    "videomae": (VideoMAEModel, VideoMAEConfig(**SIZE, image_size=32, patch_size=16, num_frames=4), 0, set()),
}


def saved(folder, kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    model.save_pretrained(folder)
    return model


def section(folder, **keys):
    return BackboneConfig(name="transformers", folder=str(folder), **keys)


@pytest.fixture
def vit(tmp_path):
    return saved(tmp_path, ViTModel, VIT)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_the_models_own(name, tmp_path):
    kind, config, special, idle = MODELS[name]
    model = saved(tmp_path, kind, config)
    encoder = build_encoder(section(tmp_path)).eval()
    signal = torch.randn(2, encoder.config.channels, *encoder.config.sides)
    pixels = signal.transpose(1, 2) if name == "videomae" else signal
    hidden = model(pixel_values=pixels).last_hidden_state
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden[:, special:]
    torch.testing.assert_close(encoder(signal), tokens, rtol=0.0, atol=1e-6)
    assert tokens.shape == (2, torch.tensor(encoder.config.grid).prod(), encoder.config.token_width)
    assert not encoder.config.drops_tokens and encoder.width == encoder.config.token_width
    frozen = {n.removeprefix("model.") for n, p in encoder.named_parameters() if not p.requires_grad}
    assert idle is None or frozen == idle
    encoder.train()(signal).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in encoder.parameters())


def test_another_size_of_input_resizes_its_positions(tmp_path, vit):
    encoder = build_encoder(section(tmp_path, input=(48, 40))).eval()
    image = torch.randn(1, 2, 48, 40)
    expected = vit(pixel_values=image, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    assert encoder.config.grid == (6, 5)
    torch.testing.assert_close(encoder(image), expected, rtol=0.0, atol=1e-6)


def test_the_same_architecture_can_be_drawn(tmp_path, vit):
    config = section(tmp_path).drawn()
    torch.manual_seed(1)
    first, second, trained = (dict(build_encoder(c).named_parameters()) for c in (config, config, section(tmp_path)))
    assert first.keys() == trained.keys()
    matrices = [name for name, parameter in trained.items() if parameter.ndim == 2 and parameter.requires_grad]
    for name in matrices:
        assert not torch.equal(first[name], trained[name]) and not torch.equal(first[name], second[name])
    assert matrices


@pytest.mark.parametrize("name", MODELS)
def test_a_section_that_carries_the_architecture_needs_no_folder(name, tmp_path):
    kind, config, _, _ = MODELS[name]
    saved(tmp_path, kind, config)
    encoder = build_encoder(section(tmp_path)).eval()
    carried = encoder.config.carried()
    for path in tmp_path.iterdir():
        path.unlink()
    again = build_encoder(read_encoder_section(carried.drawn().model_dump_json())).eval()
    again.load_state_dict(encoder.state_dict())
    signal = torch.randn(2, encoder.config.channels, *encoder.config.sides)
    assert torch.equal(again(signal), encoder(signal))
    with pytest.raises(ValueError, match=r"model\.encoder\.config describes no model that transformers knows"):
        build_encoder(section(tmp_path, pretrained=False, config={"model_type": "mine", "auto_map": {}}))


def test_pickles_are_not_read(tmp_path, vit):
    (tmp_path / "model.safetensors").unlink()
    torch.save(vit.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no model.safetensors that fits"):
        build_encoder(section(tmp_path))


def test_code_in_the_folder_is_not_run(tmp_path, vit):
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises(ValueError, match="has no config.json of a model that transformers knows"):
        build_encoder(section(tmp_path))
    assert not (tmp_path / "was_run").exists()


def test_weights_that_the_folder_lacks_are_not_drawn_instead(tmp_path, vit):
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks weights of its model"):
        build_encoder(section(tmp_path))


def test_a_classifier_lends_its_backbone(tmp_path):
    """It has no pooler, which the tokens do not need."""
    model = saved(tmp_path, ViTForImageClassification, VIT)
    encoder = build_encoder(section(tmp_path)).eval()
    image = torch.randn(1, 2, 32, 32)
    expected = model.vit(pixel_values=image).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(image), expected, rtol=0.0, atol=1e-6)


def test_what_lies_elsewhere_or_makes_other_tokens_is_refused(tmp_path, vit):
    TimesformerConfig().save_pretrained(tmp_path / "other")  # its tokens go through time first
    with pytest.raises(ValueError, match="whose tokens have no place that is known here"):
        build_encoder(section(tmp_path / "other"))
    with pytest.raises(ValueError, match="has no config.json"):
        (tmp_path / "empty").mkdir()
        build_encoder(section(tmp_path / "empty"))
    VideoMAEConfig(**SIZE, image_size=32).save_pretrained(tmp_path / "clips")
    with pytest.raises(ValueError, match=r"does not do for an input of \[3, 16, 48, 48\]"):
        build_encoder(section(tmp_path / "clips", pretrained=False, input=(16, 48, 48)))
    with pytest.raises(ValueError, match=r"input \[48, 48\] must have 3 numbers, as \[16, 32, 32\]"):
        build_encoder(section(tmp_path / "clips", pretrained=False, input=(48, 48)))


TIMM = {"name": "timm", "pretrained": False, "input": (64, 64)}


def test_timm_is_asked_for_in_a_sentence_where_it_is_not():
    try:
        import timm  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ValueError, match="pip install timm"):
            build_encoder(TimmConfig(**TIMM, model="convnext_atto", patch=(32, 32), width=320))


@pytest.mark.parametrize(
    ("model", "patch", "width"),
    [("convnext_atto", 32, 320), ("vit_tiny_patch16_224", 16, 192), ("swin_tiny_patch4_window7_224", 32, 768)],
)
def test_timms_tokens_are_its_own(model, patch, width):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    encoder = build_encoder(TimmConfig(**TIMM, model=model, patch=(patch, patch), width=width)).eval()
    image = torch.randn(1, 3, 64, 64)
    side = 64 // patch
    own = encoder.model.forward_features(image)
    own = {"c": lambda: own.flatten(2).mT, "v": lambda: own[:, 1:], "s": lambda: own.flatten(1, 2)}[model[0]]()
    assert own.shape == (1, side * side, width)
    torch.testing.assert_close(encoder(image), own)
    with pytest.raises(ValueError, match="it gives features of shape"):
        build_encoder(TimmConfig(**TIMM, model=model, patch=(patch, patch), width=width + 1))
