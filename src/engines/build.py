"""Which engine a config asks for."""

from __future__ import annotations

from torch import nn

from src.config.sections import EngineConfig, OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.engine import Engine
from src.engines.replicated import ReplicatedEngine
from src.optimization.schedules import Schedule


def build_engine(
    objective: nn.Module,
    config: EngineConfig,
    optimization: OptimizationConfig,
    ranks: Ranks,
    seed: int,
    learning_rate: Schedule,
    weight_decay: Schedule,
) -> Engine:
    """The engine around an objective; takes the module over."""
    return ReplicatedEngine(objective, config, optimization, ranks, seed, learning_rate, weight_decay)
