"""Attentive pooling: a learned query looks over the tokens, as V-JEPA 2 (arXiv 2506.09985) judges its encoders.

Several probes train at once on one pass of features: reading and encoding the data is what a probe costs.
"""

# B batch, L tokens, D width, H heads, d width of a head, S settings of probes, K outputs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.published import EPS, Layout
from src.models.transformer import Block, Mlp, initialize, rescale_by_depth
from src.randomness import derive_seed

if TYPE_CHECKING:
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler


class CrossAttention(nn.Module):
    """Multi-head attention of queries to tokens, without a projection of what comes out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def forward(self, queries_BQD: Tensor, tokens_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        q, k, v = self._split(self.q(queries_BQD)), self._split(self.k(tokens_BLD)), self._split(self.v(tokens_BLD))
        mixed_BHQd = F.scaled_dot_product_attention(q, k, v, None if keep is None else keep[:, None, None])
        return mixed_BHQd.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentivePooler(nn.Module):
    """Tokens to one vector: `layers` blocks of self-attention, then one query's cross-attention and an MLP.

    Tokens are normalised before they are looked at, the query is not.
    """

    def __init__(self, width: int, heads: int, layers: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(layers))
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.cross = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)
        initialize(self)
        rescale_by_depth(self.blocks)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """[B, D]; tokens where `keep` [B, L] is False are not looked at, and each sample must keep one."""
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, keep=keep)
        query_B1D = self.query.expand(len(tokens_BLD), -1, -1)
        pooled_B1D = query_B1D + self.cross(query_B1D, self.norm1(tokens_BLD), keep)
        return (pooled_B1D + self.mlp(self.norm2(pooled_B1D))).squeeze(1)


class AttentiveProbe(nn.Module):
    """Tokens to K outputs: logits, or values of a regression."""

    def __init__(self, width: int, heads: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.pooler = AttentivePooler(width, heads, layers)
        self.head = nn.Linear(width, outputs)
        initialize(self.head)

    def forward(self, tokens_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """[B, K]."""
        return self.head(self.pooler(tokens_BLD, keep))


@dataclass(frozen=True)
class ProbeSetting:
    """How one probe learns."""

    lr: float
    weight_decay: float


class AttentiveProbes(nn.Module):
    """One probe for each setting, on the same tokens; each learns as it would alone.

    All start from the same weights, a function of the seed, so that settings are compared and not draws. Give `groups`
    to the optimizer and let the loss be the sum of every probe's: they share no parameter. A clipped global norm would
    tie them together; clip each member's own.
    """

    def __init__(
        self, width: int, heads: int, layers: int, outputs: int, settings: Sequence[ProbeSetting], seed: int
    ) -> None:
        super().__init__()
        self.settings = tuple(settings)
        self.probes = nn.ModuleList()
        for _ in self.settings:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(derive_seed(seed, "attentive probe"))
                self.probes.append(AttentiveProbe(width, heads, layers, outputs))

    def forward(self, tokens_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """[S, B, K], in the order of the settings."""
        return torch.stack([probe(tokens_BLD, keep) for probe in self.probes])

    def groups(self) -> list[dict[str, Any]]:
        """One group of an optimizer for each probe, with its learning rate and weight decay."""
        return [
            {"params": list(probe.parameters()), "lr": setting.lr, "weight_decay": setting.weight_decay}
            for probe, setting in zip(self.probes, self.settings, strict=True)
        ]


SELF_ATTENTION = Layout(
    {
        f"blocks.{{n}}.{own}": f"self_attention_layers.{{n}}.{their}"
        for own, their in {
            "norm1": "layer_norm1",
            "attn.proj": "self_attn.out_proj",
            "norm2": "layer_norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }.items()
    },
    tuple(f"self_attention_layers.{{n}}.self_attn.{name}_proj" for name in "qkv"),
)
CROSS_ATTENTION = Layout(
    {
        own: f"cross_attention_layer.{their}"
        for own, their in {
            "norm1": "layer_norm1",
            **{f"cross.{name}": f"cross_attn.{name}_proj" for name in "qkv"},
            "norm2": "layer_norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }.items()
    }
)


def from_vjepa2_pooler(pooler: VJEPA2AttentivePooler) -> AttentivePooler:
    """The pooler of transformers' V-JEPA 2 classifiers.

    Raises:
        ValueError: its LayerNorms add another epsilon.
    """
    state, depth = pooler.state_dict(), len(pooler.self_attention_layers)
    cross = pooler.cross_attention_layer
    if (eps := cross.layer_norm1.eps) != EPS:
        raise ValueError(f"VJEPA2Config.layer_norm_eps is {eps}; poolers here have {EPS}")
    own = AttentivePooler(state["query_tokens"].shape[-1], cross.cross_attn.num_heads, depth)
    layers = SELF_ATTENTION.ours(state, depth) | CROSS_ATTENTION.ours(state, 1)
    own.load_state_dict(layers | {"query": state["query_tokens"]})
    return own
