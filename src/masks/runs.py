"""Runs of hidden tokens along a signal, after Weimann & Conrad (arXiv 2410.13867): a few long ones, none short.

What a short run hides can be told from its neighbours. Each sample of a step hides the same number of tokens, exactly,
so that tensors need neither padding nor a cut to the smallest of a batch.

Legend: B samples, N samples that are not done, L tokens of the signal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.randomness import Streams


class Gap(NamedTuple):
    """A stretch of free tokens for each sample: its first token, and the first one past it."""

    first_N: NDArray[np.int64]
    past_N: NDArray[np.int64]


def hidden_runs(length: int, hidden: int, shortest: int, streams: Streams) -> NDArray[np.bool_]:
    """True where a token is hidden, `hidden` of `length` tokens in each sample, in runs of at least `shortest`, [B, L].

    Until that many are hidden: a gap is chosen with a probability proportional to its length, and a block of `shortest`
    to all that is left to hide, uniform, is put at a uniform place in it; a gap no longer than the block is hidden
    whole. Less than `shortest` left to hide is put beside a block that borders the chosen gap. Needs
    shortest <= hidden <= length.
    """
    assert shortest <= hidden <= length
    hidden_BL = np.zeros((len(streams), length), np.bool_)
    left_B = np.full(len(streams), hidden)
    turn = 0
    while len(rows := np.flatnonzero(left_B)):
        drawn = streams[rows].fork(turn)
        gap = _gap(hidden_BL[rows], drawn)
        first_N, past_N = _block(gap, left_B[rows], shortest, length, drawn)
        tokens_L = np.arange(length)
        hidden_BL[rows] |= (tokens_L >= first_N[:, None]) & (tokens_L < past_N[:, None])
        left_B[rows] -= past_N - first_N
        turn += 1
    return hidden_BL


def _gap(hidden_NL: NDArray[np.bool_], streams: Streams) -> Gap:
    """The gap around a uniformly drawn free token: gaps are drawn by their length."""
    count_NL = np.cumsum(~hidden_NL, axis=1, dtype=np.int64)
    token_N = (count_NL > streams.integers("token", count_NL[:, -1])[:, None]).argmax(axis=1)
    tokens_L = np.arange(hidden_NL.shape[1])
    before_NL = hidden_NL & (tokens_L < token_N[:, None])
    after_NL = hidden_NL & (tokens_L > token_N[:, None])
    first_N = np.where(before_NL, tokens_L, -1).max(axis=1) + 1
    return Gap(first_N, np.where(after_NL, tokens_L, len(tokens_L)).min(axis=1))


def _block(gap: Gap, left_N: NDArray[np.int64], shortest: int, length: int, streams: Streams) -> Gap:
    """What is hidden of the gap."""
    alone_N = left_N >= shortest  # else what is left is too short to stand alone
    size_N = shortest + streams.integers("size", np.maximum(left_N - shortest, 0) + 1)
    size_N = np.minimum(np.where(alone_N, size_N, left_N), gap.past_N - gap.first_N)
    last_N = gap.past_N - size_N
    anywhere_N = gap.first_N + streams.integers("place", last_N - gap.first_N + 1)
    at_the_end_N = (gap.first_N == 0) | ((gap.past_N < length) & (streams.uniform("side") < 0.5))
    first_N = np.where(alone_N, anywhere_N, np.where(at_the_end_N, last_N, gap.first_N))
    return Gap(first_N, first_N + size_N)
