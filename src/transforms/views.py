"""Several views of one sample, drawn apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.randomness import Streams

Transform = Callable[[Sequence[Mapping[str, Any]], Streams], NDArray[np.float32]]


def views(
    transforms: Sequence[Transform], samples: Sequence[Mapping[str, Any]], streams: Streams
) -> list[NDArray[np.float32]]:
    """A batch from each transform: one of them twice for SimCLR, two different ones for BYOL.

    View n depends on its place in the list, not on how many there are.
    """
    return views_of_parts(transforms, [samples] * len(transforms), streams)


def views_of_parts(
    transforms: Sequence[Transform], parts: Sequence[Sequence[Mapping[str, Any]]], streams: Streams
) -> list[NDArray[np.float32]]:
    """The same where each view is of a part of the samples of its own."""
    return [
        transform(part, streams.fork(f"view.{number}"))
        for number, (transform, part) in enumerate(zip(transforms, parts, strict=True))
    ]
