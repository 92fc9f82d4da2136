"""Pre-training of an ECG encoder on ECGs and their reports, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from src.data.inputs import InputBatch, open_shards, preprocessing_of, sources_of
from src.data.loader import Batch, Loader
from src.data.shards import Shards
from src.engines.engine import Engine
from src.evaluation.encoder import EncoderPart
from src.evaluation.monitor import Monitor
from src.evaluation.pair import PairPart
from src.evaluation.pair_monitor import RetrievalMonitor
from src.models.config import TransformerConfig
from src.models.drop_path import kept_branches
from src.randomness import Streams
from src.run.tokenizer import tokenizer_of
from src.run.training import TrainingRun
from src.text.tokenize import Tokenize
from src.transforms.plain import AnyPreprocessing
from ssls.meclip.config import Config
from ssls.meclip.model import BRANCHES, MECLIP
from ssls.meclip.reports import DuplicateWatch, Reports

ADVICE = (
    "stop the run and raise data.batch_size, lower optimization.lr or lengthen its warm-up; where duplicate_text_rate "
    "of metrics.jsonl is near 1, there is little to tell apart"
)
"""What to do about a collapse."""


class Collate:
    """Samples to a batch: `ecg` [B, C, T] (with `keep` [B, T] where some end early), what `Reports` gives, and the
    branches [B, depth, 2] that drop path keeps, if it does."""

    def __init__(self, config: Config, preprocessing: AnyPreprocessing, tokenize: Tokenize) -> None:
        self.input = InputBatch(config.data, preprocessing, config.seed)
        self.reports = Reports(tokenize, config.loss)
        self.encoder = config.model.encoder

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> Batch:
        batch = self.input(step, samples, streams) | self.reports(step, samples, streams)
        if isinstance(self.encoder, TransformerConfig) and self.encoder.drop_path:
            batch[BRANCHES] = torch.from_numpy(kept_branches(self.encoder, streams))
        return batch


def main(config: Config, run: TrainingRun) -> None:
    """Train, and leave the ECG encoder and the pair: text tower, heads and tokenizer beside it."""
    data, model = config.data, config.model
    shards = open_shards(data)
    refuse_what_says_nothing(config, shards)
    tokenize = tokenizer_of(run, model.tokenizer, shards)
    preprocessing = preprocessing_of(data, shards, model.encoder)
    loader = Loader(data, sources_of(data, shards), Collate(config, preprocessing, tokenize), run.ranks, config.seed)
    objective = MECLIP(model, config.loss, tokenize.size)
    engine = run.engine(objective, loader, EncoderPart("encoder", model.encoder, preprocessing))
    monitor = Monitor(
        config, shards, preprocessing, run.ranks, advice=ADVICE, also=RetrievalMonitor(tokenize, data.batch_size)
    )
    watch = DuplicateWatch(config.loss, run)
    for step, batch in run.steps(engine, loader, monitor):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        run.log(step, losses, partial(measure, objective, engine, watch, step, batch))
    run.finish(engine, PairPart.of(model.text, model.ecg_head, model.text_head, tokenize))


def measure(
    objective: MECLIP, engine: Engine, watch: DuplicateWatch, step: int, batch: Sequence[Batch]
) -> dict[str, float]:
    """What metrics.jsonl has of a step beside its losses."""
    return watch(step, batch) | objective.scale.told(engine.network("scale"))


def refuse_what_says_nothing(config: Config, shards: Shards) -> None:
    """Shards without reports, or without the labels that `loss.ids` asks for.

    Raises:
        ValueError: says which.
    """
    if not shards.index.texts.get(config.data.split, 0):
        raise ValueError(
            f"no sample of split {config.data.split} in {shards.root} has a report: build the shards with reports "
            "(--text-column)"
        )
    if config.loss.ids == "labels" and not shards.label_names:
        raise ValueError(f"loss.ids is labels, but {shards.root} has none: set it to text or diagnoses")
