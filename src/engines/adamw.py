"""torch's AdamW over the parameters as the engine holds them, whole or in shards."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from src.engines.training import TrainingEngine


class AdamWEngine(TrainingEngine):
    """A training engine that clips and updates by itself."""

    optimizer: torch.optim.AdamW
    parameters: dict[str, nn.Parameter]
    trainable: dict[str, nn.Parameter]

    def _optimize(self, **how: Any) -> None:
        """Make the optimizer of the objective's parameters as they are now."""
        self.parameters = dict(self.objective.named_parameters())
        self.trainable = {name: self.parameters[name] for name in self.trains}
        self.optimizer = torch.optim.AdamW(
            [{"params": [self.parameters[name] for name in group.parameters]} for group in self.groups],
            lr=self.optimization.lr,
            betas=self.optimization.betas,
            eps=self.optimization.eps,
            **how,
        )

    def _backward(self, total: Tensor, last: bool) -> None:
        total.backward()

    def _group_settings(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _update(self) -> float:
        gradients = self._gradients()
        total = self._whole(get_total_norm(gradients))
        norm = total.item() / self.scale.value
        if math.isfinite(norm):
            if self.scale.active:
                torch._foreach_div_(gradients, self.scale.value)
                total = total / self.scale.value
            if self.optimization.clip is not None:
                clip_grads_with_norm_(self.trainable.values(), self.optimization.clip, total)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _whole(self, tensor: Tensor) -> Tensor:
        """A tensor of which this rank may hold a part; all ranks ask together."""
        return tensor

    def _gradients(self) -> list[Tensor]:
        """Every trainable parameter's gradient, zeros where the step did not touch it."""
        for parameter in self.trainable.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.trainable.values() if parameter.grad is not None]
