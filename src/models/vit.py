"""The encoder: a vision transformer on 1, 2 or 3 axes that can be asked for a subset of its tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from src.models.config import TransformerConfig
from src.models.drop_path import drop_rates
from src.models.encoder import AnyEncoder
from src.models.positions import Places
from src.models.transformer import Block, initialize, rescale_by_depth

# B batch, C channels, n axes of the input, L tokens, K kept tokens, R registers, D width, d width of a head,
# N blocks

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def gather_tokens(tokens_BLD: Tensor, index_BK: Tensor) -> Tensor:
    """The tokens at `index_BK` of each sample, [B, K, D]."""
    return tokens_BLD.gather(1, index_BK.unsqueeze(-1).expand(-1, -1, tokens_BLD.shape[-1]))


class PatchEmbed(nn.Module):
    """A patch of all channels becomes one token: [B, C, *sides] -> [B, L, D], row-major."""

    def __init__(self, channels: int, patches: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.proj = CONVOLUTIONS[len(patches)](channels, width, patches, stride=patches)

    def forward(self, signal: Tensor) -> Tensor:
        tokens: Tensor = self.proj(signal)
        return tokens.flatten(2).transpose(1, 2)


class VisionTransformer(AnyEncoder):
    """Pre-norm ViT without a class token, with a final LayerNorm (Dosovitskiy et al. 2021).

    The patch embedding is scaled by its fan-in (LeCun), so that a standardised signal enters as loud as its position
    whatever the patch. With the usual std of 0.02 a patch of 16 numbers enters at 0.08 beside positions of 0.7, and a
    JEPA on heartbeats learned the positions alone: loss 0.006 after 333 steps, and of the variance of the teacher's
    features only 15 % lay between beats (76 % or more with this scale).
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.width, _, heads = config.size
        self.patch_embed = PatchEmbed(config.channels, config.patches, self.width)
        self.places = Places(config.positions, config.grid, self.width, heads)
        self.registers = nn.ParameterList(torch.empty(1, 1, self.width) for _ in range(config.registers))
        self.blocks = nn.ModuleList(Block(self.width, heads, config.mlp_width, rate) for rate in drop_rates(config))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        initialize(self)
        nn.init.normal_(self.patch_embed.proj.weight, std=(config.channels * math.prod(config.patches)) ** -0.5)
        rescale_by_depth(self.blocks)
        self.places.initialize()
        for register in self.registers:
            nn.init.trunc_normal_(register, std=0.02)

    def forward(
        self,
        signal: Tensor,
        keep_BK: Tensor | None = None,
        valid_BL: Tensor | None = None,
        branches_BN2: Tensor | None = None,
    ) -> Tensor:
        """Tokens [B, L, D] of a signal [B, C, *sides], or those at `keep_BK` alone, [B, K, D].

        The others are dropped before the first block. Tokens that are not valid (padding; True = keep) are looked at by
        no other. `branches_BN2` are those of `kept_branches`; without them, as in teachers and evaluation, no branch is
        left out.
        """
        tokens, turns = self.places(self.patch_embed(signal))
        if keep_BK is not None:
            tokens = gather_tokens(tokens, keep_BK)
            turns = None if turns is None else turns[0, keep_BK]
            valid_BL = None if valid_BL is None else valid_BL.gather(1, keep_BK)
        tokens, turns, valid_BL = self._with_registers(tokens, turns, valid_BL)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, turns, valid_BL, None if branches_BN2 is None else branches_BN2[:, number])
        return self.norm(tokens[:, len(self.registers) :])

    def _with_registers(
        self, tokens: Tensor, turns: Tensor | None, valid_BL: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Registers first; they do not turn, and are always valid."""
        R = len(self.registers)
        if not R:
            return tokens, turns, valid_BL
        registers_BRD = torch.cat(list(self.registers), dim=1).expand(len(tokens), -1, -1).to(tokens.dtype)
        if turns is not None:
            still = torch.zeros_like(turns[:, :1]).expand(-1, R, -1, -1).clone()
            still[:, :, 0] = 1.0
            turns = torch.cat([still, turns], dim=1)
        if valid_BL is not None:
            valid_BL = torch.cat([valid_BL.new_ones(len(valid_BL), R), valid_BL], dim=1)
        return torch.cat([registers_BRD, tokens], dim=1), turns, valid_BL
