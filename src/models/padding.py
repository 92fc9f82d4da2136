"""Padding behind ECGs that end early: which tokens hold signal, and means over these alone."""

# B batch, T samples of a lead, L tokens, D width

from __future__ import annotations

import math

from torch import Tensor

from src.models.config import EncoderSection


def valid_tokens(keep_BT: Tensor, config: EncoderSection) -> Tensor:
    """Which tokens hold any signal, [B, L], where `keep_BT` says which samples are signal (True = keep).

    A record may end inside its last token, whose rest is zeros then, which the encoder sees: to leave that token out
    would lose up to a patch of each record.
    """
    times = config.grid[-1]
    valid_BN = keep_BT.unflatten(1, (times, -1)).any(2)
    return valid_BN.repeat(1, math.prod(config.grid) // times)


def mean_token(tokens_BLD: Tensor, valid_BL: Tensor | None = None) -> Tensor:
    """The mean token [B, D] of each sample, over those that are valid; each must have one."""
    if valid_BL is None:
        return tokens_BLD.mean(1)
    return without(tokens_BLD, valid_BL).sum(1) / valid_BL.sum(1, keepdim=True)


def without(tokens_BLD: Tensor, valid_BL: Tensor, value: float = 0.0) -> Tensor:
    """Tokens with a value in the place of all numbers of those that are not valid."""
    return tokens_BLD.masked_fill(~valid_BL.unsqueeze(-1), value)
