"""Reports of a batch: their tokens, which of them say the same, and how many do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
            return torch.from_numpy(np.stack([known_labels(sample) for sample in samples]) == 1)
        texts = [sample["text"] or "" for sample in samples]
        if self._ids == "text":
            return torch.tensor([text_id(text) for text in texts], dtype=torch.int64)
        parts = [[part for part in text.split(SEPARATOR) if part.strip()] for text in texts]
        return torch.tensor([diagnosis_id(of_text) for of_text in parts], dtype=torch.int64)


def known_labels(sample: Mapping[str, Any]) -> NDArray[np.float32]:
    """The labels [K] of a sample.

    Raises:
        ValueError: one is unknown, so that nobody knows what the sample has in common with others.
    """
    labels_K: NDArray[np.float32] = sample["labels"]
    if np.isnan(labels_K).any():
        raise ValueError(
            f"sample {sample['key']} has labels that are unknown, and loss.ids is labels: leave it out of the shards "
            "or set loss.ids to text or diagnoses"
        )
    return labels_K


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
        kinds = gather_objects({row.tobytes() for row in ids.numpy()})
        return len(set().union(*kinds)) == 1
