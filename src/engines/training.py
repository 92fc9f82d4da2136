"""A training step, which is the same whatever holds the parameters; engines say where parameters and gradients live."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from src.distributed.ranks import gather_objects
from src.engines.blocks import BuffersKept, prepare_blocks
from src.engines.door import FEATURES, Door
from src.engines.engine import (
    Batch,
    Piece,
    Setup,
    TensorSource,
    autocast,
    check_precision,
    global_means,
    global_weights,
    to_device,
)
from src.engines.scale import LossScale
from src.optimization.ema import update_ema
from src.optimization.groups import parameter_groups
from src.randomness import derive_seed

MOMENTS = ("exp_avg", "exp_avg_sq")
TRAINING_MODES = frozenset({"train", "whole", "contrast"})


class TrainingEngine(ABC):
    """AdamW around an objective: accumulation, one global mean per loss, clipping, skipped steps, state by name."""

    name: ClassVar[str]

    def __init__(self, objective: nn.Module, setup: Setup) -> None:
        self.config, self.optimization, self.ranks = setup.config, setup.optimization, setup.ranks
        self.seed, self.learning_rate, self.weight_decay = setup.seed, setup.learning_rate, setup.weight_decay
        check_precision(self.config, self.ranks.device)
        self.objective = objective
        scalars = [name for name, parameter in objective.named_parameters() if not parameter.ndim]
        assert not scalars, f"FSDP2 and DeepSpeed take no 0-dimensional parameters; make {scalars} vectors of one"
        self.groups = parameter_groups(objective, self.optimization.networks, self.optimization.layer_decay)
        self.trains = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
        self.shapes = {name: tuple(parameter.shape) for name, parameter in objective.named_parameters()}
        self.scale = LossScale(self.config.precision == "fp16")
        self.optimizer_steps = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.skipped_last = False
        self.empty_losses: dict[str, int] = {}
        self.last: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._seen: list[tuple[Tensor, list[str]]] = []
        self._before: dict[str, Tensor] = {}
        self.frozen: dict[str, nn.Module] = {
            name: objective.get_submodule(name) for name in getattr(objective, "frozen_networks", ())
        }
        assert not any(p.requires_grad for network in self.frozen.values() for p in network.parameters()), self.frozen
        self._set_mode(objective, training=True)
        prepare_blocks(objective, self.config, self.ranks.device)
        self.module = self._wrap(Door(objective))

    @abstractmethod
    def _wrap(self, door: Door) -> nn.Module:
        """The module through which training goes; sets up parameters and optimizer."""

    @abstractmethod
    def _backward(self, total: Tensor, last: bool) -> None:
        """Add the gradients of a total; `last` is the step's last."""

    @abstractmethod
    def _update(self) -> float:
        """Clip and update if the gradient is finite, then forget it; returns the global norm before clipping."""

    @abstractmethod
    def _group_settings(self) -> list[dict[str, Any]]:
        """The optimizer's settings of each of `groups`."""

    @abstractmethod
    def _pieces(self) -> Iterator[Piece]:
        """What this rank owns."""

    @abstractmethod
    def load_weights(self, source: TensorSource) -> None: ...

    @abstractmethod
    def _load_moments(self, source: TensorSource) -> None:
        """Moments and step count of every trainable parameter."""

    @abstractmethod
    def network(self, name: str) -> dict[str, Tensor]: ...

    def _held(self, parameter: Tensor) -> Tensor:
        """What this rank holds of a parameter."""
        return parameter

    def _begin(self) -> None:  # noqa: B027 (most engines have nothing to do)
        """Before the first backward of a step."""

    def _accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of a micro-batch."""
        return nullcontext()

    def _entrance(self, train: bool) -> nn.Module:
        """The module to be called, with or without a backward to come."""
        return self.module

    def __call__(self, batch: Batch, mode: str) -> Any:
        training = mode in TRAINING_MODES
        if self.objective.training != training:  # DeepSpeed's own flag never changes
            self._set_mode(self.module, training)
        with autocast(self.config, self.ranks.device):
            entrance = self._entrance(training and torch.is_grad_enabled())
            return entrance(to_device(batch, self.ranks.device), mode=mode)

    def _set_mode(self, module: nn.Module, training: bool) -> None:
        """Frozen networks stay in evaluation: their dropout and running statistics don't change either."""
        module.train(training)
        for network in self.frozen.values():
            network.eval()

    def forward_backward(self, step: int, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        coefficients: dict[str, float] = self.objective.coefficients  # type: ignore[assignment]
        weights = global_weights(self.objective, micro_batches)
        scales = self._scales(weights, coefficients)
        for name in (name for name, weight in weights.items() if not weight):
            self.empty_losses[name] = self.empty_losses.get(name, 0) + 1
        self._weights, self._seen = weights, []
        self._before = {name: buffer.clone() for name, buffer in self.buffers().items()}
        self._begin()
        apart = len(micro_batches) > 1 and getattr(self.objective, "contrastive", False)
        sums = self._apart(step, micro_batches, scales) if apart else self._through(step, micro_batches, scales)
        return global_means(sums, weights, coefficients)

    def _scales(self, weights: dict[str, float], coefficients: dict[str, float]) -> dict[str, float]:
        """By what each loss's sums are multiplied; a loss that counts nothing gives nothing.

        Where no loss counts anything, the gradient is the mean of nothing, not a number, and the step is skipped as any
        other whose gradient is none: weights would decay, and moments and teacher move, for the sake of no sample.
        """
        nothing = 0.0 if any(weights.values()) else math.nan
        return {
            name: coefficients[name] * self.ranks.world_size / weight if weight else nothing
            for name, weight in weights.items()
        }

    def _through(self, step: int, micro_batches: Sequence[Batch], scales: dict[str, float]) -> dict[str, Tensor]:
        """Each micro-batch forward and backward; returns the sums of each loss."""
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with self._accumulating(last):
                self._seed(step, number)
                losses = self(batch, "whole")
                self._backward_of(self._total(losses, scales), batch, last)
            _add(sums, losses)
        return sums

    def _apart(self, step: int, micro_batches: Sequence[Batch], scales: dict[str, float]) -> dict[str, Tensor]:
        """A loss between samples of different micro-batches (gradient caching, Gao et al. 2021, arXiv 2101.06983).

        Features without gradient, the contrast of all of them, then each micro-batch again with its own randomness,
        where its features are pulled along the gradient that the contrast gave them.
        """
        parts: list[dict[str, Tensor]] = []
        for number, batch in enumerate(micro_batches):
            self._seed(step, number)
            with torch.no_grad(), BuffersKept(self.objective):
                parts.append({name: value.detach() for name, value in self(batch, "train")[FEATURES].items()})
        leaves = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        leaves = {name: leaf.requires_grad_(leaf.is_floating_point()) for name, leaf in leaves.items()}
        sums = self._contrast(leaves, scales)
        sizes = [next(iter(part.values())).shape[0] for part in parts]
        pulls = {name: leaf.grad.split(sizes) for name, leaf in leaves.items() if leaf.grad is not None}
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with self._accumulating(last):
                self._seed(step, number)
                found = self(batch, "train")
                features = found.pop(FEATURES)
                pulled = torch.stack([(features[name] * pulls[name][number]).sum() for name in sorted(pulls)]).sum()
                total = pulled + self._total(found, scales) if found else pulled
                self._backward_of(total, batch, last)
            _add(sums, found)
        return sums

    def _contrast(self, leaves: Batch, scales: dict[str, float]) -> dict[str, Tensor]:
        """Sums of the contrast; the leaves get gradients as the next backward is to receive them.

        Without parameters it passes by the backend's hooks: ZeRO's stage 2 fails in a first backward that meets none.
        """
        if getattr(self.objective, "contrast_trains", True):
            with self._accumulating(last=False):
                sums = self(leaves, "contrast")
                self._backward_of(self._total(sums, scales), {"keys": []}, last=False)
            for leaf in leaves.values():
                leaf.grad = None if leaf.grad is None else self._pulls(leaf.grad)
        else:
            with autocast(self.config, self.ranks.device):
                sums = self.objective.forward(leaves, mode="contrast")
            self._total(sums, scales).backward()
        return {name: value.detach() for name, value in sums.items()}

    def _seed(self, step: int, number: int) -> None:
        torch.manual_seed(derive_seed(self.seed, "dropout", step, number, self.ranks.rank))

    def _total(self, losses: dict[str, Tensor], scales: dict[str, float]) -> Tensor:
        return self._scaled(torch.stack([losses[name] * scales[name] for name in sorted(losses)]).sum())

    def _scaled(self, total: Tensor) -> Tensor:
        """Multiplied by the loss scale, unless the backend does it."""
        return total * self.scale.value

    def _pulls(self, gradient: Tensor) -> Tensor:
        """A gradient as the next backward is to receive it: without the loss scale, if the backend adds it again."""
        return gradient

    def _backward_of(self, total: Tensor, batch: Batch, last: bool) -> None:
        self._backward(total, last)
        self._seen.append((total.detach(), batch["keys"]))

    def step(self, step: int) -> None:
        rate, decay = self.learning_rate(step), self.weight_decay(step)
        for group, settings in zip(self.groups, self._group_settings(), strict=True):
            settings["lr"], settings["weight_decay"] = rate * group.lr, decay * group.weight_decay
        norm = self._update()
        finite = math.isfinite(norm)
        self.skipped_last = not finite
        self.last = {f"lr/{group.name}": rate * group.lr for group in self.groups}
        self.last |= {"weight_decay": decay, "grad_norm": norm} | {
            f"weight_decay/{group.name}": decay * group.weight_decay
            for group in self.groups
            if group.name in self.optimization.networks
        }
        if self.scale.active:
            self.last["loss_scale"] = self.scale.value
        if finite:
            self.optimizer_steps += 1
            self.skipped_in_a_row = 0
        else:
            self._skip(step)
        if any(self._weights.values()):
            self.scale.update(finite)

    def _skip(self, step: int) -> None:
        """The norm is the same on all ranks, so all of them skip, and all stop together after too many in a row.

        Running statistics have seen the batch already, and take a step back.
        """
        for name, buffer in self.buffers().items():
            buffer.copy_(self._before[name])
        self.skipped += 1
        if self.scale.exhausted or not self.scale.active:
            self.skipped_in_a_row += 1
        if self.skipped_in_a_row < self.optimization.max_skipped:
            return
        if not any(self._weights.values()):
            raise ValueError(
                f"step {step}: for {self.skipped_in_a_row} steps in a row no loss counted anything of its batch "
                "(optimization.max_skipped): raise data.batch_size, or look at what the samples lack"
            )
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
        assert target not in self.frozen, f"{target} is an average and changes; it can't be frozen"
        self.last["momentum"] = momentum
        if not self.skipped_last:
            networks = self.objective.get_submodule(target), self.objective.get_submodule(source)
            update_ema(*networks, momentum, self._held)

    def metrics(self) -> dict[str, float]:
        weights = {f"weight/{name}": weight for name, weight in self._weights.items()}
        empty = {f"empty_steps/{name}": steps for name, steps in self.empty_losses.items()}
        return self.last | weights | empty | {"skipped_steps": self.skipped}

    def state(self) -> dict[str, Any]:
        scale = {"loss_scale": self.scale.state()} if self.scale.active else {}
        return {
            "skipped_steps": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "empty_losses": self.empty_losses,
        } | scale

    def load(self, source: TensorSource) -> None:
        self.load_weights(source)
        self.optimizer_steps = source.optimizer_steps
        self.skipped = source.state["skipped_steps"]
        self.skipped_in_a_row = source.state["skipped_in_a_row"]
        self.empty_losses = dict(source.state["empty_losses"])
        self.scale.load(source.state.get("loss_scale"))
        for kind in MOMENTS:
            same_names(source, kind, set(self.trains) if self.optimizer_steps else set())
        if self.optimizer_steps:
            self._load_moments(source)

    def pieces(self) -> Iterator[Piece]:
        for piece in self._pieces():
            yield replace(piece, frozen=any(piece.name.startswith(f"{name}.") for name in self.frozen))

    def buffers(self) -> dict[str, Tensor]:
        """Persistent buffers, by name; those that the code can compute again are left out."""
        passing = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.objective.named_modules()
            for name in module._non_persistent_buffers_set
        }
        return {name: buffer for name, buffer in self.objective.named_buffers() if name not in passing}

    def own_share(self, kind: str, name: str, tensor: Tensor) -> Iterator[Piece]:
        """This rank's W-th part of a tensor that every rank holds, so that all write in parallel."""
        rank, world_size, count = self.ranks.rank, self.ranks.world_size, tensor.numel()
        start, end = count * rank // world_size, count * (rank + 1) // world_size
        if start < end:
            yield Piece(kind, name, tuple(tensor.shape), start, tensor.detach().reshape(-1)[start:end])

    @torch.no_grad()
    def load_buffers(self, source: TensorSource) -> None:
        """Every rank reads every buffer."""
        held = self.buffers()
        same_names(source, "buffer", set(held))
        for name, buffer in held.items():
            buffer.copy_(source.read("buffer", name, tuple(buffer.shape)))


def same_names(source: TensorSource, kind: str, wanted: set[str]) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        ValueError: names tensors that are missing or too many.
    """
    found = source.names(kind)
    if wanted != found:
        missing, extra = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        raise ValueError(
            f"{source.folder} does not fit the model: of kind {kind} it lacks {missing or 'nothing'} and has "
            f"{extra or 'nothing'} too many; give the config that it was trained with"
        )


def _add(sums: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    for name, loss in losses.items():
        sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()
