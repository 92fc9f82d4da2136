"""Heads that map the vectors of ECGs and of texts into the space that they share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from src.distributed.batchnorm import SyncBatchNorm
from src.distributed.collectives import sum_with_gradient
from src.models.text_config import JointHeadConfig

# B rows of this rank, D width, F features


class RowBatchNorm(SyncBatchNorm):
    """BatchNorm over some rows of the batches of all ranks together, in fp32; the others are normalised likewise.

    No number of rows is too few: with one, features become the bias, with none nothing follows.
    """

    def forward(self, input: Tensor, keep_B: Tensor | None = None) -> Tensor:
        """The rows [B, D] normalised by those to keep (True; None is all); in evaluation by the running statistics."""
        if not self.training:
            return super().forward(input)
        values_BD = input.float()
        keep_B = torch.ones(len(input), dtype=torch.bool, device=input.device) if keep_B is None else keep_B
        keep_B1 = keep_B.unsqueeze(1)
        known_BD = torch.where(keep_B1, values_BD, 0.0)
        total = sum_with_gradient(torch.cat([known_BD.sum(0), keep_B1.sum(0).float()]))
        count = total[-1].detach()
        mean_D = total[:-1] / count.clamp(min=1.0)
        squares_BD = torch.where(keep_B1, known_BD - mean_D, 0.0).square()
        variance_D = sum_with_gradient(squares_BD.sum(0)) / count.clamp(min=1.0)
        self._follow_rows(mean_D.detach(), variance_D.detach(), count)
        normalised_BD = (values_BD - mean_D) * torch.rsqrt(variance_D + self.eps)
        return (normalised_BD * self.weight + self.bias).to(input.dtype)

    @torch.no_grad()
    def _follow_rows(self, mean_D: Tensor, variance_D: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        some = (count > 0).float()
        share = some * (0.0 if self.momentum is None else self.momentum)
        self.num_batches_tracked += some.long()
        self.running_mean.lerp_(mean_D, share)
        self.running_var.lerp_(variance_D * count / (count - 1.0).clamp(min=1.0), share)


class JointHead(nn.Sequential):
    """[B, D] -> [B, last of widths]: linear layers, with a norm and GELU between them; one layer is a linear map.

    A layer before BatchNorm has no bias, which that would take away.
    """

    def __init__(self, width: int, config: JointHeadConfig) -> None:
        norm = {"batch": RowBatchNorm, "layer": nn.LayerNorm, "none": nn.Identity}[config.norm]
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise((width, *config.widths)), 1):
            if layers:
                layers += [norm(before), nn.GELU()]
            layers.append(nn.Linear(before, after, bias=config.norm != "batch" or place == len(config.widths)))
        super().__init__(*layers)

    def forward(self, input: Tensor, keep_B: Tensor | None = None) -> Tensor:
        """Features [B, F] of vectors [B, D]; rows not to keep (True = keep) are no part of any statistics."""
        for layer in self:
            input = layer(input, keep_B) if isinstance(layer, RowBatchNorm) else layer(input)
        return input
