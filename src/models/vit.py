"""The encoder: a vision transformer that can be asked for a subset of its tokens."""

from __future__ import annotations

from torch import Tensor, nn

from src.models.config import EncoderConfig
from src.models.positions import sincos_positions
from src.models.transformer import Block, initialize, rescale_by_depth

# B batch, C leads, T samples, L tokens, K kept tokens, D width


def gather_tokens(tokens_BLD: Tensor, index_BK: Tensor) -> Tensor:
    """The tokens at `index_BK` of each sample, [B, K, D]."""
    return tokens_BLD.gather(1, index_BK.unsqueeze(-1).expand(-1, -1, tokens_BLD.shape[-1]))


class PatchEmbed(nn.Module):
    """All leads x `patch` samples become one token: [B, C, T] -> [B, L, D]."""

    def __init__(self, leads: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(leads, width, patch, stride=patch)

    def forward(self, ecg_BCT: Tensor) -> Tensor:
        return self.proj(ecg_BCT).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Pre-norm ViT with fixed sine-cosine positions, no class token, a final LayerNorm (Dosovitskiy et al. 2021).

    The patch embedding is scaled by its fan-in (LeCun), so that a standardised signal enters as loud as its position
    whatever the patch. With the usual std of 0.02 a patch of 16 numbers enters at 0.08 beside positions of 0.7, and a
    JEPA on heartbeats learned the positions alone: loss 0.006 after 333 steps, and of the variance of the teacher's
    features only 15 % lay between beats (76 % or more with this scale).
    """

    pos_embed: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.width, depth, heads = config.size
        self.patch_embed = PatchEmbed(config.leads, config.patch, self.width)
        self.register_buffer("pos_embed", sincos_positions(config.grid, self.width).unsqueeze(0), persistent=False)
        self.blocks = nn.ModuleList(Block(self.width, heads, config.mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        initialize(self)
        nn.init.normal_(self.patch_embed.proj.weight, std=(config.leads * config.patch) ** -0.5)
        rescale_by_depth(self.blocks)

    def forward(self, ecg_BCT: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D], or those at `keep_BK` alone, [B, K, D]: the others are dropped before the first block."""
        tokens = self.patch_embed(ecg_BCT) + self.pos_embed
        if keep_BK is not None:
            tokens = gather_tokens(tokens, keep_BK)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def build_encoder(config: EncoderConfig) -> VisionTransformer:
    """The encoder that a `model.encoder` section, or an exported encoder/config.json, describes."""
    return VisionTransformer(config)
