"""The state-space encoder against the linear systems that it stands for, stepped through in float64."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from src.models.build import build_encoder
from src.models.config import S4Config
from src.models.s4 import StateSpace
from src.optimization.groups import parameter_groups

KEYS = {"name": "s4", "leads": 3, "length": 40, "width": 12, "depth": 2, "state": 6}
CLOSE = {"rtol": 0.0, "atol": 1e-10}


def space(bidirectional=True, bilinear=False, width=5, state=8):
    torch.manual_seed(0)
    return StateSpace(width, state, bidirectional, bilinear).double()


def small(**keys):
    torch.manual_seed(0)
    return build_encoder(S4Config(**KEYS | keys)).double()


def stepped(space, u_BDL):
    """The systems run step by step, from matrices that are made without the module's formulas."""
    A, step = space.poles().detach(), space.log_step.detach().exp()
    A_bar, B_bar = torch.empty_like(A), torch.empty_like(A)
    for d, n in torch.cartesian_prod(torch.arange(A.shape[0]), torch.arange(A.shape[1])):
        if space.bilinear:
            A_bar[d, n] = (1 + step[d] * A[d, n] / 2) / (1 - step[d] * A[d, n] / 2)
            B_bar[d, n] = step[d] / (1 - step[d] * A[d, n] / 2)
        else:  # x' = A x + u, u' = 0 for the length of a step
            held = scipy.linalg.expm(step[d].item() * np.array([[A[d, n].item(), 1], [0, 0]]))
            A_bar[d, n], B_bar[d, n] = torch.from_numpy(held[0])
    C = torch.view_as_complex(space.readout.detach()).transpose(0, 1)
    B, D, L = u_BDL.shape
    answer = space.skip.detach()[:, None] * u_BDL
    x = torch.zeros(B, *A.shape, dtype=A.dtype)
    for t in range(L):
        x = A_bar * x + B_bar * u_BDL[:, :, t, None]
        answer[:, :, t] += 2 * (C[0] * x).sum(-1).real
    x = torch.zeros_like(x)
    for t in reversed(range(L if len(C) == 2 else 0)):  # ahead: what comes after the token itself
        answer[:, :, t] += 2 * (C[1] * x).sum(-1).real
        x = A_bar * x + B_bar * u_BDL[:, :, t, None]
    return answer


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", [1, 37, 64])
def test_convolution_is_the_recurrence(bilinear, bidirectional, length):
    module = space(bidirectional, bilinear)
    u = torch.randn(2, 5, length, dtype=torch.float64)
    torch.testing.assert_close(module(u), stepped(module, u), **CLOSE)


@pytest.mark.parametrize("bilinear", [False, True])
def test_a_kernel_does_not_know_how_long_it_is(bilinear):
    module = space(bilinear=bilinear)
    torch.testing.assert_close(module.kernels(100)[..., :30], module.kernels(30), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_who_looks_only_back_is_causal(bidirectional):
    encoder = small(bidirectional=bidirectional)
    ecg = torch.randn(2, 3, 40, dtype=torch.float64)
    touched = ecg.clone()
    touched[:, :, 17] += 3.0
    change = (encoder(touched) - encoder(ecg)).abs().amax((0, 2))
    assert (change[17:] > 1e-6).all()
    assert (change[:17] > 1e-6).all() if bidirectional else (change[:17] < CLOSE["atol"]).all()


@pytest.mark.parametrize("bilinear", [False, True])
def test_gradients_are_those_of_finite_differences(bilinear):
    module = space(bilinear=bilinear, width=1, state=4)
    names = [name for name, _ in module.named_parameters()]

    def answer(u, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (u,))

    u = torch.randn(1, 1, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(answer, (u, *(value for _, value in module.named_parameters())))


@pytest.mark.parametrize("bilinear", [False, True])
def test_no_parameter_makes_it_unstable(bilinear):
    module = space(bilinear=bilinear, width=64).float()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 20 * torch.randn_like(parameter)
        module.log_step.clamp_(max=3.0)
    assert (module.poles().real < 0).all()
    assert (module.discrete()[0].real <= 0).all() and module.kernels(2000).isfinite().all()


def test_begins_as_s4d_lin():
    module = space(width=500, state=8)
    poles = module.poles()
    assert torch.allclose(poles.real, torch.tensor(-0.5, dtype=torch.float64))
    assert torch.allclose(poles.imag / math.pi, torch.arange(4, dtype=torch.float64).expand(500, 4))
    steps = module.log_step.detach().exp()
    assert steps.min() >= 0.001 and steps.max() <= 0.1 and steps.median().log10().item() == pytest.approx(-2, abs=0.15)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_is_as_if_it_were_not_there(norm):
    encoder = small(norm=norm, patch=4)
    ecg = torch.randn(2, 3, 40, dtype=torch.float64)
    valid = torch.arange(10).expand(2, 10) < 7
    torch.testing.assert_close(encoder(ecg, valid_BL=valid)[:, :7], encoder(ecg[..., :28]), **CLOSE)
    assert not torch.allclose(encoder(ecg)[:, :7], encoder(ecg[..., :28]))


@pytest.mark.parametrize("keys", [{}, {"patch": 5}, {"norm": "pre"}, {"discretization": "bilinear"}])
def test_gives_the_tokens_that_its_section_says(keys):
    encoder = small(**keys)
    tokens = encoder(torch.randn(2, 3, 40, dtype=torch.float64))
    assert tokens.shape == (2, *encoder.config.grid, encoder.config.token_width) and encoder.width == 12
    tokens.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_works_in_bfloat16():
    encoder = small().float()
    ecg = torch.randn(2, 3, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (encoder(ecg) - small().float()(ecg)).abs().max() < 0.2


def test_default_is_the_one_for_ptb_xl():
    config = S4Config(name="s4", length=1000)
    with torch.device("meta"):
        encoder = build_encoder(config)
    layer = 512 * (4 + 4 + 1 + 2 * 4 * 2 + 1) + (512 + 1) * 1024 + 2 * 512  # A, step, both C, skip; mix; norm
    assert sum(p.numel() for p in encoder.parameters()) == 4 * layer + (12 + 1) * 512
    assert config.grid == (1000,) and not config.drops_tokens


def test_memories_do_not_decay():
    groups = parameter_groups(nn.ModuleDict({"encoder": small()}))
    still = {name for group in groups if group.weight_decay == 0 for name in group.parameters}
    assert {f"encoder.blocks.0.space.{name}" for name in ("log_decay", "frequency", "log_step", "skip")} <= still
    assert "encoder.blocks.0.space.readout" not in still


def test_refuses_to_drop_tokens_and_a_patch_that_does_not_fit():
    with pytest.raises(AssertionError, match="all tokens"):
        small()(torch.randn(1, 3, 40, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="patch 7 does not divide length 40"):
        S4Config(**KEYS | {"patch": 7})
