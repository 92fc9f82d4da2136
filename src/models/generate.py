"""Texts from a decoder: the likeliest token each time, a beam of the likeliest texts, or tokens that are drawn.

All write into rows of one length, with padding behind the end. A text is either over (it has the end token) or full.
Rows that are over go on with padding until all are; `all_over` may ask other ranks too, since a decoder that is sharded
must be called equally often on each.
"""

# B batch, K beams, N = B x K rows, T tokens of a text, V vocabulary

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from src.text.special import SpecialTokens

AllOver = Callable[[bool], bool]
NEVER = -math.inf


class Next(Protocol):
    """Texts that are being written (src/models/decoder.py, `Writing`)."""

    def __len__(self) -> int:
        """Rows."""

    def __call__(self, last_N: Tensor, /) -> Tensor:
        """Logits [N, V] of the next token, given the last one of each row."""

    def select(self, rows_N: Tensor, /) -> None:
        """Go on with the texts of these rows."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; what is left after each has the shares that it had among what is left."""

    temperature: float = 1.0
    """Logits are divided by it: below 1 the likely becomes likelier."""
    top_k: int | None = None
    """Only so many of the likeliest tokens are left."""
    top_p: float = 1.0
    """Then only the likeliest that together have this share; the first is always left."""


class Texts(NamedTuple):
    """What was written."""

    ids_BT: Tensor
    """With padding behind the end token, which a text that is full does not have."""
    scores_B: Tensor
    """The sum of the tokens' log-probabilities; of a beam divided by length ** length_penalty."""


def log_probabilities(logits_NV: Tensor, special: SpecialTokens) -> Tensor:
    """Those of the tokens that a text may have."""
    logits_NV = logits_NV.float().index_fill(1, _ids(special.never_written, logits_NV), NEVER)
    return logits_NV.log_softmax(1)


def _ids(ids: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=like.device)


@torch.no_grad()
def greedy(write: Next, special: SpecialTokens, length: int, device: torch.device, all_over: AllOver = bool) -> Texts:
    """The likeliest token each time; of equal ones that with the lowest id."""
    return _one_each(write, special, length, device, all_over, lambda known_BV, _: known_BV.argmax(1))


@torch.no_grad()
def sample(
    write: Next, special: SpecialTokens, uniforms_BT: Tensor, sampling: Sampling, all_over: AllOver = bool
) -> Texts:
    """Tokens drawn by the numbers that each sample brings along, uniform on [0, 1): one for each token of its text.

    Their device is that of the decoder.
    """

    def draw(known_BV: Tensor, place: int) -> Tensor:
        return drawn(known_BV, uniforms_BT[:, place], sampling)

    return _one_each(write, special, uniforms_BT.shape[1], uniforms_BT.device, all_over, draw)


