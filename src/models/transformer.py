"""Pre-norm transformer blocks with timm's parameter names, and their initialisation."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from src.models.positions import rotate

# B batch, L tokens, D width, H heads, d width of a head


class Attention(nn.Module):
    """Multi-head self-attention on PyTorch's fused kernels.

    `turns` [B or 1, L, 2, d] turns queries and keys (rotary positions). Tokens where `keep` [B, L] is False are not
    looked at; [B or 1, L, L] tells it for each token that looks.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BLD: Tensor, turns: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        B, L, D = tokens_BLD.shape
        q, k, v = self.qkv(tokens_BLD).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if turns is not None:
            q, k = rotate(q, turns), rotate(k, turns)
        if keep is not None:
            keep = keep[:, None, None] if keep.ndim == 2 else keep[:, None]
        mixed_BHLd = F.scaled_dot_product_attention(q, k, v, keep)
        return self.proj(mixed_BHLd.transpose(1, 2).reshape(B, L, D))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `branches` [B, 2] says for which samples attention and MLP are kept, of which each is left out at the rate `drop`;
    what is kept is as much larger, so that the mean stays. Without it both are kept as they are.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_width)

    def forward(
        self,
        tokens_BLD: Tensor,
        turns: Tensor | None = None,
        keep: Tensor | None = None,
        branches: Tensor | None = None,
    ) -> Tensor:
        attention, mlp = (None, None) if branches is None else branches.unbind(1)
        tokens_BLD = tokens_BLD + self._kept(self.attn(self.norm1(tokens_BLD), turns, keep), attention)
        return tokens_BLD + self._kept(self.mlp(self.norm2(tokens_BLD)), mlp)

    def _kept(self, change_BLD: Tensor, kept_B: Tensor | None) -> Tensor:
        return change_BLD if kept_B is None else change_BLD * kept_B[:, None, None] / (1.0 - self.drop)


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases for every linear and convolutional layer, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def rescale_by_depth(blocks: Iterable[nn.Module]) -> None:
    """Divide the output projections of block l = 1, 2, ... by sqrt(2 l), so that the residual stream keeps its scale.

    Must come after `initialize`, which would undo it.
    """
    for number, block in enumerate(blocks, 1):
        assert isinstance(block, Block)
        block.attn.proj.weight.data.div_(math.sqrt(2.0 * number))
        block.mlp.fc2.weight.data.div_(math.sqrt(2.0 * number))
