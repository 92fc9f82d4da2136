"""Reports as a batch, tokenised where they are read."""

# B batch, L tokens

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.randomness import Streams
from src.text.tokenize import Tokenize


class TextBatch:
    """Samples to `text` [B, L] int64, `text_keep` [B, L] bool and `has_text` [B] bool.

    A sample without a report, or with one that has no token, keeps none and has no text. `text_keep` is not called
    `keep`, since a report is never alone in a batch.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize

    def __call__(self, step: int, samples: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch."""
        texts = [sample["text"] or "" for sample in samples]
        ids_BL, keep_BL = self._tokenize(texts)
        keep = torch.from_numpy(keep_BL)
        return {"text": torch.from_numpy(ids_BL), "text_keep": keep, "has_text": keep.any(1)}
