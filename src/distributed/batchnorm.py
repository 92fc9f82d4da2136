"""BatchNorm over the batch of all ranks, on gloo and NCCL alike (torch's own needs a GPU)."""

# N samples of this rank, C channels

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.distributed.collectives import sum_with_gradient


class SyncBatchNorm(_BatchNorm):
    """Mean and variance of the batches of all ranks together, in fp32, with the gradient of one process with one batch.

    Ranks may hold different counts. Input [N, C, ...].
    """

    def forward(self, input: Tensor) -> Tensor:
        """The batch normalised; in evaluation by the running statistics.

        Raises:
            ValueError: one process has one value of each channel, which has no variance.
        """
        if not self.training or not dist.is_initialized():
            if self.training and input.numel() == input.shape[1]:
                raise ValueError(
                    "BatchNorm has nothing to compare a single row with: raise data.batch_size, or "
                    "data.micro_batch_size if that is 1"
                )
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        values = input.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = torch.cat([values.sum(axes), count])
        total = sum_with_gradient(sums)
        mean_C = total[:-1] / total[-1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        centred = values - mean_C.view(shape)
        variance_C = sum_with_gradient(centred.square().sum(axes)) / total[-1]
        self._follow(mean_C.detach(), variance_C.detach(), total[-1].detach())
        normalised = centred * torch.rsqrt(variance_C + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * count / (count - 1.0).clamp(min=1.0), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"BatchNorm takes [N, C, ...], got {list(input.shape)}")


def normalises_batches(objective: nn.Module) -> bool:
    """Whether a network that trains has a BatchNorm, so that what it learns depends on how its batch is cut."""
    frozen = [objective.get_submodule(name) for name in getattr(objective, "frozen_networks", ())]
    still = {module for network in frozen for module in network.modules()}
    return any(isinstance(module, _BatchNorm) and module not in still for module in objective.modules())
