"""Engines that hold the whole model on every rank: `plain` (one process) and `ddp` (DistributedDataParallel)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.engines.adamw import AdamWEngine
from src.engines.door import Door
from src.engines.engine import Piece, TensorSource
from src.engines.training import MOMENTS, same_names

# torch 2.13 renamed DDP's argument and warns of the old name; 2.11 has the old one alone.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class ReplicatedEngine(AdamWEngine):
    """AdamW on a full copy of the objective; gradients are averaged by DDP when there is more than one rank."""

    @property
    def name(self) -> str:  # type: ignore[override]
        return "ddp" if self.ranks.world_size > 1 else "plain"

    def _wrap(self, door: Door) -> nn.Module:
        """The objective, in DDP where there is more than one rank.

        find_unused_parameters keeps the gradient buckets as they are at the start: DDP otherwise rearranges them after
        the first backward, so that a resumed run adds up the ranks in another order than one that went on, and from
        three ranks up differs in the last bit. Buffers belong to the objective and are not broadcast.
        """
        self.door = door.to(self.ranks.device)
        self._optimize(fused=True)
        if self.ranks.world_size == 1:
            return self.door
        unsynced: dict[str, Any] = {SYNC_BUFFERS: False}
        return DistributedDataParallel(
            self.door,
            device_ids=[self.ranks.device] if self.ranks.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=True,
            **unsynced,
        )

    def _accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged in the last micro-batch's backward only."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()

    def _entrance(self, train: bool) -> nn.Module:
        """DDP's wrapper arms its reducer for a backward; without one to come, the bare module is called."""
        return self.module if train else self.door

    def _pieces(self) -> Iterator[Piece]:
        """Every rank could write everything; each writes its W-th part of every tensor, in parallel."""
        for name, parameter in self.parameters.items():
            yield from self.own_share("model", name, parameter)
        for name, buffer in self.buffers().items():
            yield from self.own_share("buffer", name, buffer)
        for name, parameter in self.trainable.items():
            for kind in MOMENTS if self.optimizer_steps else ():
                yield from self.own_share(kind, name, self.optimizer.state[parameter][kind])

    @torch.no_grad()
    def load_weights(self, source: TensorSource) -> None:
        self.load_buffers(source)
        same_names(source, "model", set(self.parameters))
        for name, parameter in self.parameters.items():
            parameter.copy_(source.read("model", name, tuple(parameter.shape)))

    def _load_moments(self, source: TensorSource) -> None:
        for name, parameter in self.trainable.items():
            moments = {kind: source.read(kind, name, tuple(parameter.shape)).to(parameter) for kind in MOMENTS}
            count = torch.tensor(float(self.optimizer_steps), device=parameter.device)
            self.optimizer.state[parameter] = {"step": count, **moments}

    def network(self, name: str) -> dict[str, Tensor]:
        return {
            key: value.detach().cpu().clone() for key, value in self.objective.get_submodule(name).state_dict().items()
        }
