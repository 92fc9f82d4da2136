"""Learning rates by stage: beside the rule written out for every kind of encoder."""

import pytest
import torch
from torch import nn

from src.config.optimization import NetworkRates
from src.models.build import build_encoder
from src.models.config import EncoderConfig, LeadEncoderConfig, ResNetConfig, S4Config, VisionEncoderConfig
from src.optimization.groups import parameter_groups

SMALL = {"width": 16, "depth": 3, "heads": 2}
ENCODERS = {
    "vit": EncoderConfig(name="ecg_tiny", length=40, patch=10, registers=2, positions="learned", **SMALL),
    "leads": LeadEncoderConfig(name="ecg_lead_tiny", length=40, patch=10, **SMALL),
    "image": VisionEncoderConfig(name="vit_tiny", input=(16, 16), patch=(8, 8), **SMALL),
    "resnet": ResNetConfig(name="resnet1d_50", length=64, depths=(1, 2, 1, 1), widths=(4, 4, 8, 8)),
    "xresnet": ResNetConfig(name="xresnet1d_50", length=64, depths=(1, 1, 2, 1), widths=(4, 4, 8, 8)),
    "s4": S4Config(name="s4", length=40, patch=10, width=16, depth=3, norm="pre"),
}


def expected(kind, name):
    """How many times the decay is applied to a parameter of an encoder, by its name alone."""
    blocks = [int(part) for part in name.split(".") if part.isdigit()][:1] if name.startswith("blocks.") else []
    if "resnet" in kind:
        if not blocks:
            return 5
        depths = {"resnet": (1, 2, 1, 1), "xresnet": (1, 1, 2, 1)}[kind]
        stage = next(n for n in range(4) if blocks[0] < sum(depths[: n + 1]))
        return 4 - stage
    if name.startswith("norm."):
        return 1
    return 3 - blocks[0] if blocks else 4


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_parameter_has_the_rate_of_its_stage(kind):
    torch.manual_seed(0)
    objective = nn.ModuleDict({"encoder": build_encoder(ENCODERS[kind]), "head": nn.Linear(16, 2)})
    groups = parameter_groups(objective, {"encoder": NetworkRates(lr=0.5, weight_decay=2.0)}, 0.75)
    found = {name: group for group in groups for name in group.parameters}
    assert sorted(found) == sorted(name for name, _ in objective.named_parameters()), "each is in one group"
    assert sum(len(group.parameters) for group in groups) == len(found)
    for name, group in found.items():
        network, _, own = name.partition(".")
        if network == "head":
            assert group.lr == 1.0
        else:
            assert group.lr == pytest.approx(0.5 * 0.75 ** expected(kind, own)), name
            assert group.weight_decay in (0.0, 2.0)
    without = {name for group in parameter_groups(objective) if group.weight_decay for name in group.parameters}
    assert {name for name, group in found.items() if group.weight_decay} == without


@pytest.mark.parametrize("kind", ENCODERS)
def test_stages_hold_every_parameter_once_in_the_order_of_the_forward(kind):
    encoder = build_encoder(ENCODERS[kind])
    modules = [module for stage in encoder.stages().values() for module in stage]
    names = [f"{module}.{name}" for module in modules for name, _ in encoder.get_submodule(module).named_parameters()]
    assert sorted(names) == sorted(name for name, _ in encoder.named_parameters())
    assert next(iter(encoder.stages())) == "stem"


def test_without_decay_groups_are_those_of_networks():
    objective = nn.ModuleDict({"encoder": build_encoder(ENCODERS["vit"]), "head": nn.Linear(16, 2)})
    names = ["encoder", "encoder_no_decay", "head", "head_no_decay"]
    assert [group.name for group in parameter_groups(objective, {}, 1.0)] == names
