"""Engines that hold the whole model on every rank: `plain` (one process) and `ddp` (DistributedDataParallel)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from src.distributed.ranks import gather_objects
from src.engines.engine import Batch, Piece, Setup, TensorSource, autocast, global_means, global_weights, to_device
from src.optimization.ema import update_ema
from src.optimization.groups import parameter_groups
from src.randomness import derive_seed

MOMENTS = ("exp_avg", "exp_avg_sq")
# torch 2.13 renamed DDP's argument and warns of the old name; 2.11 has the old one alone.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class ReplicatedEngine:
    """AdamW on a full copy of the objective; gradients are averaged by DDP when there is more than one rank."""

    def __init__(self, objective: nn.Module, setup: Setup) -> None:
        self.config, self.optimization, self.ranks = setup.config, setup.optimization, setup.ranks
        self.seed, self.learning_rate, self.weight_decay = setup.seed, setup.learning_rate, setup.weight_decay
        self.name = "ddp" if self.ranks.world_size > 1 else "plain"
        self.objective = objective.to(self.ranks.device)
        self.module = self._wrap()
        self.parameters = dict(self.objective.named_parameters())
        self.trainable = {name: p for name, p in self.parameters.items() if p.requires_grad}
        self.groups = parameter_groups(self.objective)
        self.optimizer = torch.optim.AdamW(
            [{"params": [self.parameters[name] for name in group.parameters]} for group in self.groups],
            lr=self.optimization.lr,
            betas=self.optimization.betas,
            eps=self.optimization.eps,
            fused=True,
        )
        self.optimizer_steps = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.empty_losses: dict[str, int] = {}
        self.last: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._seen: list[tuple[Tensor, list[str]]] = []

    def _wrap(self) -> nn.Module:
        """The objective, in DDP where there is more than one rank.

        find_unused_parameters keeps the gradient buckets as they are at the start: DDP otherwise rearranges them after
        the first backward, so that a resumed run adds up the ranks in another order than one that went on, and from
        three ranks up differs in the last bit. Buffers belong to the objective and are not broadcast.
        """
        if self.ranks.world_size == 1:
            return self.objective
        unsynced: dict[str, Any] = {SYNC_BUFFERS: False}
        return DistributedDataParallel(
            self.objective,
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

    def __call__(self, batch: Batch, mode: str) -> Any:
        # DDP's wrapper arms its reducer for a backward; without one to come, the bare objective is called.
        module = self.module if mode == "train" and torch.is_grad_enabled() else self.objective
        if self.objective.training != (mode == "train"):
            self.objective.train(mode == "train")
        with autocast(self.config, self.ranks.device):
            return module(to_device(batch, self.ranks.device), mode=mode)

    def forward_backward(self, step: int, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        coefficients: dict[str, float] = self.objective.coefficients  # type: ignore[assignment]
        weights = global_weights(self.objective, micro_batches)
        scales = {
            name: coefficients[name] * self.ranks.world_size / weight if weight else 0.0
            for name, weight in weights.items()
        }
        for name in (name for name, weight in weights.items() if not weight):
            self.empty_losses[name] = self.empty_losses.get(name, 0) + 1
        self._weights = weights
        sums: dict[str, Tensor] = {}
        self._seen = []
        for number, batch in enumerate(micro_batches):
            torch.manual_seed(derive_seed(self.seed, "dropout", step, number, self.ranks.rank))
            with self._accumulating(last=number == len(micro_batches) - 1):
                losses = self(batch, mode="train")
                total = torch.stack([losses[name] * scales[name] for name in sorted(losses)]).sum()
                total.backward()
            self._seen.append((total.detach(), batch["keys"]))
            for name, loss in losses.items():
                sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()
        return global_means(sums, weights, coefficients)

    def step(self, step: int) -> None:
        gradients = self._gradients()
        total = get_total_norm(gradients)
        norm = total.item()
        for group, settings in zip(self.groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = self.learning_rate(step)
            settings["weight_decay"] = self.weight_decay(step) if group.decays else 0.0
        self.last = {f"lr/{group.name}": self.learning_rate(step) for group in self.groups}
        self.last |= {"weight_decay": self.weight_decay(step), "grad_norm": norm}
        if math.isfinite(norm):
            if self.optimization.clip is not None:
                clip_grads_with_norm_(self.trainable.values(), self.optimization.clip, total)
            self.optimizer.step()
            self.optimizer_steps += 1
            self.skipped_in_a_row = 0
        else:
            self._skip(step)
        self.optimizer.zero_grad(set_to_none=True)

    def _gradients(self) -> list[Tensor]:
        """Every trainable parameter's gradient, zeros where the step did not touch it."""
        for parameter in self.trainable.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.trainable.values() if parameter.grad is not None]

    def _skip(self, step: int) -> None:
        """The norm is the same on all ranks, so all of them skip, and all stop together after too many in a row."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row < self.optimization.max_skipped:
            return
        suspects = [key for total, keys in self._seen if not torch.isfinite(total) for key in keys]
        named = [
            f"rank {rank}: {', '.join(keys[:8])}{' ...' if len(keys) > 8 else ''}"
            for rank, keys in enumerate(gather_objects(suspects))
            if keys
        ]
        where = "; ".join(named) if named else "every loss was finite, so the backward overflowed"
        raise ValueError(
            f"step {step}: the gradient was not finite for {self.skipped_in_a_row} steps in a row "
            f"(optimization.max_skipped); last seen in {where}; lower optimization.lr, set optimization.clip or look "
            f"at these samples"
        )

    def ema(self, target: str, source: str, momentum: float) -> None:
        self.last["momentum"] = momentum
        if not self.skipped_in_a_row:
            update_ema(self.objective.get_submodule(target), self.objective.get_submodule(source), momentum)

    def metrics(self) -> dict[str, float]:
        weights = {f"weight/{name}": weight for name, weight in self._weights.items()}
        empty = {f"empty_steps/{name}": steps for name, steps in self.empty_losses.items()}
        return self.last | weights | empty | {"skipped_steps": self.skipped}

    def state(self) -> dict[str, Any]:
        return {
            "skipped_steps": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "empty_losses": self.empty_losses,
        }

    def _buffers(self) -> dict[str, Tensor]:
        """Persistent buffers, by name; those that the code can compute again are left out."""
        passing = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.objective.named_modules()
            for name in module._non_persistent_buffers_set
        }
        return {name: buffer for name, buffer in self.objective.named_buffers() if name not in passing}

    def pieces(self) -> Iterator[Piece]:
        """Every rank could write everything; each writes its W-th part of every tensor, in parallel."""
        for name, parameter in self.parameters.items():
            yield from self._own("model", name, parameter)
        for name, buffer in self._buffers().items():
            yield from self._own("buffer", name, buffer)
        for name, parameter in self.trainable.items():
            for kind in MOMENTS if self.optimizer_steps else ():
                yield from self._own(kind, name, self.optimizer.state[parameter][kind])

    def _own(self, kind: str, name: str, tensor: Tensor) -> Iterator[Piece]:
        rank, world_size, count = self.ranks.rank, self.ranks.world_size, tensor.numel()
        start, end = count * rank // world_size, count * (rank + 1) // world_size
        if start < end:
            yield Piece(kind, name, tuple(tensor.shape), start, tensor.detach().reshape(-1)[start:end])

    @torch.no_grad()
    def load_weights(self, source: TensorSource) -> None:
        for kind, held in (("model", self.parameters), ("buffer", self._buffers())):
            _same_names(source, kind, set(held))
            for name, tensor in held.items():
                tensor.copy_(source.read(kind, name, tuple(tensor.shape)))

    def load(self, source: TensorSource) -> None:
        self.load_weights(source)
        self.optimizer_steps = source.optimizer_steps
        self.skipped = source.state["skipped_steps"]
        self.skipped_in_a_row = source.state["skipped_in_a_row"]
        self.empty_losses = dict(source.state["empty_losses"])
        for kind in MOMENTS:
            _same_names(source, kind, set(self.trainable) if self.optimizer_steps else set())
        if not self.optimizer_steps:
            return
        for name, parameter in self.trainable.items():
            moments = {kind: source.read(kind, name, tuple(parameter.shape)).to(parameter) for kind in MOMENTS}
            count = torch.tensor(float(self.optimizer_steps), device=parameter.device)
            self.optimizer.state[parameter] = {"step": count, **moments}

    def network(self, name: str) -> dict[str, Tensor]:
        return {
            key: value.detach().cpu().clone() for key, value in self.objective.get_submodule(name).state_dict().items()
        }


def _same_names(source: TensorSource, kind: str, wanted: set[str]) -> None:
    found = source.names(kind)
    if wanted != found:
        missing, extra = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        raise ValueError(
            f"{source.folder} does not fit the model: of kind {kind} it lacks {missing or 'nothing'} and has "
            f"{extra or 'nothing'} too many; give the config that it was trained with"
        )
