"""The plain engine's optimizer is torch's, bit for bit, and does not load torch's compiler."""

import copy
import subprocess
import sys

import torch
from torch import nn

from src.engines.fused_adamw import FusedAdamW
from tests.commands import ROOT

BETAS, EPS = (0.8, 0.95), 1e-7


def in_groups(module):
    decayed = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    return [{"params": decayed}, {"params": [parameter for parameter in module.parameters() if parameter.ndim < 2]}]


def test_every_bit_is_that_of_torchs_adamw():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(7, 33), nn.LayerNorm(33), nn.Linear(33, 5))
    other = copy.deepcopy(module)
    mine = FusedAdamW(in_groups(module), 0.1, BETAS, EPS)
    theirs = torch.optim.AdamW(in_groups(other), 0.1, BETAS, EPS, fused=True)
    for step in range(6):
        batch = torch.randn(4, 7)
        for each, optimizer in ((module, mine), (other, theirs)):
            for group, decay in zip(optimizer.param_groups, (0.3, 0.0), strict=True):
                group["lr"], group["weight_decay"] = 0.1 / (step + 1), decay
            each(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for parameter, twin in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, twin) and parameter.grad is None
        assert mine.state[parameter].keys() == theirs.state[twin].keys()
        assert all(torch.equal(value, theirs.state[twin][key]) for key, value in mine.state[parameter].items())


def test_a_step_of_the_plain_engine_does_not_load_the_compiler():
    code = (
        "import sys; from tests.engines.test_replicated import cut, make_batch, make_engine\n"
        "engine = make_engine(); engine.forward_backward(0, cut(make_batch(), [12])); engine.step(0)\n"
        "assert engine.optimizer_steps == 1 and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
