"""What every engine offers, and the arithmetic that all of them share.

The contract with an objective (one nn.Module that holds everything with state):

* `objective(batch, mode="train") -> {name: sum}`, `objective.weights(batch) -> {name: float}` counts what each sum runs
  over from the batch alone, `objective.coefficients: {name: c}` comes from the config;
* the engine sums the weights over micro-batches and ranks before the first backward and backpropagates
  sum_k c_k * S_k * world / W_k, so that the gradient, after the backends' averaging, is that of one process with one
  big batch, whatever the micro-batches and ranks and however unequal their counts; W_k = 0 gives 0 and a count, and a
  step of which all are 0 is skipped;
* an objective with a loss between samples says `contrastive = True` (src/engines/door.py): the features of all
  micro-batches are then contrasted together;
* an objective with networks that never change lists them as `frozen_networks`, and checkpoints write them once a run;
* every trainable parameter gets a gradient, zeros if unused: backends differ on missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks, sum_over_ranks
from src.optimization.schedules import Schedule

Batch = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A contiguous range of one flattened tensor, as its owner holds it."""

    kind: str
    """model, buffer, exp_avg or exp_avg_sq."""
    name: str
    shape: tuple[int, ...]
    start: int
    values: Tensor
    """1-D, the elements [start, start + numel) of the flattened tensor."""
    frozen: bool = False
    """Of a network that never changes, which is written once a run."""


class TensorSource(Protocol):
    """Where a checkpoint's tensors are read from."""

    @property
    def folder(self) -> Path: ...

    @property
    def optimizer_steps(self) -> int: ...

    @property
    def state(self) -> dict[str, Any]: ...

    def names(self, kind: str) -> set[str]: ...

    def read(self, kind: str, name: str, shape: tuple[int, ...]) -> Tensor: ...

    def read_range(self, kind: str, name: str, shape: tuple[int, ...], start: int, end: int) -> Tensor: ...


@dataclass(frozen=True)
class Setup:
    """What every engine is built from, beside the objective."""

    config: EngineConfig
    optimization: OptimizationConfig
    ranks: Ranks
    seed: int
    learning_rate: Schedule
    weight_decay: Schedule


class Engine(Protocol):
    """One training engine: the only way to the objective's parameters."""

    optimizer_steps: int
    """Updates made."""

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Batch, mode: str) -> Any:
        """The objective's forward in the given mode, in the engine's precision."""

    def forward_backward(self, step: int, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Gradients of the global batch; returns the global weighted mean of each loss, and their total as `loss`.

        Each micro-batch goes to the device when its turn comes. torch's generator is seeded from (seed, step,
        micro-batch, rank) for it: plain dropout, the only randomness that depends on the world size.
        """

    def step(self, step: int) -> None:
        """Clip, set this step's learning rate and weight decay, update; a gradient that is not finite skips it."""

    def ema(self, target: str, source: str, momentum: float) -> None:
        """Move network `target` towards network `source`; not after a skipped step."""

    def metrics(self) -> dict[str, float]:
        """What the last step did: learning rates, weight decay, momentum, gradient norm, skipped steps."""

    def state(self) -> dict[str, Any]:
        """The declared state that no function of the step can give, as JSON."""

    def pieces(self) -> Iterator[Piece]:
        """What this rank owns of weights, buffers and moments."""

    def load(self, source: TensorSource) -> None:
        """Continue from a checkpoint: weights, buffers, moments, step count and state."""

    def load_weights(self, source: TensorSource) -> None:
        """Start from old weights alone."""

    def network(self, name: str) -> dict[str, Tensor]:
        """The full fp32 weights of one child network, on the CPU (of every rank)."""


def check_precision(config: EngineConfig, device: torch.device) -> None:
    """Refuse what the device does not compute in.

    Raises:
        ValueError: names the precision to ask for instead.
    """
    if config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ValueError(
            f"engine.precision is bf16, which {torch.cuda.get_device_name(device)} does not have; use fp16, whose loss "
            f"is scaled, or fp32"
        )


def autocast(config: EngineConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which forwards run at the config's precision."""
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if config.precision == "bf16" else torch.float16)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def global_weights(objective: nn.Module, micro_batches: Sequence[Batch]) -> dict[str, float]:
    """W_k: the objective's weights summed over micro-batches and ranks."""
    counted = [objective.weights(batch) for batch in micro_batches]  # type: ignore[operator]
    names = sorted(counted[0])
    sums = torch.tensor([sum(count[name] for count in counted) for name in names], dtype=torch.float64)
    return dict(zip(names, sum_over_ranks(sums).tolist(), strict=True))


def global_means(
    sums: dict[str, Tensor], weights: dict[str, float], coefficients: dict[str, float]
) -> dict[str, Tensor]:
    """Each loss's mean over all ranks, and `loss`, the sum of c_k times each."""
    names = sorted(sums)
    totals = sum_over_ranks(torch.stack([sums[name].double() for name in names]))
    means = {
        name: total / weights[name] if weights[name] else total * 0 for name, total in zip(names, totals, strict=True)
    }
    means["loss"] = torch.stack([coefficients[name] * means[name] for name in names]).sum()
    return means
