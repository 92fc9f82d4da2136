"""JEPA pre-training on ECGs, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.batches.ecg import ECGBatch
from src.data.ecg_shards import ECGShards, ecg_sources
from src.data.loader import Batch, Loader
from src.data.sample import Sample
from src.data.synthetic import make_synthetic
from src.evaluation.encoder import EncoderPart
from src.evaluation.monitor import Monitor
from src.masks.sampler import MaskSampler
from src.optimization.schedules import linear
from src.randomness import Streams, derive_seed
from src.run.training import TrainingRun
from ssls.jepa.config import Config
from ssls.jepa.model import JEPA, mask_names

ADVICE = (
    "stop the run and raise model.teacher.momentum (0.996 and more are published, closer to 1 for small batches), "
    "lower optimization.lr or lengthen its warm-up; if the loss is near 0, mask more with mask.target_scale"
)


class Collate:
    """Samples to a batch: ecg [B, C, T], and for each kind of mask its context [B, K] and targets [B, M, N], token
    indices both."""

    def __init__(self, config: Config, shards: ECGShards) -> None:
        self.preprocessing = shards.preprocessing(config.data.transform, config.model.encoder.length)
        self.ecg = ECGBatch(config.data.transform, self.preprocessing, config.seed)
        kinds = (config.mask, *config.more_masks)
        seeds = [config.seed, *(derive_seed(config.seed, f"mask {kind}") for kind in range(1, len(kinds)))]
        grid = config.model.encoder.grid
        self.masks = [MaskSampler(kind, grid, seed) for kind, seed in zip(kinds, seeds, strict=True)]
        self.names = mask_names(len(kinds))

    def __call__(self, step: int, samples: Sequence[Sample], streams: Streams) -> Batch:
        batch = {"ecg": self.ecg(step, samples, streams)["ecg"]}
        for kind, (name, sampler) in enumerate(zip(self.names, self.masks, strict=True)):
            masks = sampler(step, streams.fork("mask" if kind == 0 else f"mask {kind}"))
            batch[name.context] = torch.from_numpy(masks.context_BK)
            batch[name.targets] = torch.from_numpy(masks.targets_BMT)
        return batch


def main(config: Config, run: TrainingRun) -> None:
    """Train, and export the teacher."""
    if config.data.synthetic is not None:
        make_synthetic(Path(config.data.root), config.data.synthetic, config.data.leads)
    data, encoder, teacher = config.data, config.model.encoder, config.model.teacher
    shards = ECGShards(data.root, data.split, data.leads, data.cache)
    collate = Collate(config, shards)
    loader = Loader(data, ecg_sources(data, shards), collate, run.ranks, config.seed)
    part = EncoderPart("teacher", encoder, collate.preprocessing)
    engine = run.engine(JEPA(config.model, config.loss, 1 + len(config.more_masks)), loader, part)
    monitor = Monitor(config, shards, collate.preprocessing, run.ranks, config.loss.kind, ADVICE)
    momentum = linear(teacher.momentum, teacher.final_momentum, run.total_steps)
    for step, batch in run.steps(engine, loader, monitor):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        engine.ema("teacher", "student", momentum(step))
        run.log(step, losses)
    run.finish(engine)
