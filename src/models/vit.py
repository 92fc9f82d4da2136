"""The encoder: a vision transformer on 1, 2 or 3 axes that can be asked for a subset of its tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.config import TransformerConfig
from src.models.drop_path import drop_rates
from src.models.encoder import AnyEncoder, stages_of_blocks
from src.models.positions import Places, corner, in_line
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
        channels = 1 if config.channels_apart else config.channels
        self.patch_embed = PatchEmbed(channels, config.patches, self.width)
        self.places = Places(config.positions, config.grid, self.width, heads)
        self.registers = nn.ParameterList(torch.empty(1, 1, self.width) for _ in range(config.registers))
        self.blocks = nn.ModuleList(Block(self.width, heads, config.mlp_width, rate) for rate in drop_rates(config))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        initialize(self)
        nn.init.normal_(self.patch_embed.proj.weight, std=(channels * math.prod(config.patches)) ** -0.5)
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

        A shorter input has the first places along each axis. Tokens that are not kept are dropped before the first
        block; those that are not valid (padding; True = keep) are looked at by no other. `branches_BN2` are those of
        `kept_branches`; without them, as in teachers and evaluation, no branch is left out.

        Raises:
            ValueError: the input is larger than the encoder was built for.
        """
        embedded = self.patch_embed(signal.unsqueeze(1) if self.config.channels_apart else signal)
        index_1L = self._numbers(signal)
        tokens, turns = self.places(embedded, index_1L)
        if keep_BK is not None:
            tokens = gather_tokens(tokens, keep_BK)
            turns = None if turns is None else turns[0, keep_BK]
            valid_BL = None if valid_BL is None else valid_BL.gather(1, keep_BK)
        seen = self._seen(index_1L, keep_BK, valid_BL)
        tokens, turns = self._with_registers(tokens, turns)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, turns, seen, None if branches_BN2 is None else branches_BN2[:, number])
        return self.norm(tokens[:, len(self.registers) :])

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Patches with their places and registers, then the blocks."""
        return stages_of_blocks(("patch_embed", "places", "registers"), len(self.blocks))

    def _numbers(self, signal: Tensor) -> Tensor | None:
        """Numbers [1, L] in the grid of the tokens of a shorter input; None where it is as long as it may be."""
        whole, grid = self.config.grid, self.config.grid_of(tuple(signal.shape[2:]))
        if grid == whole:
            return None
        if any(side > most for side, most in zip(grid, whole, strict=True)):
            raise ValueError(
                f"an input of {list(signal.shape[2:])} is larger than the {list(self.config.sides)} that the encoder "
                "was built for: crop it, or load the weights with another input or length"
            )
        return corner(grid, whole).to(signal.device).unsqueeze(0)

    def _seen(self, index_1L: Tensor | None, keep_BK: Tensor | None, valid_BK: Tensor | None) -> Tensor | None:
        """At whom all tokens look, [B, R + K], or each of them, [B or 1, R + K, R + K]; all look at registers.

        Each looks at itself, so that one that is not valid and has only such in its lines is a number too.
        """
        R = len(self.registers)
        valid = None if valid_BK is None else F.pad(valid_BK, (R, 0), value=True)
        if not self.config.channels_apart:
            return valid
        if index_1L is None:
            index_1L = torch.arange(math.prod(self.config.grid), device=self.norm.weight.device).unsqueeze(0)
        lines = in_line(index_1L if keep_BK is None else index_1L[0, keep_BK], self.config.grid)
        seen = F.pad(lines, (R, 0, R, 0), value=True)
        if valid is None:
            return seen
        return seen & valid.unsqueeze(1) | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)

    def _with_registers(self, tokens: Tensor, turns: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Registers first; they do not turn."""
        R = len(self.registers)
        if not R:
            return tokens, turns
        registers_BRD = torch.cat(list(self.registers), dim=1).expand(len(tokens), -1, -1).to(tokens.dtype)
        if turns is not None:
            still = torch.zeros_like(turns[:, :1]).expand(-1, R, -1, -1).clone()
            still[:, :, 0] = 1.0
            turns = torch.cat([still, turns], dim=1)
        return torch.cat([registers_BRD, tokens], dim=1), turns
