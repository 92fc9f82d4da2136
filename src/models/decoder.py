"""A text decoder over the tokens of any encoder: of an ECG, of the videos of a study, of a CT.

Pre-norm blocks of causal self-attention, cross-attention and an MLP with learned positions (Vaswani et al. 2017, arXiv
1706.03762; the layout of CapPa, Tschannen et al. 2023, arXiv 2306.07915). The matrix of the logits begins at zero, so
that the first loss is log V, whatever the texts are.
"""

# B batch, T tokens of a text, S tokens that can be looked at, L encoder tokens, D width, E encoder width, H heads,
# d width of a head, V vocabulary

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.decoder_config import DecoderConfig
from src.models.transformer import Mlp, initialize
from src.text.special import SpecialTokens, shift_right

Pair = tuple[Tensor, Tensor]
"""Keys and values, [B, H, *, d] both."""


@dataclass
class Remembered:
    """What a block need not compute again for the next token: keys and values of the text so far and of the encoder."""

    text: Pair | None = None
    encoder: Pair | None = None

    def append(self, keys: Tensor, values: Tensor) -> Pair:
        """Keys and values of the whole text, these being its last."""
        if self.text is not None:
            keys, values = torch.cat([self.text[0], keys], dim=2), torch.cat([self.text[1], values], dim=2)
        self.text = keys, values
        return self.text

    def select(self, rows_B: Tensor) -> None:
        """Go on from the texts of these rows."""
        assert self.text is not None
        self.text = self.text[0][rows_B], self.text[1][rows_B]


class TextAttention(nn.Module):
    """Self-attention among the tokens of a text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BTD: Tensor, seen: Tensor | None, remembered: Remembered | None) -> Tensor:
        """`seen` [B or 1, 1, T, S] says at whom each token looks; without it each looks at those before it."""
        q, k, v = self.qkv(tokens_BTD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if remembered is not None:
            k, v = remembered.append(k, v)
            T, S = q.shape[2], k.shape[2]
            seen = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        mixed_BHTd = F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None)
        return self.proj(mixed_BHTd.transpose(1, 2).flatten(2))


class EncoderAttention(nn.Module):
    """Cross-attention of the tokens of a text to those of an encoder."""

    def __init__(self, width: int, heads: int, encoder_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(encoder_width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens_BTD: Tensor, encoded_BLE: Tensor, keep_BL: Tensor | None, remembered: Remembered | None
    ) -> Tensor:
        q_BHTd = self.q(tokens_BTD).unflatten(2, (self.heads, -1)).transpose(1, 2)
        pair = None if remembered is None else remembered.encoder
        if pair is None:
            k, v = self.kv(encoded_BLE).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            pair = k, v
        if remembered is not None:
            remembered.encoder = pair
        seen = None if keep_BL is None else keep_BL[:, None, None]
        mixed_BHTd = F.scaled_dot_product_attention(q_BHTd, *pair, seen)
        return self.proj(mixed_BHTd.transpose(1, 2).flatten(2))


class DecoderBlock(nn.Module):
    """x + text(norm(x)), then x + encoder(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: DecoderConfig, encoder_width: int) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = TextAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.cross = EncoderAttention(width, config.heads, encoder_width)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, config.mlp_width)

    def forward(
        self,
        tokens_BTD: Tensor,
        encoded_BLE: Tensor,
        keep_BL: Tensor | None = None,
        seen: Tensor | None = None,
        remembered: Remembered | None = None,
    ) -> Tensor:
        tokens_BTD = tokens_BTD + self.attn(self.norm1(tokens_BTD), seen, remembered)
        tokens_BTD = tokens_BTD + self.cross(self.norm2(tokens_BTD), encoded_BLE, keep_BL, remembered)
        return tokens_BTD + self.mlp(self.norm3(tokens_BTD))


class Decoder(nn.Module):
    """Logits of the tokens of a text, given the tokens of an encoder."""

    def __init__(self, config: DecoderConfig, special: SpecialTokens, length: int, encoder_width: int) -> None:
        """`length`: tokens of the longest text, the one that ends it included."""
        super().__init__()
        self.config, self.special, self.length = config, special, length
        self.words = nn.Embedding(special.vocabulary, config.width)
        self.positions = nn.Parameter(torch.zeros(1, length, config.width))
        self.norm_encoded = nn.LayerNorm(encoder_width, eps=1e-6)
        self.blocks = nn.ModuleList(DecoderBlock(config, encoder_width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.logits = nn.Linear(config.width, special.vocabulary)
        initialize(self)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.zeros_(self.logits.weight)
        for number, block in enumerate(self.blocks, 1):  # three branches of a block are added to the residual stream
            assert isinstance(block, DecoderBlock)
            for layer in (block.attn.proj, block.cross.proj, block.mlp.fc2):
                layer.weight.data.div_(math.sqrt(3.0 * number))

    def forward(
        self,
        labels_BT: Tensor,
        encoded_BLE: Tensor,
        keep_BL: Tensor | None = None,
        parallel_B: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of labels of which each is predicted from those before it; T may be less than `length`.

        Encoder tokens where `keep_BL` is False are not looked at; each sample must keep one. Where `parallel_B` is
        True, all tokens that the labels are predicted from are the mask, and each looks at all: they tell of the length
        of the row, which is the same for all texts, and not of the text.
        """
        inputs_BT, seen = shift_right(labels_BT, self.special), None
        if parallel_B is not None:
            inputs_BT = inputs_BT.masked_fill(parallel_B[:, None], self.special.mask)
            T = inputs_BT.shape[1]
            causal_TT = torch.ones(T, T, dtype=torch.bool, device=inputs_BT.device).tril()
            seen = (causal_TT | parallel_B[:, None, None])[:, None]
        tokens_BTD = self.words(inputs_BT) + self.positions[:, : inputs_BT.shape[1]]
        encoded_BLE = self.norm_encoded(encoded_BLE)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, encoded_BLE, keep_BL, seen)
        return self.logits(self.norm(tokens_BTD))

    def begin(self, encoded_BLE: Tensor, keep_BL: Tensor | None = None, beams: int = 1) -> Writing:
        """Begin to write so many texts of each sample."""
        encoded_BLE = self.norm_encoded(encoded_BLE).repeat_interleave(beams, 0)
        return Writing(self, encoded_BLE, None if keep_BL is None else keep_BL.repeat_interleave(beams, 0))


class Writing:
    """Texts that are being written, one row each, by a decoder that remembers what it has looked at."""

    def __init__(self, decoder: Decoder, encoded_BLE: Tensor, keep_BL: Tensor | None) -> None:
        self._decoder, self._encoded_BLE, self._keep_BL = decoder, encoded_BLE, keep_BL
        self._remembered = [Remembered() for _ in decoder.blocks]
        self._place = 0

    def __len__(self) -> int:
        return len(self._encoded_BLE)

    def __call__(self, last_B: Tensor) -> Tensor:
        """Logits [B, V] of the next token, given the last one of each text."""
        decoder, place = self._decoder, self._place
        tokens_B1D = decoder.words(last_B)[:, None] + decoder.positions[:, place : place + 1]
        for block, remembered in zip(decoder.blocks, self._remembered, strict=True):
            tokens_B1D = block(tokens_B1D, self._encoded_BLE, self._keep_BL, None, remembered)
        self._place += 1
        logits_BV: Tensor = decoder.logits(decoder.norm(tokens_B1D))[:, 0]
        return logits_BV.float()

    def select(self, rows_B: Tensor) -> None:
        """Go on with the texts of these rows, which have the samples of the rows whose place they take."""
        for remembered in self._remembered:
            remembered.select(rows_B)
