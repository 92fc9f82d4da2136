"""Retrieval while a pair is trained: the reports of the validation records found by their ECGs, and the reverse."""

# N records, T different texts, D width, F features of the joint space

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from src.evaluation.features import Door, Records
from src.evaluation.texts import Galleries, galleries
from src.metrics.retrieval import retrieve, summary
from src.text.tokenize import Tokenize

TOLD = ("recall_any@1", "recall_any@5", "recall_any@10", "median_rank", "map")


class RetrievalMonitor:
    """Measures for a Monitor, by names beginning with `retrieval/`."""

    def __init__(self, tokenize: Tokenize, batch_size: int) -> None:
        """`batch_size`: texts of one forward."""
        self._tokenize, self._batch_size = tokenize, batch_size
        self._known: Galleries | None = None

    def __call__(
        self, door: Door, records: Records, features_NF: NDArray[np.float32], alive: Callable[[], object]
    ) -> dict[str, float]:
        """Of the records' features, which all ranks have; every rank embeds all the texts, each of them once."""
        if self._known is None:
            self._known = galleries([sample["text"] for sample in records.shards.read(records.samples_N)])
        known = self._known
        if not known.texts:
            return {}
        alive()
        ecg_NF = door({"features": torch.from_numpy(features_NF)}, mode="join_ecg")["joint"].cpu().numpy()
        text_TF = self._embed_texts(door, known.texts, alive)
        told = {"retrieval/ecgs": float(len(known.rows_N)), "retrieval/texts": float(len(known.texts))}
        ecg_NF = ecg_NF[known.rows_N]
        for name, query, gallery in (
            ("ecg_to_text", (ecg_NF, known.text_N), (text_TF, known.text_T)),
            ("text_to_ecg", (text_TF, known.text_T), (ecg_NF, known.text_N)),
        ):
            finite = np.isfinite(ecg_NF).all() and np.isfinite(text_TF).all()
            found = summary(retrieve(*query, *gallery)) if finite else dict.fromkeys(TOLD, math.nan)
            told |= {f"retrieval/{name}/{metric}": found[metric] for metric in TOLD}
        return told

    def _embed_texts(self, door: Door, texts: list[str], alive: Callable[[], object]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(texts), self._batch_size):
            alive()
            ids, keep = self._tokenize(texts[start : start + self._batch_size])
            batch = {"text": torch.from_numpy(ids), "text_keep": torch.from_numpy(keep)}
            found.append(door(batch, mode="join_text")["joint"].cpu().numpy())
        return np.concatenate(found)
