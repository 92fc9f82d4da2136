"""Fine-tuning of an encoder on labels, or its training from random weights, from top to bottom."""

# B batch, D width, N blocks, K labels or classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from src.data.inputs import InputBatch, sources_of
from src.data.loader import Batch, Loader, Prepare
from src.data.sample import About, Sample
from src.evaluation.encoder import EncoderPart
from src.evaluation.targets import Truth
from src.models.config import TransformerConfig
from src.models.drop_path import kept_branches
from src.randomness import Streams
from src.run.start import Start, open_start
from src.run.training import TrainingRun
from ssls.finetune.config import Config
from ssls.finetune.labels import read_labels
from ssls.finetune.model import BRANCHES, KEPT, LABELS, FineTuned
from ssls.finetune.results import write_results
from ssls.finetune.validation import Validation


class Collate:
    """Samples to a batch: the input [B, C, *sides] by the name of its modality, `labels` [B, K] with NaN where unknown,
    what dropout keeps of the pooled vectors, and the branches that drop path keeps, if they leave out any."""

    def __init__(self, config: Config, start: Start, truth: Truth) -> None:
        self.input = InputBatch(config.data, start.preprocessing, config.seed)
        self.truth, self.encoder, self.dropout = truth, start.encoder, config.model.head.dropout

    @property
    def prepare(self) -> Prepare | None:
        """Decodes a sample where its modality asks for that, and keeps its truth beside."""
        decode = self.input.prepare
        return None if decode is None else lambda sample, streams: self._with_truth(decode(sample, streams), sample)

    def _with_truth(self, decoded: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
        return {**decoded, LABELS: sample["labels"], "meta": sample["meta"]}

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> Batch:
        batch: Batch = self.input(step, samples, streams)
        told = (About(sample["key"], sample["labels"], sample["meta"]) for sample in samples)
        batch[LABELS] = torch.tensor([self.truth.of(about) for about in told], dtype=torch.float32)
        if self.dropout:
            drawn = streams.fork("dropout").uniform("kept", self.encoder.token_width)
            batch[KEPT] = torch.from_numpy(drawn >= self.dropout)
        if isinstance(self.encoder, TransformerConfig) and self.encoder.drop_path:
            batch[BRANCHES] = torch.from_numpy(kept_branches(self.encoder, streams))
        return batch


def main(config: Config, run: TrainingRun) -> None:
    """Train, return to the best weights, score the test sets, and export the encoder."""
    shards, start = open_start(run, config.data, config.model.encoder)
    labels = read_labels(config, run, shards, start.preprocessing)
    collate = Collate(config, start, Truth(shards, labels.target))
    loader = Loader(config.data, sources_of(config.data, shards), collate, run.ranks, config.seed)
    modality, outputs = config.data.transform.modality, len(labels.target.names)
    model = FineTuned(config.model, config.loss, start.encoder, modality, labels.task, outputs, labels.weights_K)
    if start.weights is not None:
        model.encoder.load_state_dict(start.weights)
    engine = run.engine(model, loader, EncoderPart("encoder", start.encoder, start.preprocessing))
    validation = Validation(config, labels.task, labels.validation, start.preprocessing, run.ranks)
    for step, batch in run.steps(engine, loader, validation):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        run.log(step, losses)
    run.return_to_best(engine, validation)
    write_results(config, run, engine, validation, labels, start.preprocessing)
    run.finish(engine)
