"""Which samples of a batch a transform hits, and how strongly: from each sample's own stream."""

# B batch, H samples of the batch that a transform hits

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.randomness import Streams


def hit(streams: Streams, name: str, probability: float) -> NDArray[np.int64]:
    """The rows of the batch that a transform is applied to."""
    if probability == 0:  # most transforms of a config; their draws took a third of an ECG's time
        return np.empty(0, np.int64)
    return np.flatnonzero(streams.uniform(f"{name}.hit") < probability)


def between(streams: Streams, name: str, span: tuple[float, float], *shape: int) -> NDArray[np.float64]:
    """Uniform from span[0] up to span[1], [H, *shape]."""
    return span[0] + (span[1] - span[0]) * streams.uniform(name, *shape)


def signed(streams: Streams, name: str, *shape: int) -> NDArray[np.float64]:
    """Uniform in +-1, [H, *shape]."""
    return 2.0 * streams.uniform(name, *shape) - 1.0
