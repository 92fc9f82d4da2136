"""State-space encoder for ECG: long convolutions whose kernels are the responses of small linear systems."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.config import S4Config
from src.models.encoder import AnyEncoder, stages_of_blocks
from src.models.vit import PatchEmbed

# B batch, C leads, T samples of a lead, L tokens, D width, N complex numbers of a state, W ways (back, ahead)

STEPS = (0.001, 0.1)
"""Lengths of a step to begin with: at 100 Hz memories of 0.2 s to 20 s."""


class StateSpace(nn.Module):
    """For each of D numbers a linear system x' = A x + u, y = 2 Re(C x) + skip u, run over the tokens as a convolution.

    S4D (Gu et al. 2022, arXiv 2206.11893): A is diagonal, B is one and lives in C, and half of each conjugate pair is
    kept. It begins as S4D-Lin, A_n = -1/2 + i pi n. The real part is -exp of a parameter, so that no training step can
    make the system unstable. Ahead looks a system with the same A and step and its own C, from the next token on.
    A and steps are kept flat: weight decay passes by vectors, and would slow all the memories down alike.
    """

    def __init__(self, width: int, state: int, bidirectional: bool, bilinear: bool) -> None:
        super().__init__()
        self.width, self.bilinear = width, bilinear
        N = state // 2
        self.log_decay = nn.Parameter(torch.full((width * N,), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(N, dtype=torch.float32).repeat(width))
        low, high = (math.log(step) for step in STEPS)
        self.log_step = nn.Parameter(torch.empty(width).uniform_(low, high))
        self.readout = nn.Parameter(math.sqrt(0.5) * torch.randn(width, 2 if bidirectional else 1, N, 2))
        self.skip = nn.Parameter(torch.randn(width))

    def poles(self) -> Tensor:
        """A, complex [D, N]."""
        decay, frequency = _wide(self.log_decay).exp(), _wide(self.frequency)
        return torch.complex(-decay, frequency).view(self.width, -1)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """By what each state is multiplied in a step, as its logarithm, and what it takes of the input; both [D, N]."""
        poles_DN, step_D1 = self.poles(), _wide(self.log_step).exp().unsqueeze(1)
        turned = poles_DN * step_D1
        if self.bilinear:
            return _log_of_trapezoid(turned / 2), step_D1 / (1 - turned / 2)
        return turned, torch.expm1(turned) / poles_DN

    def kernels(self, length: int) -> Tensor:
        """Responses [W, D, L] to a one: K_l = 2 Re(sum over n of C_n B_n A_n^l), a Vandermonde product."""
        log_DN, taken_DN = self.discrete()
        lags_L = torch.arange(length, device=log_DN.device, dtype=log_DN.real.dtype)
        powers_DNL = torch.exp(log_DN.unsqueeze(-1) * lags_L)
        weights_DWN = torch.view_as_complex(_wide(self.readout)) * taken_DN.unsqueeze(1)
        return 2 * (weights_DWN @ powers_DNL).real.transpose(0, 1)

    def forward(self, u_BDL: Tensor) -> Tensor:
        """What the systems answer [B, D, L], by FFT, in fp32 or better."""
        L = u_BDL.shape[-1]
        values = _wide(u_BDL)
        kernels_WDL = self.kernels(L)
        kernel = F.pad(kernels_WDL[0], (0, L))
        if len(kernels_WDL) == 2:
            kernel = kernel + F.pad(kernels_WDL[1].flip(-1), (L, 0))
        spectrum = torch.fft.rfft(values, n=2 * L) * torch.fft.rfft(kernel, n=2 * L)
        answer = torch.fft.irfft(spectrum, n=2 * L)[..., :L]
        return (answer + _wide(self.skip).unsqueeze(-1) * values).to(u_BDL.dtype)


def _wide(values: Tensor) -> Tensor:
    """In fp32, or fp64 as they are: neither FFT nor complex numbers come in halves."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _log_of_trapezoid(half: Tensor) -> Tensor:
    """log((1 + h) / (1 - h)), whose real part is that of |1 + h|^2 = |1 - h|^2 + 4 Re h: no rounding makes it positive.

    Where h is -1, and it is minus infinity, it is cut off.
    """
    share = 4 * half.real / (1 - half).abs().square()
    size = torch.log1p(share.clamp(min=torch.finfo(share.dtype).eps - 1)) / 2
    return torch.complex(size, (1 + half).angle() - (1 - half).angle())


class S4Block(nn.Module):
    """x + glu(linear(gelu(state space of x))), with a LayerNorm before or after."""

    def __init__(self, config: S4Config) -> None:
        super().__init__()
        self.before = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width)
        self.space = StateSpace(config.width, config.state, config.bidirectional, config.discretization == "bilinear")
        self.mix = nn.Linear(config.width, 2 * config.width)

    def forward(self, tokens_BLD: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens of the same shape; those that are not valid enter the systems as zeros."""
        u_BLD = self.norm(tokens_BLD) if self.before else tokens_BLD
        if valid_BL is not None:
            u_BLD = u_BLD * valid_BL.unsqueeze(-1)
        answer_BLD = F.gelu(self.space(u_BLD.transpose(1, 2)).transpose(1, 2))
        tokens_BLD = tokens_BLD + F.glu(self.mix(answer_BLD), dim=-1)
        return tokens_BLD if self.before else self.norm(tokens_BLD)


class S4(AnyEncoder):
    """Layers of state spaces over the tokens of an ECG (S4, Gu et al. 2022, arXiv 2111.00396; on ECG 2211.07579).

    It has no positions, for it goes along the tokens in their order; and none can be left out. As for the vision
    transformer, the embedding is scaled by its fan-in.
    """

    config: S4Config

    def __init__(self, config: S4Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.patch_embed = PatchEmbed(config.channels, (config.patch,), config.width)
        nn.init.normal_(self.patch_embed.proj.weight, std=(config.channels * config.patch) ** -0.5)
        nn.init.zeros_(self.patch_embed.proj.bias)
        self.blocks = nn.ModuleList(S4Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()

    def forward(self, signal: Tensor, keep_BK: Tensor | None = None, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of ECGs [B, C, T] of any length that `patch` divides; none can be left out."""
        assert keep_BK is None, "a state space goes along all tokens"
        tokens = self.patch_embed(signal)
        for block in self.blocks:
            tokens = block(tokens, valid_BL)
        return self.norm(tokens)

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Patches, then the layers."""
        return stages_of_blocks(("patch_embed",), len(self.blocks))
