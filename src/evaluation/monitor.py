"""Health of a representation while it is trained, beside that of the same encoder before training.

A JEPA's loss falls when it learns and when it collapses alike. What tells them apart: the effective rank of the
features, how much they vary, what the loss of merely predicting the mean would be, and what a nearest-neighbour vote
and a linear probe make of them on patients that the encoder has not seen. Each is measured on the random encoder too,
through the same door before any weights are loaded, since on ECGs even that one does well.
"""

# N records, F features, K labels, L tokens, D width

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from src.config.experiment import ExperimentConfig
from src.data.inputs import open_shards
from src.data.order import permute
from src.data.shards import Shards
from src.distributed.ranks import Ranks
from src.evaluation.alarm import alarms
from src.evaluation.best import Best
from src.evaluation.embeddings import save_embeddings
from src.evaluation.features import Door, Records, embed, embed_tokens, unwatched
from src.evaluation.knn import knn_scores
from src.evaluation.representation import mean_prediction_loss, rankme, spread, variance_between_samples
from src.losses.kinds import RegressionKind
from src.metrics.ranking import auroc
from src.randomness import derive_seed
from src.transforms.plain import AnyPreprocessing

RANDOM = "random_init/"
PROBE_L2 = 0.01
"""One strength for every evaluation: curves over steps must differ by the features alone."""
TOKEN_RECORDS = 128
"""Records whose single tokens are looked at: 128 x 200 tokens x 384 floats are 40 MB."""


def summary(record: dict[str, Any]) -> str:
    """A health record in a line, the random encoder's values in brackets."""
    words = {"rankme": "RankMe", "between_samples": "between samples", "knn_auroc": "kNN", "probe_auroc": "probe"}
    parts = [
        f"{word} {record[name]:.3g} ({record[RANDOM + name]:.3g})" for name, word in words.items() if name in record
    ]
    if "mean_loss" in record:
        parts.append(f"loss {record['loss']:.4f}, of predicting the mean {record['mean_loss']:.4f}")
    return ", ".join(parts) + " (in brackets: at random initialisation)"


class Evaluation(Protocol):
    """What a training run asks of whoever looks at its model on the way.

    All ranks call the methods alike; what `measure` returns is whole on rank 0. `alive` is called before each forward,
    equally often on all ranks; what it raises ends the measuring.
    """

    every: int | None
    """Steps between evaluations; None never evaluates."""
    note: str
    """What people should know before the first, if anything."""
    best: Best | None
    """Follows the score that chooses a checkpoint and may end the run early; None where there is no such score."""
    embeds: bool
    """Whether there are embeddings to save."""

    def baseline(self, engine: Door, alive: Callable[[], object]) -> None:
        """Before any weights are loaded."""

    def measure(self, engine: Door, steps: int, alive: Callable[[], object]) -> dict[str, Any]:
        """The measures after so many completed steps, with `alarms`, a list of sentences."""

    def summary(self, record: dict[str, Any]) -> str:
        """A record in a line."""

    def save_embeddings(self, path: Path) -> None:
        """Of the last evaluation, for pictures."""


class Measures(Protocol):
    """What an objective measures of the validation records beside the health of their features."""

    def __call__(
        self, door: Door, records: Records, features_NF: NDArray[np.float32], alive: Callable[[], object]
    ) -> dict[str, float]:
        """Measures by name; all ranks call it, and `alive` equally often. Those of rank 0 count."""


