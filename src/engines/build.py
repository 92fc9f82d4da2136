"""Which engine a config asks for."""

from __future__ import annotations

from torch import nn

from src.engines.engine import Engine, Setup
from src.engines.replicated import ReplicatedEngine


def build_engine(objective: nn.Module, setup: Setup) -> Engine:
    """The engine around an objective, whose module it takes over; `plain`, `ddp` and `auto` are one engine."""
    if setup.config.name == "fsdp":
        from src.engines.fsdp import FSDPEngine

        return FSDPEngine(objective, setup)
    if setup.config.name == "deepspeed":
        from src.engines.zero import ZeroEngine

        return ZeroEngine(objective, setup)
    return ReplicatedEngine(objective, setup)
