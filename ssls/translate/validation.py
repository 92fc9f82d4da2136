"""What the model writes of held-out records, beside what the most frequent training report would score."""

# N records, B samples, T tokens of a text

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.order import permute
from src.data.sample import About, Sample
from src.data.shards import Shards
from src.distributed.ranks import Ranks, broadcast_object
from src.evaluation.best import Best
from src.evaluation.features import Door, Records, read_records, unwatched
from src.evaluation.writer import inputs_of
from src.metrics.translation import measure, translation_scores
from src.randomness import derive_seed
from src.text.special import as_labels
from src.text.tokenize import Tokenize
from src.transforms.plain import AnyPreprocessing
from ssls.translate.config import Config
from ssls.translate.model import LABELS

CONSTANT = "constant/"
"""Prefix of the scores of the most frequent training report."""
Alive = Callable[[], object]


@dataclass(frozen=True)
class Reports:
    """The records of a split that have a report, and these."""

    records: Records
    texts: tuple[str, ...]
    """[N]."""
    about: tuple[About, ...]
    """[N]."""

    @property
    def shards(self) -> Shards:
        """Where they are."""
        return self.records.shards

    @property
    def patients_N(self) -> NDArray[np.str_]:
        """Whose they are; a record of which that is not known stands for one."""
        return np.array([told.patient or told.key for told in self.about], np.str_)

    def some(self, most: int, seed: int) -> Reports:
        """At most so many of them, chosen by the seed, in their order."""
        places = np.arange(min(most, len(self.texts)), dtype=np.int64)
        chosen = np.sort(permute(derive_seed(seed, "evaluation"), len(self.texts), places))
        records = replace(self.records, samples_N=self.records.samples_N[chosen])
        return Reports(records, *(tuple(of[place] for place in chosen) for of in (self.texts, self.about)))


def reports_of(shards: Shards, preprocessing: AnyPreprocessing) -> Reports:
    """Every record of the split that has a report.

    Raises:
        ValueError: none has.
    """
    texts = zip(shards.texts(), shards.about(), strict=True)
    told = [(number, text, about) for number, (text, about) in enumerate(texts) if text is not None and text.strip()]
    if not told:
        raise ValueError(f"split {shards.split} of {shards.root} has no report: name another split, or other shards")
    numbers, of_each, about_each = zip(*told, strict=True)
    return Reports(Records(shards, np.array(numbers, np.int64), preprocessing, windows=1), of_each, about_each)


class Translation:
    """Has reports scored and written by an engine; all ranks call its methods alike."""

    def __init__(self, config: Config, tokenize: Tokenize, ranks: Ranks) -> None:
        share = config.data.batch_size // ranks.world_size
        self._batch_size = min(share, config.data.micro_batch_size or share)
        self._tokenize, self._ranks = tokenize, ranks

    def loss(self, engine: Door, reports: Reports, alive: Alive = unwatched) -> float:
        """The cross-entropy of a token, the mean over all tokens of the reports."""

        def read(samples: Sequence[Sample]) -> Tensor:
            ids_BT, keep_BT = self._tokenize([sample["text"] or "" for sample in samples])
            labels = torch.from_numpy(as_labels(ids_BT, keep_BT, self._tokenize.special))
            given = engine({**inputs_of(reports.records, samples), LABELS: labels}, mode="score")
            return torch.stack([given["entropy"], given["tokens"]], dim=1)

        sums_N2 = read_records(read, reports.records, self._batch_size, self._ranks, alive).astype(np.float64)
        entropy, tokens = sums_N2.sum(0)
        return float(entropy / tokens)

    def write(self, engine: Door, reports: Reports, mode: str, alive: Alive = unwatched) -> list[str]:
        """A text for each record; `mode` is greedy or beam."""

        def read(samples: Sequence[Sample]) -> Tensor:
            return engine(inputs_of(reports.records, samples), mode=mode)["ids"]

        ids_NT: NDArray[np.float32] = read_records(read, reports.records, self._batch_size, self._ranks, alive)
        return [self._tokenize.text(ids) for ids in ids_NT.astype(np.int64).tolist()]


class Validation:
    """Scores validation reports every so many steps; follows the score that chooses the weights."""

    note = ""
    embeds = False

    def __init__(
        self, config: Config, translation: Translation, reports: Reports | None, constant: str, ranks: Ranks
    ) -> None:
        """`constant` is the most frequent training report; `reports` is None where nothing is evaluated."""
        self.every, self._translation, self._ranks = config.evaluation.every, translation, ranks
        self._metric, self._constant = config.evaluation.metric, dict[str, float]()
        self.best: Best | None = None
        if reports is None:
            assert self.every is None
            return
        self._reports = reports.some(config.evaluation.samples, config.seed)
        of = f"{self._metric} on {config.evaluation.split}, {len(self._reports.texts)} reports"
        self.best = Best(self._metric != "loss", of, config.evaluation.patience)
        if ranks.first:
            self._constant = _scores([constant] * len(self._reports.texts), self._reports.texts)

    def baseline(self, engine: Door, alive: Alive = unwatched) -> None:
        """A decoder that has learned nothing writes nothing worth a line; the constant answer stands for it."""

    def measure(self, engine: Door, steps: int, alive: Alive = unwatched) -> dict[str, Any]:
        """The cross-entropy of a token, and BLEU and ROUGE of greedy texts, with the constant answer's beside them.

        All ranks get rank 0's record, so that all of them choose and stop alike.
        """
        assert self.best is not None
        begun = time.perf_counter()
        loss = self._translation.loss(engine, self._reports, alive)
        written = self._translation.write(engine, self._reports, "greedy", alive)
        scores = broadcast_object(_scores(written, self._reports.texts) if self._ranks.first else None)
        measured = {"loss_per_token": float(f"{loss:.6g}"), **scores}
        self.best.update(measured["loss_per_token" if self._metric == "loss" else self._metric], steps)
        beside = {f"{CONSTANT}{name}": value for name, value in self._constant.items()}
        record = {"records": len(self._reports.texts), **measured, **beside, "best_step": self.best.step}
        return record | {"alarms": [], "seconds": round(time.perf_counter() - begun, 3)}

    def summary(self, record: dict[str, Any]) -> str:
        """A record in a line, the constant answer's values in brackets."""
        names = {"bleu": "BLEU", "rouge_1": "ROUGE-1", "rouge_l": "ROUGE-L"}
        scores = ", ".join(f"{word} {record[name]:.3g} ({record[CONSTANT + name]:.3g})" for name, word in names.items())
        return (
            f"loss of a token {record['loss_per_token']:.4f}, {scores} (in brackets: of the most frequent training "
            f"report); by {self._metric} the best is step {record['best_step']}"
        )

    def save_embeddings(self, path: Path) -> None:
        raise AssertionError("there are none")


def _scores(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in translation_scores(measure(written, references)).items()}
