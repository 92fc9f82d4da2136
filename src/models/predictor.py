"""The JEPA predictor: context tokens in, a prediction of the teacher's features at the target positions out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.models.config import PredictorConfig
from src.models.positions import sincos_positions
from src.models.transformer import Block, initialize, rescale_by_depth

# B batch, M target blocks, K context tokens, T tokens of a target block, D encoder width, P predictor width


class Predictor(nn.Module):
    """A narrow ViT over the context and one learned mask token for each target position (I-JEPA, arXiv 2301.08243).

    Each target block is predicted by itself: blocks never see one another's mask tokens.
    """

    pos_embed: Tensor

    def __init__(self, config: PredictorConfig, encoder_width: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.predictor_embed = nn.Linear(encoder_width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.register_buffer("pos_embed", sincos_positions(grid, config.width), persistent=False)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.predictor_proj = nn.Linear(config.width, encoder_width)
        initialize(self)
        rescale_by_depth(self.blocks)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, context_BKD: Tensor, context_BK: Tensor, targets_BMT: Tensor) -> Tensor:
        """Predicted features [B, M, T, D] of the target tokens, given the context's features and positions."""
        B, M, T = targets_BMT.shape
        K = context_BK.shape[1]
        context_BKP = self.predictor_embed(context_BKD) + self.pos_embed[context_BK]
        queries_BMTP = self.mask_token + self.pos_embed[targets_BMT]
        context_BMKP = context_BKP.unsqueeze(1).expand(B, M, K, -1)
        tokens = torch.cat([context_BMKP, queries_BMTP.to(context_BMKP.dtype)], dim=2).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        predicted = self.predictor_proj(self.norm(tokens[:, K:]))
        return predicted.view(B, M, T, -1)
