"""The door to a module that is not trained: each rank has a copy and embeds its share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from src.config.engine import EngineConfig
from src.distributed.ranks import Ranks
from src.engines.engine import Batch, autocast, check_precision, to_device


class FrozenEngine:
    """A module on the rank's device, without gradients, in the config's precision.

    Raises:
        ValueError: the config asks for an engine that shards.
    """

    def __init__(self, module: nn.Module, config: EngineConfig, ranks: Ranks) -> None:
        if config.name in ("fsdp", "deepspeed"):
            raise ValueError(
                f"engine.name is {config.name}, but a frozen encoder is whole in every process; remove it or set auto"
            )
        check_precision(config, ranks.device)
        self.config, self.ranks = config, ranks
        self.module = module.to(ranks.device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: Batch, mode: str) -> Any:
        """The module's forward in the given mode."""
        with autocast(self.config, self.ranks.device):
            return self.module(to_device(batch, self.ranks.device), mode=mode)
