"""Attentive pooling: a learned query looks over the tokens, as V-JEPA 2 (arXiv 2506.09985) judges its encoders.

Several probes train at once on one pass of features: reading and encoding the data is what a probe costs.
"""

# B batch, L tokens, D width, H heads, d width of a head, S settings of probes, M heads of all probes, K outputs

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.published import EPS, Layout
from src.models.transformer import Block, Mlp, initialize, rescale_by_depth
from src.randomness import derive_seed

if TYPE_CHECKING:
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler


class CrossAttention(nn.Module):
    """Multi-head attention of one query, the same for every sample, to tokens, without a projection of what comes out.

    Scores are q (Wk x) = (Wk^T q) x and values Wv (sum of a x) instead of the sum of a (Wv x): no token goes through a
    projection, which makes a look at it 64 times as cheap where heads are 64 wide. A bias of the keys would raise all
    scores of a head alike, which softmax does not see: `k.bias` is there for published weights alone.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def looks(self, query_D: Tensor) -> Tensor:
        """What each head multiplies tokens with to score them, [H, D]."""
        q_Hd = self.q(query_D).unflatten(0, (self.heads, -1))
        k_HdD = self.k.weight.unflatten(0, q_Hd.shape)
        return (q_Hd.unsqueeze(1) @ k_HdD).squeeze(1) / math.sqrt(q_Hd.shape[1])

    def values(self, seen_BHD: Tensor) -> Tensor:
        """[B, D] of the mean token that each head has seen."""
        v_HDd = self.v.weight.unflatten(0, (self.heads, -1)).transpose(1, 2)
        return (seen_BHD.transpose(0, 1) @ v_HDd).transpose(0, 1).flatten(1) + self.v.bias


def normalised(tokens_BLD: Tensor) -> Tensor:
    """Tokens as a LayerNorm has them before its own weight and bias."""
    return F.layer_norm(tokens_BLD, tokens_BLD.shape[-1:], eps=EPS)


def seen_by(looks_HD: Tensor, tokens_BLD: Tensor, keep: Tensor | None) -> Tensor:
    """The mean of the tokens [B, H, D], weighed by softmax of their scores, for each look."""
    scores_BHL = looks_HD @ tokens_BLD.transpose(1, 2)
    if keep is not None:
        scores_BHL = scores_BHL.masked_fill(~keep[:, None], -math.inf)
    return scores_BHL.softmax(-1) @ tokens_BLD


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
        return self.conclude(seen_by(self.looks(), normalised(tokens_BLD), keep))

    def looks(self) -> Tensor:
        """What scores normalised tokens, [H, D]: the weight of norm1 is in it, its bias raises all scores alike."""
        return self.cross.looks(self.query.flatten()) * self.norm1.weight

    def conclude(self, seen_BHD: Tensor) -> Tensor:
        """[B, D] of the mean normalised token that each head has seen; weights sum to 1, so norm1 can come here."""
        values_BD = self.cross.values(seen_BHD * self.norm1.weight + self.norm1.bias)
        pooled_BD = self.query.flatten() + values_BD
        return pooled_BD + self.mlp(self.norm2(pooled_BD))


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
        self.settings, self.layers = tuple(settings), layers
        self.probes = nn.ModuleList()
        for _ in self.settings:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(derive_seed(seed, "attentive probe"))
                self.probes.append(AttentiveProbe(width, heads, layers, outputs))

    def forward(self, tokens_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """[S, B, K], in the order of the settings.

        Without blocks of their own all probes look at the same normalised tokens, in one product: ten cost little more
        than one.
        """
        if self.layers:
            return torch.stack([probe(tokens_BLD, keep) for probe in self.probes])
        probes = [cast(AttentiveProbe, probe) for probe in self.probes]
        looks = [probe.pooler.looks() for probe in probes]
        seen_BMD = seen_by(torch.cat(looks), normalised(tokens_BLD), keep)
        seen = seen_BMD.split([len(look) for look in looks], 1)
        return torch.stack([probe.head(probe.pooler.conclude(of)) for probe, of in zip(probes, seen, strict=True)])

    def groups(self) -> list[dict[str, Any]]:
        """Two groups of an optimizer for each probe, with its learning rate: matrices decay, vectors do not."""
        groups: list[dict[str, Any]] = []
        for probe, setting in zip(self.probes, self.settings, strict=True):
            for decays in (True, False):
                chosen = [parameter for parameter in probe.parameters() if (parameter.ndim == 2) == decays]
                decay = setting.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": setting.lr, "weight_decay": decay})
        return groups


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
