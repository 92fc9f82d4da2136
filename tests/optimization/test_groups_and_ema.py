"""Which parameters decay, and how a teacher follows."""

import re

import pytest
import torch
from torch import nn
from transformers import Dinov2Config, SiglipVisionConfig, SwinConfig, VideoMAEConfig, ViTConfig

from src.config.optimization import NetworkRates
from src.models.attentive import AttentiveProbe
from src.models.backbone_config import BackboneConfig
from src.models.build import build_encoder
from src.models.config import EncoderConfig, PredictorConfig, ResNetConfig, S4Config, VisionEncoderConfig
from src.models.predictor import Predictor
from src.optimization.ema import update_ema
from src.optimization.groups import parameter_groups


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Linear(4, 4), nn.LayerNorm(4))
        self.score = nn.Linear(4, 1)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.temperature = nn.Parameter(torch.zeros(1))


def test_matrices_decay_and_biases_norms_tokens_and_scalars_do_not():
    groups = {group.name: group for group in parameter_groups(Objective())}
    assert groups["encoder"].parameters == ("encoder.0.weight", "encoder.1.weight")
    assert groups["encoder"].weight_decay == groups["encoder"].lr == 1.0
    assert groups["encoder_no_decay"].parameters == (
        "encoder.0.bias",
        "encoder.1.bias",
        "encoder.2.weight",
        "encoder.2.bias",
    )
    assert groups["encoder_no_decay"].weight_decay == 0.0 and groups["encoder_no_decay"].lr == 1.0
    assert groups["score"].parameters == ("score.weight",)  # a matrix, if of one row
    assert groups["mask_token_no_decay"].parameters == ("mask_token",)
    assert groups["temperature_no_decay"].parameters == ("temperature",)


def test_a_network_has_its_own_rates_and_one_that_does_not_train_is_refused():
    slow = NetworkRates(lr=0.1, weight_decay=2.0)
    found = {group.name: (group.lr, group.weight_decay) for group in parameter_groups(Objective(), {"score": slow})}
    assert found["score"] == (0.1, 2.0) and found["score_no_decay"] == (0.1, 0.0) and found["encoder"] == (1.0, 1.0)
    with pytest.raises(
        ValueError, match=r"optimization\.networks\.frozen: .* it trains encoder, mask_token, score, temp"
    ):
        parameter_groups(Objective(), {"frozen": slow})


TINY = {"width": 16, "depth": 2, "heads": 2}
BLOCK = {f"blocks.*.{layer}.weight" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
VIT = {"patch_embed.proj.weight"} | BLOCK
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGES = {"image_size": 8, "patch_size": 4}


def ecg(**keys):
    return build_encoder(EncoderConfig(name="ecg_tiny", leads=2, length=16, patch=4, **TINY, **keys))


def images(**keys):
    return build_encoder(VisionEncoderConfig(name="vit_tiny", input=(8, 8), patch=(4, 4), **TINY, **keys))


def resnet():
    return build_encoder(ResNetConfig(name="resnet1d_18", leads=2, length=64, depths=(1, 1, 1, 1), widths=(4, 4, 4, 4)))


def s4(**keys):
    return build_encoder(S4Config(name="s4", leads=2, length=16, width=8, depth=2, **keys))


def predictor(**keys):
    return Predictor(PredictorConfig(mask_tokens=2, **TINY), 16, (4,), **keys)


def backbone(folder, config):
    config.save_pretrained(folder)
    return build_encoder(BackboneConfig(name="transformers", folder=str(folder), pretrained=False))


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda _: ecg(), VIT),
        (lambda _: ecg(positions="learned", registers=2), VIT),
        (lambda _: images(positions="learned", registers=2), VIT),
        (lambda _: images(positions="rope"), VIT),
        (lambda _: predictor(positions="learned"), {"predictor_embed.weight", "predictor_proj.weight"} | BLOCK),
        (
            lambda _: AttentiveProbe(16, 2, 1, 1),
            {f"pooler.{name}" for name in BLOCK}
            | {f"pooler.cross.{name}.weight" for name in "qkv"}
            | {"pooler.mlp.fc1.weight", "pooler.mlp.fc2.weight", "head.weight"},
        ),
        (lambda _: resnet(), {"stem.*.*.weight", "blocks.*.path.*.*.weight", "blocks.*.shortcut.*.*.weight"}),
        (lambda _: s4(), {"patch_embed.proj.weight", "blocks.*.space.readout", "blocks.*.mix.weight"}),
        (
            lambda _: s4(bidirectional=False),
            {"patch_embed.proj.weight", "blocks.*.space.readout", "blocks.*.mix.weight"},
        ),
    ],
)
def test_of_every_network_matrices_decay_and_nothing_that_is_added(make, wanted, tmp_path):
    """Layers by their names, with * for numbers; tokens, positions, queries and memories are not among them."""
    network = make(tmp_path)
    (found,) = [group for group in parameter_groups(nn.ModuleDict({"it": network})) if group.weight_decay]
    assert {re.sub(r"\b\d+\b", "*", name.removeprefix("it.")) for name in found.parameters} == wanted


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(**SIZES, **IMAGES),
        Dinov2Config(**SIZES, **IMAGES),
        SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
        SiglipVisionConfig(**SIZES, **IMAGES),
        VideoMAEConfig(**SIZES, **IMAGES, num_frames=2),
    ],
    ids=lambda config: config.model_type,
)
def test_of_other_libraries_encoders_linear_layers_and_convolutions_decay(config, tmp_path):
    network = backbone(tmp_path, config)
    layers = (nn.Linear, nn.Conv2d, nn.Conv3d)
    wanted = {f"it.{name}.weight" for name, module in network.named_modules() if isinstance(module, layers)}
    (found,) = [group for group in parameter_groups(nn.ModuleDict({"it": network})) if group.weight_decay]
    trained = {f"it.{name}" for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert set(found.parameters) == wanted & trained and len(wanted) > 10


def test_every_trainable_parameter_is_in_exactly_one_group():
    objective = Objective()
    names = [name for group in parameter_groups(objective) for name in group.parameters]
    assert sorted(names) == sorted(name for name, p in objective.named_parameters() if p.requires_grad)


def test_ema_follows_its_formula_and_takes_buffers_along():
    torch.manual_seed(0)
    student, teacher = nn.BatchNorm1d(3), nn.BatchNorm1d(3).requires_grad_(False)
    expected = teacher.weight.clone()
    for momentum in (0.9, 0.99, 0.5):
        nn.init.normal_(student.weight)
        student(torch.randn(8, 3))
        update_ema(teacher, student, momentum)
        expected = momentum * expected + (1 - momentum) * student.weight.detach()
    torch.testing.assert_close(teacher.weight, expected)
    assert torch.equal(teacher.running_mean, student.running_mean) and teacher.num_batches_tracked == 3


def test_momentum_one_freezes_the_teacher_and_small_steps_still_move_it():
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    before = teacher.weight.clone()
    update_ema(teacher, student, 1.0)
    assert torch.equal(before, teacher.weight)
    update_ema(teacher, student, 0.9999)
    assert (before != teacher.weight).all()
