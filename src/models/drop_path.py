"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382): which branches of a transformer a sample goes through.

Drawn with the batch and not in the model, so that a sample's branches do not depend on ranks, micro-batches or on how
often a run was killed, and are the same when a block is computed a second time for its gradients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.models.config import TransformerConfig
from src.randomness import Streams

# B batch, N blocks


def drop_rates(config: TransformerConfig) -> list[float]:
    """How often each block leaves out a branch: from 0 in the first to `drop_path` in the last."""
    _, depth, _ = config.size
    return [config.drop_path * number / max(depth - 1, 1) for number in range(depth)]


def kept_branches(config: TransformerConfig, streams: Streams) -> NDArray[np.bool_]:
    """Whether each sample keeps the attention and the MLP of each block, [B, N, 2]; True = keep."""
    rates_N1 = np.array(drop_rates(config))[:, None]
    return streams.fork("drop path").uniform("branches", len(rates_N1), 2) >= rates_N1
