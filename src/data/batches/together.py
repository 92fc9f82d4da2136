"""Several batches of the same samples as one: an ECG with its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from src.data.loader import Collate
from src.randomness import Streams


class Together:
    """What all parts give of the same samples; each key is of one part."""

    def __init__(self, *parts: Collate) -> None:
        self._parts = parts

    def prepare(self, sample: Mapping[str, Any], streams: Streams) -> Mapping[str, Any]:
        """The sample as the parts prepare it, one after the other.

        Raises:
            ValueError: a part can't decode it.
        """
        for part in self._parts:
            if hasattr(part, "prepare"):
                sample = part.prepare(sample, streams)
        return sample

    def __call__(self, step: int, prepared: Sequence[Any], streams: Streams) -> dict[str, Tensor]:
        """A batch.

        Raises:
            ValueError: a part refuses a sample.
        """
        batch: dict[str, Tensor] = {}
        for part in self._parts:
            found = part(step, prepared, streams)
            assert not batch.keys() & found.keys(), "two parts give the same key"
            batch |= found
        return batch
