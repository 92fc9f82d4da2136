"""Training of a decoder on reports, with its encoder or on a frozen one, from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from src.data.inputs import InputBatch, shards_for, sources_of
from src.data.loader import Batch, Loader, Prepare
from src.data.sample import Sample
from src.distributed.ranks import broadcast_object
from src.evaluation.encoder import EncoderPart
from src.evaluation.targets import on_other_splits, refuse_shared_patients
from src.metrics.translation import constant_answer
from src.models.config import TransformerConfig
from src.models.drop_path import kept_branches
from src.randomness import Streams
from src.run.start import Start, open_start
from src.run.tokenizer import tokenizer_of
from src.run.training import TrainingRun
from src.text.special import as_labels
from src.text.tokenize import Tokenize
from ssls.translate.config import Config
from ssls.translate.model import BRANCHES, LABELS, PARALLEL, Translator
from ssls.translate.results import write_results
from ssls.translate.validation import Reports, Translation, Validation, reports_of


class Collate:
    """Samples to a batch: the input [B, C, *sides] by the name of its modality, and `labels` [B, T] of their reports.

    Beside them which texts are predicted in parallel, and the branches of the encoder that drop path keeps, if any.
    """

    def __init__(self, config: Config, start: Start, tokenize: Tokenize) -> None:
        self.input = InputBatch(config.data, start.preprocessing, config.seed)
        self.tokenize, self.special, self.encoder = tokenize, tokenize.special, start.encoder
        self.parallel, self.frozen = config.model.decoder.parallel, config.model.frozen

    @property
    def prepare(self) -> Prepare | None:
        """Decodes a sample where its modality asks for that, and keeps its report beside."""
        decode = self.input.prepare
        return None if decode is None else lambda sample, streams: self._with_text(decode(sample, streams), sample)

    def _with_text(self, decoded: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
        return {**decoded, "text": sample["text"]}

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> Batch:
        batch: Batch = self.input(step, samples, streams)
        ids_BT, keep_BT = self.tokenize([sample["text"] or "" for sample in samples])
        batch[LABELS] = torch.from_numpy(as_labels(ids_BT, keep_BT, self.special))
        if self.parallel:
            batch[PARALLEL] = torch.from_numpy(streams.fork("parallel").uniform("drawn") < self.parallel)
        if isinstance(self.encoder, TransformerConfig) and self.encoder.drop_path and not self.frozen:
            batch[BRANCHES] = torch.from_numpy(kept_branches(self.encoder, streams))
        return batch


def main(config: Config, run: TrainingRun) -> None:
    """Train, return to the best weights, translate the test sets, and export encoder, decoder and tokenizer."""
    shards, start = open_start(run, config.data, config.model.encoder)
    tokenize = tokenizer_of(run, config.model.tokenizer, shards)
    held_out = open_reports(config, start)
    if run.ranks.first and config.tests:
        refuse_known_patients(held_out, reports_of(shards, start.preprocessing))
    loader = Loader(
        config.data, sources_of(config.data, shards), Collate(config, start, tokenize), run.ranks, config.seed
    )
    modality = config.data.transform.modality
    model = Translator(config.model, config.loss, config.generation, start.encoder, modality, tokenize.special)
    if start.weights is not None:
        model.encoder.load_state_dict(start.weights)
    engine = run.engine(model, loader, EncoderPart("encoder", start.encoder, start.preprocessing))
    constant = broadcast_object(constant_answer(shards.texts()) if run.ranks.first else None)
    translation = Translation(config, tokenize, run.ranks)
    validation = Validation(config, translation, held_out.get("validation"), constant, run.ranks)
    for step, batch in run.steps(engine, loader, validation):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        run.log(step, losses)
    run.return_to_best(engine, validation)
    write_results(config, run, engine, model.decoder, tokenize, translation, held_out, constant)
    run.finish(engine)


def open_reports(config: Config, start: Start) -> dict[str, Reports]:
    """Those of the validation split, if there are evaluations, and of the test sets, by name."""
    data, evaluation = config.data, config.evaluation
    places = {} if evaluation.every is None else {"validation": (data.root, evaluation.split)}
    places |= {name: (test.root or data.root, test.split) for name, test in config.tests.items()}
    return {
        name: reports_of(shards_for(start.preprocessing, root, split, data.cache), start.preprocessing)
        for name, (root, split) in places.items()
    }


def refuse_known_patients(held_out: Mapping[str, Reports], training: Reports) -> None:
    """Test sets with patients of the training split, or of a validation split that is another one.

    Raises:
        ValueError: one has.
    """
    tests = {name: reports for name, reports in held_out.items() if name != "validation"}
    refuse_shared_patients([training], tests, "tests")
    if (validation := held_out.get("validation")) is not None:
        refuse_shared_patients([validation], on_other_splits(validation, tests), "tests")
