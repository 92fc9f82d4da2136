"""JEPA pre-training on ECGs, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.loader import Batch, Loader
from src.data.shards import Sample, Shards
from src.data.synthetic import make_synthetic
from src.masks.sampler import MaskSampler
from src.optimization.schedules import linear
from src.randomness import Streams
from src.run.run import Run
from src.transforms.ecg import ECGTransform
from ssls.jepa.config import Config
from ssls.jepa.model import JEPA


class Collate:
    """Samples to a batch: ecg [B, C, T], context [B, K] and targets [B, M, N], both token indices."""

    def __init__(self, config: Config, shards: Shards) -> None:
        encoder = config.model.encoder
        self.transform = ECGTransform(
            config.data.transform, encoder.length, shards.sampling_rate, shards.mean_C, shards.std_C
        )
        self.masks = MaskSampler(config.mask, encoder.grid, config.seed)

    def __call__(self, step: int, samples: Sequence[Sample], streams: Streams) -> Batch:
        masks = self.masks(step, streams.fork("mask"))
        return {
            "ecg": torch.from_numpy(self.transform(samples, streams.fork("transform"))),
            "context": torch.from_numpy(masks.context_BK),
            "targets": torch.from_numpy(masks.targets_BMT),
        }


def main(config: Config, run: Run) -> None:
    """Train, and export the teacher."""
    if config.data.synthetic is not None:
        make_synthetic(Path(config.data.root), config.data.synthetic, config.data.leads)
    shards = Shards(config.data.root, config.data.split, config.data.leads)
    loader = Loader(config.data, shards, Collate(config, shards), run.ranks, config.seed)
    engine = run.engine(JEPA(config.model, config.loss), loader)
    teacher = config.model.teacher
    momentum = linear(teacher.momentum, teacher.final_momentum, run.total_steps)
    for step, batch in run.steps(engine, loader):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        engine.ema("teacher", "student", momentum(step))
        run.log(step, losses)
    run.finish(engine, "teacher", config.model.encoder)