def drawn(known_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> Tensor:
    """Tokens [B], given log-probabilities and a number on [0, 1) for each row, which falls on the share of one token.

    These lie side by side in the order of the ids: in that of the shares rounding would choose among tokens that are
    all but equally likely, as the many are that were never learned.
    """
    shares_BV = (known_BV.double() / sampling.temperature).softmax(1)
    ordered_BV, ids_BV = shares_BV.sort(stable=True, dim=1, descending=True)
    if sampling.top_k is not None:
        ordered_BV[:, sampling.top_k :] = 0.0
    before_BV = ordered_BV.cumsum(1) - ordered_BV
    left_BV = ordered_BV.where(before_BV < sampling.top_p * ordered_BV.sum(1, keepdim=True), 0.0)
    ends_BV = torch.zeros_like(shares_BV).scatter(1, ids_BV, left_BV).cumsum(1)
    return (ends_BV <= uniform_B.double()[:, None] * ends_BV[:, -1:]).sum(1)


def _one_each(
    write: Next,
    special: SpecialTokens,
    length: int,
    device: torch.device,
    all_over: AllOver,
    choose: Callable[[Tensor, int], Tensor],
) -> Texts:
    """One text of each row, token by token."""
    B = len(write)
    ids_BT = torch.full((B, length), special.pad, device=device)
    scores_B, over_B = torch.zeros(B, device=device), torch.zeros(B, dtype=torch.bool, device=device)
    last_B = torch.full((B,), special.begin, device=device)
    for place in range(length):
        known_BV = log_probabilities(write(last_B), special)
        last_B = choose(known_BV, place).where(~over_B, special.pad)
        ids_BT[:, place] = last_B
        scores_B += known_BV.gather(1, last_B[:, None])[:, 0].where(~over_B, 0.0)
        over_B = over_B | (last_B == special.end)
        if all_over(bool(over_B.all())):
            break
    return Texts(ids_BT, scores_B)


@torch.no_grad()
def beam_search(
    write: Next,
    beams: int,
    special: SpecialTokens,
    length: int,
    device: torch.device,
    length_penalty: float = 1.0,
    all_over: AllOver = bool,
) -> Texts:
    """The text with the highest sum of log-probabilities / length ** length_penalty that a beam of so many finds.

    Rows of `write` are samples x beams, those of a sample in a row. Texts that are over keep their places in the beam
    as long as they are among its best, and compete with those that go on; a beam of one is greedy.
    """
    beam = _Beam(len(write) // beams, beams, length, special, device)
    last_N = torch.full((len(write),), special.begin, device=device)
    for place in range(length):
        rows_N, last_N = beam.extend(log_probabilities(write(last_N), special), place, length_penalty)
        write.select(rows_N)
        if all_over(bool(beam.done_BK.all())):
            break
    return Texts(beam.ids_BKT[:, 0], beam.ranks_BK[:, 0])


class _Beam:
    """The best K texts of each sample, best first."""

    def __init__(self, samples: int, beams: int, length: int, special: SpecialTokens, device: torch.device) -> None:
        self.special = special
        self.ids_BKT = torch.full((samples, beams, length), special.pad, device=device)
        self.scores_BK = torch.full((samples, beams), NEVER, device=device)
        self.scores_BK[:, 0] = 0.0  # all begin alike: one is enough
        self.ranks_BK = self.scores_BK
        self.lengths_BK = torch.zeros_like(self.ids_BKT[:, :, 0])
        self.over_BK = torch.zeros_like(self.lengths_BK, dtype=torch.bool)

    @property
    def done_BK(self) -> Tensor:
        """Texts that nothing more will become of; where there are fewer texts than K, the others are none."""
        return self.over_BK | (self.scores_BK == NEVER)

    def extend(self, known_NV: Tensor, place: int, penalty: float) -> tuple[Tensor, Tensor]:
        """Take the next tokens, given their log-probabilities: which row each text goes on from, and by which token."""
        (B, K), V = self.scores_BK.shape, known_NV.shape[1]
        grown_BKV = self.scores_BK[..., None] + known_NV.view(B, K, V)
        kept_BKV = torch.full_like(grown_BKV, NEVER)
        kept_BKV[..., self.special.pad] = self.scores_BK
        scores_BKV = kept_BKV.where(self.over_BK[..., None], grown_BKV)
        lengths_BK = self.lengths_BK + ~self.over_BK
        ranks_BKV = scores_BKV / lengths_BK[..., None] ** penalty
        self.ranks_BK, index_BK = ranks_BKV.flatten(1).topk(K, dim=1)
        parent_BK, token_BK = index_BK // V, index_BK % V
        self.scores_BK = scores_BKV.flatten(1).gather(1, index_BK)
        self.lengths_BK = lengths_BK.gather(1, parent_BK)
        self.ids_BKT = self.ids_BKT.gather(1, parent_BK[..., None].expand_as(self.ids_BKT))
        self.ids_BKT[:, :, place] = token_BK
        self.over_BK = self.over_BK.gather(1, parent_BK) | (token_BK == self.special.end)
        rows_BK = parent_BK + K * torch.arange(B, device=known_NV.device)[:, None]
        return rows_BK.flatten(), token_BK.flatten()
