"""SimCLR pre-training on ECGs, from top to bottom."""

from __future__ import annotations

from functools import partial

from src.data.batches.views import ViewBatch
from src.data.inputs import open_shards, preprocessing_of, sources_of
from src.data.loader import Loader
from src.engines.engine import Engine
from src.evaluation.encoder import EncoderPart
from src.evaluation.monitor import Monitor
from src.run.training import TrainingRun
from ssls.simclr.config import Config
from ssls.simclr.model import ENCODER, SimCLR

ADVICE = (
    "stop the run and raise loss.temperature (0.1 is published, higher asks less of near negatives), raise "
    "data.batch_size for more negatives, or lower optimization.lr; if the loss is near 0, the views are told apart too "
    "easily: add augmentations in data.transform"
)
"""What to do about a collapse."""


def main(config: Config, run: TrainingRun) -> None:
    """Train, and export the encoder without its projection."""
    data, encoder = config.data, config.model.encoder
    shards = open_shards(data)
    preprocessing = preprocessing_of(data, shards, encoder)
    collate = ViewBatch(data, config.pairs, encoder, preprocessing)
    loader = Loader(data, sources_of(data, shards), collate, run.ranks, config.seed)
    model = SimCLR(config.model, config.loss)
    engine = run.engine(model, loader, EncoderPart(ENCODER, encoder, preprocessing))
    monitor = Monitor(config, shards, preprocessing, run.ranks, advice=ADVICE)
    for step, batch in run.steps(engine, loader, monitor):
        losses = engine.forward_backward(step, batch)
        engine.step(step)
        run.log(step, losses, partial(measure, model, engine) if config.loss.learn_temperature else None)
    run.finish(engine)


def measure(model: SimCLR, engine: Engine) -> dict[str, float]:
    """What metrics.jsonl has of a step beside its loss, where the temperature is learned."""
    return model.scale.told(engine.network("scale"))
