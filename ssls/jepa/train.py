"""JEPA pre-training on ECGs, images, videos or CT volumes, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from src.config.inputs import pads
from src.data.inputs import InputBatch, open_shards, preprocessing_of, sources_of
from src.data.loader import Batch, Loader, Prepare
from src.evaluation.encoder import EncoderPart
from src.evaluation.monitor import Monitor
from src.losses.config import SIGRegConfig
from src.masks.block import on_all
from src.masks.sampler import MaskSampler
from src.models.config import LeadEncoderConfig, TransformerConfig
from src.models.drop_path import kept_branches
from src.optimization.schedules import linear
from src.randomness import Streams, derive_seed
from src.run.training import TrainingRun
from src.transforms.plain import AnyPreprocessing
from ssls.jepa.config import Config
from ssls.jepa.model import JEPA, STEP, mask_names

ADVICE = {
    "ema": "stop the run and raise model.teacher.momentum (0.996 and more are published, closer to 1 for small "
    "batches), lower optimization.lr or lengthen its warm-up; if the loss is near 0, mask more with mask.target_scale",
    "none": "stop the run and raise the weight of loss.regularizer, raise data.batch_size, or lower optimization.lr",
}
"""What to do about a collapse, by the kind of teacher."""


class Collate:
    """Samples to a batch: the input [B, C, *sides] by the name of its modality, and for each kind of mask its context
    [B, K] and targets [B, M, N], token indices both, and the branches [B, depth, 2] that drop path keeps, if it does.
    A regulariser's batch says its step [B] too, and one with ECGs that end early has `keep` [B, T].

    Where tokens are of one lead, masks are drawn over time and are the same on all leads (Kim, arXiv 2410.08559).
    """

    def __init__(self, config: Config, preprocessing: AnyPreprocessing) -> None:
        self.input = InputBatch(config.data, preprocessing, config.seed)
        kinds = (config.mask, *config.more_masks)
        seeds = [config.seed, *(derive_seed(config.seed, f"mask {kind}") for kind in range(1, len(kinds)))]
        self.encoder, grid = config.model.encoder, config.model.encoder.grid
        self.leads = grid[0] if isinstance(self.encoder, LeadEncoderConfig) else 1
        grid = grid[1:] if isinstance(self.encoder, LeadEncoderConfig) else grid
        self.masks = [MaskSampler(kind, grid, seed) for kind, seed in zip(kinds, seeds, strict=True)]
        self.names = mask_names(len(kinds))
        self.tells_step = isinstance(config.loss.regularizer, SIGRegConfig)

    @property
    def prepare(self) -> Prepare | None:
        return self.input.prepare

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> Batch:
        batch = self.input(step, samples, streams)
        if self.tells_step:
            batch[STEP] = torch.full((len(samples),), step)
        for kind, (name, sampler) in enumerate(zip(self.names, self.masks, strict=True)):
            of_kind = streams.fork("mask" if kind == 0 else f"mask {kind}")
            masks = sampler(step, of_kind)
            batch[name.context] = torch.from_numpy(on_all(masks.context_BK, self.leads, sampler.length))
            batch[name.targets] = torch.from_numpy(on_all(masks.targets_BMT, self.leads, sampler.length))
            if isinstance(self.encoder, TransformerConfig) and self.encoder.drop_path:
                batch[name.branches] = torch.from_numpy(kept_branches(self.encoder, of_kind))
        return batch


def main(config: Config, run: TrainingRun) -> None:
    """Train, and export the teacher, or without one the student."""
    data, encoder, teacher = config.data, config.model.encoder, config.model.teacher
    shards = open_shards(data)
    preprocessing = preprocessing_of(data, shards, encoder)
    loader = Loader(data, sources_of(data, shards), Collate(config, preprocessing), run.ranks, config.seed)
    kinds, padded = 1 + len(config.more_masks), pads(data)
    model = JEPA(config.model, config.loss, kinds, data.transform.modality, config.seed, padded)
    engine = run.engine(model, loader, EncoderPart(model.exported, encoder, preprocessing))
    monitor = Monitor(config, shards, preprocessing, run.ranks, config.loss.kind, ADVICE[teacher.kind])
    momentum = linear(teacher.momentum, teacher.final_momentum, run.total_steps)
    for step, batch in run.steps(engine, loader, monitor):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        if teacher.kind == "ema":
            engine.ema("teacher", "student", momentum(step))
        run.log(step, losses)
    run.finish(engine)