class Monitor:
    """Measures an engine's encoder every `every` steps.

    Raises:
        ValueError: the validation records do not fit the encoder.
    """

    best: Best | None = None
    embeds = True

    def __init__(
        self,
        experiment: ExperimentConfig,
        training: Shards,
        preprocessing: AnyPreprocessing,
        ranks: Ranks,
        loss: RegressionKind | None = None,
        advice: str = "",
        also: Measures | None = None,
    ) -> None:
        config, data, seed = experiment.evaluation, experiment.data, experiment.seed
        self._also: Measures | None = None
        self.config, self._ranks, self._loss, self._advice = config, ranks, loss, advice
        self.every, self.note = config.every, ""
        if self.every is None:  # nothing is looked at, so nothing is opened
            return
        share = data.batch_size // ranks.world_size
        self._batch_size = min(share, data.micro_batch_size or share)
        held_out = config.split in training.index.splits and config.split != data.split
        looked_at = open_shards(data, config.split) if held_out else training
        self.records = Records(looked_at, _some(looked_at, config.samples, seed), preprocessing, config.windows)
        self._fit = Records(training, _some(training, config.samples, seed), preprocessing, config.windows)
        self.note = (
            ""
            if held_out
            else (
                f"evaluation.split: {data.root} has no split {config.split} other than data.split; the health of the "
                f"representation is measured on {data.split}, without probe and kNN"
            )
        )
        self._also = also if held_out else None
        self._probed = held_out and bool(training.label_names)
        self._known_NK = labels_of(self.records) if ranks.first else None
        self._fit_NK = labels_of(self._fit) if ranks.first and self._probed else None
        self._baseline: dict[str, Any] = {}
        self._random_NF: NDArray[np.float32] | None = None
        self._last_NF: NDArray[np.float32] | None = None

    def baseline(self, engine: Door, alive: Callable[[], object] = unwatched) -> None:
        """Measure the encoder as it was drawn: must come before any weights are loaded; `alive` as in `measure`."""
        self._baseline = {f"{RANDOM}{name}": value for name, value in self._measure(engine, alive).items()}
        self._random_NF = self._last_NF

    def measure(self, engine: Door, steps: int = 0, alive: Callable[[], object] = unwatched) -> dict[str, Any]:
        """The measures, which no number of steps changes, the random encoder's beside them, and `alarms`."""
        begun = time.perf_counter()
        record = {"records": len(self.records), **self._measure(engine, alive), **self._baseline}
        record["alarms"] = alarms(record, self.config.alarm, self._advice)
        record["seconds"] = round(time.perf_counter() - begun, 3)
        return record

    def summary(self, record: dict[str, Any]) -> str:
        """A health record in a line, the random encoder's values in brackets."""
        return summary(record)

    def _measure(self, engine: Door, alive: Callable[[], object]) -> dict[str, Any]:
        size, ranks = self._batch_size, self._ranks
        features_NF = embed(engine, self.records, "mean", size, ranks, alive)
        fit_NF = embed(engine, self._fit, "mean", size, ranks, alive) if self._probed else None
        few = replace(self.records, samples_N=self.records.samples_N[:TOKEN_RECORDS])
        targets = embed_tokens(engine, few, "targets", size, ranks, alive) if self._loss else None
        also = {} if self._also is None else self._also(engine, self.records, features_NF, alive)
        self._last_NF = features_NF
        if not self._ranks.first:
            return {}
        spreads = spread(features_NF)
        measured = {"rankme": rankme(features_NF), "feature_std": spreads.mean, "dead_dimensions": spreads.dead}
        if targets is not None and self._loss:
            targets_NLD = torch.from_numpy(targets[0])
            valid_NL = None if targets[1] is None else torch.from_numpy(targets[1])
            measured["between_samples"] = variance_between_samples(targets_NLD, valid_NL)
            measured["mean_loss"] = mean_prediction_loss(targets_NLD, self._loss, valid_NL)
        if fit_NF is not None:
            measured |= self._probe(fit_NF, features_NF)
        return {name: float(f"{value:.6g}") for name, value in (measured | also).items()}

    def _probe(self, fit_NF: NDArray[np.float32], features_NF: NDArray[np.float32]) -> dict[str, float]:
        """Macro AUROC of a vote of neighbours and of a linear probe, both fitted on the training split."""
        from src.evaluation.linear import fit_linear  # scipy, 0.3 s of every start, and only rank 0 probes

        assert self._fit_NK is not None and self._known_NK is not None
        if not (np.isfinite(fit_NF).all() and np.isfinite(features_NF).all()):
            return {"knn_auroc": math.nan, "probe_auroc": math.nan}
        voted_NK = knn_scores(fit_NF, self._fit_NK, features_NF)
        head = fit_linear(fit_NF, self._fit_NK, "multilabel", PROBE_L2)
        return {
            "knn_auroc": macro_auroc(voted_NK, self._known_NK),
            "probe_auroc": macro_auroc(head.predict(features_NF), self._known_NK),
        }

    def save_embeddings(self, path: Path) -> None:
        """Features of the last evaluation and of the random encoder, for pictures."""
        assert self._known_NK is not None and self._last_NF is not None
        shards = self.records.shards
        keys = shards.keys(self.records.samples_N)
        save_embeddings(path, self._last_NF, self._random_NF, self._known_NK, shards.label_names, keys)


def labels_of(records: Records) -> NDArray[np.float32]:
    """Labels [N, K] of the records, NaN where unknown."""
    samples = records.shards.read(records.samples_N)
    return np.array([sample["labels"] for sample in samples], np.float32).reshape(len(samples), -1)


def macro_auroc(scores_NK: NDArray[np.floating], labels_NK: NDArray[np.floating]) -> float:
    """Mean AUROC over the labels of which both classes are there; NaN if none is."""
    found = []
    for scores_N, labels_N in zip(scores_NK.T, labels_NK.T, strict=True):
        known = np.isfinite(labels_N) & np.isfinite(scores_N)
        found.append(float(auroc(scores_N[known], labels_N[known] > 0.5)[0]) if known.any() else math.nan)
    return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan


def _some(shards: Shards, most: int, seed: int) -> NDArray[np.int64]:
    """At most so many records of a split, chosen by the seed, in the split's order."""
    places = np.arange(min(most, len(shards)), dtype=np.int64)
    return np.sort(permute(derive_seed(seed, "evaluation"), len(shards), places))
