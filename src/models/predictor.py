"""The JEPA predictor: context tokens in, a prediction of the teacher's features at the target positions out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from src.models.config import PositionKind, PredictorConfig
from src.models.positions import Places
from src.models.transformer import Block, initialize, rescale_by_depth

# B batch, M target blocks, K context tokens, T tokens of a target block, D encoder width, P predictor width


class Predictor(nn.Module):
    """A narrow ViT over the context and one mask token for each target position (I-JEPA, arXiv 2301.08243).

    Each target block is predicted by itself: blocks never see one another's mask tokens. V-JEPA (arXiv 2404.08471)
    predicts the union of its blocks at once: one target that holds them all, and a mask token of its own for each kind
    of mask. Positions are of the kind that the encoder has.

    `per_lead`, as Kim (arXiv 2410.08559): tokens of one lead see those of no other, and know their time but not their
    lead, of which the context's features tell. The leads' counts need not be equal.
    """

    def __init__(
        self, config: PredictorConfig, encoder_width: int, grid: tuple[int, ...], positions: PositionKind = "sincos"
    ) -> None:
        """
        Raises:
            ValueError: per_lead, with tokens that are not of one lead.
        """
        super().__init__()
        self.config = config
        if config.per_lead and len(grid) < 2:
            raise ValueError(
                "model.predictor.per_lead needs an encoder whose tokens are of one lead each: set model.encoder.name "
                "to one of ecg_lead_*, or leave per_lead out"
            )
        self.grid = grid[1:] if config.per_lead else grid
        self.predictor_embed = nn.Linear(encoder_width, config.width)
        self.mask_tokens = nn.ParameterList(torch.zeros(1, 1, config.width) for _ in range(config.mask_tokens))
        self.places = Places(positions, self.grid, config.width, config.heads)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, 4 * config.width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.predictor_proj = nn.Linear(config.width, encoder_width)
        initialize(self)
        rescale_by_depth(self.blocks)
        self.places.initialize()
        for token in self.mask_tokens if not config.zero_mask_tokens else ():
            nn.init.trunc_normal_(token, std=0.02)

    def forward(
        self,
        context_BKD: Tensor,
        context_BK: Tensor,
        targets_BMT: Tensor,
        kind: int = 0,
        valid_BL: Tensor | None = None,
    ) -> Tensor:
        """Predicted features [B, M, T, D] of the target tokens, given the context's features and positions.

        `kind` of mask: which mask token stands at the targets. Tokens of the grid that are not valid (padding; True =
        keep) are looked at by no other, be they context or targets; what is predicted there means nothing.
        """
        B, M, T = targets_BMT.shape
        K = context_BK.shape[1]
        context_BMKP = self.predictor_embed(context_BKD).unsqueeze(1).expand(B, M, K, -1)
        queries_BMTP = self.mask_tokens[kind].to(context_BMKP.dtype).unsqueeze(0).expand(B, M, T, -1)
        tokens = torch.cat([context_BMKP, queries_BMTP], dim=2).flatten(0, 1)
        index = torch.cat([context_BK.unsqueeze(1).expand(B, M, K), targets_BMT], dim=2).flatten(0, 1)
        seen = None if valid_BL is None else valid_BL.repeat_interleave(M, 0).gather(1, index)
        if self.config.per_lead:
            lead, index = index // math.prod(self.grid), index % math.prod(self.grid)
            seen = _of_one_lead(lead, seen)
        tokens, turns = self.places(tokens, index)
        for block in self.blocks:
            tokens = block(tokens, turns, seen)
        predicted = self.predictor_proj(self.norm(tokens[:, K:]))
        return predicted.view(B, M, T, -1)


def _of_one_lead(lead_BK: Tensor, valid_BK: Tensor | None) -> Tensor:
    """At whom each token looks, [B, K, K]: at those of its lead that are valid, and at itself."""
    seen = lead_BK.unsqueeze(2) == lead_BK.unsqueeze(1)
    if valid_BK is None:
        return seen
    itself = torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)
    return seen & valid_BK.unsqueeze(1) | itself
