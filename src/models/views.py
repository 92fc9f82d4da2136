"""What an encoder makes of two views of each sample, out of a batch that has both."""

# B batch, V views that are asked for, T samples of a lead, L tokens, D width

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.models.encoder import AnyEncoder
from src.models.padding import mean_token, valid_tokens

VIEWS = ("first", "second")
"""What the views are called in a batch: each is [B, C, T]."""


def branches_name(view: str) -> str:
    """Which branches of the encoder a view of each sample goes through, where it drops some, [B, depth, 2]."""
    return f"{view}_branches"


def embed_views(
    encoder: AnyEncoder, batch: Mapping[str, Tensor], views: Sequence[str], dropping: bool = True
) -> Tensor:
    """The mean token [V B, D] of each view of each sample, one view after the other, in fp32 at least.

    All go through the encoder at once: a BatchNorm of it has the statistics of them together. Tokens of padding
    (`keep` [B, T] in the batch) are no part of the mean. Not `dropping`, as a teacher, takes every branch.
    """
    signal = torch.cat([batch[view] for view in views])
    valid_BL = None
    if "keep" in batch:
        valid_BL = valid_tokens(batch["keep"], encoder.config).repeat(len(views), 1)
    drops = dropping and branches_name(views[0]) in batch
    branches = {"branches_BN2": torch.cat([batch[branches_name(view)] for view in views])} if drops else {}
    tokens_BLD: Tensor = encoder(signal, valid_BL=valid_BL, **branches)
    return mean_token(tokens_BLD if tokens_BLD.dtype == torch.float64 else tokens_BLD.float(), valid_BL)
