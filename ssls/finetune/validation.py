"""The validation records while a classifier learns: scores, the best of them, and when to stop."""

# N records, K labels or classes

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.distributed.ranks import Ranks, broadcast_object
from src.evaluation.best import Best
from src.evaluation.features import Door, Records, predict, unwatched
from src.evaluation.targets import Cases
from src.metrics.ranking import auroc
from src.transforms.plain import AnyPreprocessing
from ssls.finetune.config import Config
from ssls.finetune.model import Task

LEAST = 1e-7
"""Probabilities are kept so far from 0 and 1 in the cross-entropy, as fp32 is from 1: none is worse than 16."""


class Validation:
    """Scores the validation records every so many steps; follows the score that chooses the weights."""

    note = ""
    embeds = False

    def __init__(
        self, config: Config, task: Task, cases: Cases | None, preprocessing: AnyPreprocessing, ranks: Ranks
    ) -> None:
        """`cases` are the validation records, None where nothing is evaluated."""
        self.every, self.task = config.evaluation.every, task
        self.metric, stopping = config.evaluation.metric, config.early_stopping
        self.best: Best | None = None
        if cases is None:
            assert self.every is None
            return
        self.cases, self._ranks = cases, ranks
        self.records = Records(cases.shards, cases.samples_N, preprocessing, config.evaluation.windows)
        self.batch_size = records_at_once(config, ranks)
        if self.metric == "auroc" and not both_kinds(cases.truth_NK).any():
            raise ValueError(
                f"evaluation.metric is auroc, but no label has both kinds among the records of evaluation.split "
                f"{config.evaluation.split}: set it to cross_entropy, or name another split"
            )
        self.best = Best(
            higher=self.metric == "auroc",
            of=f"{self.metric} on {config.evaluation.split}, windows {config.evaluation.windows}",
            patience=None if stopping is None else stopping.patience,
            min_delta=0.0 if stopping is None else stopping.min_delta,
        )

    def baseline(self, engine: Door, alive: Callable[[], object] = unwatched) -> None:
        """A head that has learned nothing says nothing worth a line."""

    def probabilities(self, engine: Door, alive: Callable[[], object] = unwatched) -> NDArray[np.float32]:
        """Of the validation records, [N, K], on every rank."""
        return predict(engine, self.records, self.batch_size, self._ranks, alive)

    def measure(self, engine: Door, steps: int, alive: Callable[[], object] = unwatched) -> dict[str, Any]:
        """Macro AUROC over the labels of which both classes are there, how many that are, and the cross-entropy.

        All ranks get rank 0's record, so that all of them choose and stop alike.
        """
        assert self.best is not None
        begun = time.perf_counter()
        predicted_NK = self.probabilities(engine, alive)
        measured = broadcast_object(self._measures(predicted_NK) if self._ranks.first else None)
        self.best.update(measured["auroc" if self.metric == "auroc" else "cross_entropy"], steps)
        record = {"records": len(self.records), **measured, "best_step": self.best.step}
        return record | {"alarms": [], "seconds": round(time.perf_counter() - begun, 3)}

    def _measures(self, predicted_NK: NDArray[np.float32]) -> dict[str, Any]:
        return measures(self.task, predicted_NK, self.cases.truth_NK)

    def summary(self, record: dict[str, Any]) -> str:
        """A record in a line."""
        best = "none is best yet" if record["best_step"] is None else f"the best is step {record['best_step']}"
        return (
            f"AUROC {record['auroc']:.4f} of {record['labels']} labels, cross-entropy {record['cross_entropy']:.4f}; "
            f"by {self.metric} {best}"
        )

    def save_embeddings(self, path: Path) -> None:
        raise AssertionError("there are none")


def records_at_once(config: Config, ranks: Ranks) -> int:
    """Records in one forward of an evaluation: as many as in one of training."""
    share = config.data.batch_size // ranks.world_size
    return min(share, config.data.micro_batch_size or share)


def both_kinds(truth_NK: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Of which labels [K] both kinds are among the known."""
    return np.logical_and((truth_NK > 0.5).any(axis=0), (truth_NK < 0.5).any(axis=0))


def measures(task: Task, probability_NK: NDArray[np.floating], truth_NK: NDArray[np.floating]) -> dict[str, Any]:
    """`auroc`: the mean over labels with both classes among the known, NaN without any; `labels`: their number;
    `skipped`: that of the others; `cross_entropy`: the mean over known labels, or over records of known class.

    Of a model that gives no numbers both scores are NaN.
    """
    if not np.isfinite(probability_NK).all():
        return {"auroc": math.nan, "labels": 0, "skipped": truth_NK.shape[1], "cross_entropy": math.nan}
    known_NK = ~np.isnan(truth_NK)
    scores = [
        float(auroc(probability_N[known_N], truth_N[known_N])[0])
        for probability_N, truth_N, known_N, both in zip(
            probability_NK.T, truth_NK.T, known_NK.T, both_kinds(truth_NK), strict=True
        )
        if both
    ]
    return {
        "auroc": float(np.mean(scores)) if scores else math.nan,
        "labels": len(scores),
        "skipped": truth_NK.shape[1] - len(scores),
        "cross_entropy": (class_entropy if task == "multiclass" else label_entropy)(probability_NK, truth_NK),
    }


def label_entropy(probability_NK: NDArray[np.floating], truth_NK: NDArray[np.floating]) -> float:
    """The mean binary cross-entropy over known labels."""
    p_NK = np.clip(probability_NK.astype(np.float64), LEAST, 1 - LEAST)
    return float(-np.nanmean(truth_NK * np.log(p_NK) + (1 - truth_NK) * np.log1p(-p_NK)))


def class_entropy(probability_NK: NDArray[np.floating], truth_NK: NDArray[np.floating]) -> float:
    """The mean cross-entropy over records, whose class is the one of truth 1."""
    p_NK = np.clip(probability_NK.astype(np.float64), LEAST, 1 - LEAST)
    return float(-np.where(truth_NK == 1, np.log(p_NK), 0.0).sum(1).mean())
