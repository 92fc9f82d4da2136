"""BYOL pre-training on ECGs, from top to bottom."""

from __future__ import annotations

from src.data.batches.views import ViewBatch
from src.data.inputs import open_shards, preprocessing_of, sources_of
from src.data.loader import Loader
from src.evaluation.encoder import EncoderPart
from src.evaluation.monitor import Monitor
from src.optimization.schedules import cosine
from src.run.training import TrainingRun
from ssls.byol.config import Config
from ssls.byol.model import AVERAGES, BYOL, ENCODER

ADVICE = {
    "mlp": "stop the run and raise model.teacher.momentum (0.996 is published, closer to 1 for small batches), lower "
    "optimization.lr or lengthen its warm-up; a larger optimization.networks.predictor.lr keeps the predictor ahead",
    "none": "stop the run: without a predictor nothing keeps the projections apart; set model.predictor.kind to mlp",
}
"""What to do about a collapse, by the kind of predictor."""


def main(config: Config, run: TrainingRun) -> None:
    """Train, and export the student's encoder."""
    data, encoder, teacher = config.data, config.model.encoder, config.model.teacher
    shards = open_shards(data)
    preprocessing = preprocessing_of(data, shards, encoder)
    collate = ViewBatch(data, config.pairs, encoder, preprocessing)
    loader = Loader(data, sources_of(data, shards), collate, run.ranks, config.seed)
    engine = run.engine(BYOL(config.model), loader, EncoderPart(ENCODER, encoder, preprocessing))
    monitor = Monitor(config, shards, preprocessing, run.ranks, advice=ADVICE[config.model.predictor.kind])
    momentum = cosine(teacher.momentum, teacher.final_momentum, run.total_steps)
    for step, batch in run.steps(engine, loader, monitor):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        for average, network in AVERAGES.items():
            engine.ema(average, network, momentum(step))
        run.log(step, losses)
    run.finish(engine)
