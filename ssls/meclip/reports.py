"""Reports of a batch: their tokens, which of them say the same, and how many do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.data.batches.text import TextBatch
from src.distributed.ranks import gather_objects
from src.losses.contrastive.duplicates import diagnosis_id, duplicate_rate, text_id
from src.randomness import Streams
from src.run.run import Run
from src.text.tokenize import Tokenize
from ssls.meclip.config import LossConfig
from ssls.meclip.model import IDS

# B batch, K labels

SEPARATOR = ";"
"""Between the diagnoses of a report."""
RATE = "duplicate_text_rate"


class Reports:
    """Samples to what TextBatch gives, and `ids`: an integer of each, [B], or its labels, [B, K] bool."""

    def __init__(self, tokenize: Tokenize, loss: LossConfig) -> None:
        self._text, self._ids = TextBatch(tokenize), loss.ids

    def __call__(self, step: int, samples: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch."""
        return self._text(step, samples, streams) | {IDS: self._say(samples)}

    def _say(self, samples: Sequence[Mapping[str, Any]]) -> Tensor:
        if self._ids == "labels":
            return torch.from_numpy(np.stack([sample["labels"] for sample in samples]) == 1)
        texts = [sample["text"] or "" for sample in samples]
        if self._ids == "text":
            return torch.tensor([text_id(text) for text in texts], dtype=torch.int64)
        parts = [[part for part in text.split(SEPARATOR) if part.strip()] for text in texts]
        return torch.tensor([diagnosis_id(of_text) for of_text in parts], dtype=torch.int64)


class DuplicateWatch:
    """How many samples of each global batch say what another says; told aloud, once, where all do."""

    def __init__(self, loss: LossConfig, run: Run) -> None:
        self._loss, self._run, self._told = loss, run, False

    def __call__(self, step: int, micro_batches: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """The share among those with a report, for metrics.jsonl. All ranks must call it."""
        ids = torch.cat([batch[IDS][batch["has_text"]] for batch in micro_batches])
        rate = duplicate_rate(ids, self._loss.overlap).item()
        if rate == 1.0 and not self._told and self._all_alike(ids):
            self._told = True
            nothing = "" if self._loss.duplicates == "ignore" else f", so that its loss is 0 ({self._loss.duplicates})"
            self._run.say(
                f"warning: step {step}: all reports of the batch say the same{nothing}: nothing is learned from such a "
                "batch; raise data.batch_size or look at the reports; it is not told again"
            )
        return {RATE: rate}

    def _all_alike(self, ids: Tensor) -> bool:
        """Whether it is one thing that all ranks' samples say."""
        kinds = gather_objects({bytes(row) for row in ids.numpy().reshape(len(ids), -1).view(np.uint8)})
        return len(set().union(*kinds)) == 1
