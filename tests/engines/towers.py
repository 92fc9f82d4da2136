"""A small objective with everything that engines find hard: the objectives to come have some of it each.

Two towers with a contrast over all ranks, a learned temperature and bias, BatchNorm over all ranks, a frozen part, an
EMA teacher, a head that sees labels of which some are unknown, one network that is called twice in a step, one that
only even steps use.
"""

import copy
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from src.distributed.batchnorm import SyncBatchNorm
from src.distributed.collectives import gather_rows

WIDTH = 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Normalised(nn.Module):
    def __init__(self, batchnorm):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = batchnorm(WIDTH)

    def forward(self, x):
        return x + 0.3 * self.norm(self.linear(x))


class Tower(nn.Module):
    def __init__(self, inputs, batchnorm):
        super().__init__()
        self.stem = nn.Linear(inputs, WIDTH, bias=False)  # BatchNorm takes a bias away again
        self.batchnorm = SyncBatchNorm(WIDTH) if batchnorm else nn.Identity()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        if batchnorm:
            self.blocks.append(Normalised(SyncBatchNorm))  # where one rank is all, plain BatchNorm is the same
            if not dist.is_initialized() or dist.get_world_size() == 1:
                self.blocks.append(Normalised(nn.BatchNorm1d))
            else:
                self.blocks.append(Normalised(SyncBatchNorm))

    def forward(self, x):
        x = self.batchnorm(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class Towers(nn.Module):
    """Mode `train` gives `features` and the sum `labels`; mode `contrast` the sum `pairs`."""

    contrastive = True
    frozen_networks = ("frozen",)

    def __init__(self, batchnorm=True):
        super().__init__()
        torch.manual_seed(7)
        self.coefficients = {"pairs": 1.0, "labels": 0.5, "consistency": 0.3}
        self.student = Tower(7, batchnorm)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.text = Tower(5, batchnorm)
        self.text.stem.requires_grad_(False)
        self.frozen = nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7), nn.Dropout(0.5)).requires_grad_(False)
        self.head = nn.Linear(WIDTH, 3)
        self.unused = nn.Linear(2, 2)
        self.sometimes = nn.Linear(7, 3)
        self.temperature = nn.Parameter(torch.full((1,), math.log(5.0)))
        self.bias = nn.Parameter(torch.full((1,), -2.0))

    def forward(self, batch, mode="train"):
        if mode == "embed":
            with torch.no_grad():
                return {"tokens": self.teacher(batch["image"])[:, None]}
        if mode == "generate":
            return {"generated": self.generate(batch["text"], batch["turns"])}
        if mode == "contrast":
            return {"pairs": self.pairs(batch)}
        image = self.frozen(batch["image"])
        seen, again = self.student(image), self.student(batch["other"])
        with torch.no_grad():
            target = self.teacher(image)
        known = ~batch["labels"].isnan()
        logits = self.head(seen) + (self.sometimes(image) if batch["even"] else 0.0)
        errors = F.binary_cross_entropy_with_logits(logits, batch["labels"].nan_to_num(), reduction="none")
        return {
            "features": {"image": seen.float(), "text": self.text(batch["text"]).float()},
            "labels": torch.where(known, errors, 0.0).sum(),
            "consistency": (again.float() - target.float()).square().mean(1).sum(),
        }

    @torch.no_grad()
    def generate(self, x, turns):
        """Each row as often through its tower as it asks for; all ranks go on to the longest of any."""
        longest = turns.max()
        if dist.is_initialized():
            dist.all_reduce(longest, dist.ReduceOp.MAX)
        for turn in range(int(longest)):
            x = torch.where((turn < turns)[:, None], self.text(x)[:, : x.shape[1]], x)
        return x

    def pairs(self, features):
        """Sigmoid loss (Zhai et al. 2023) of this rank's images with the texts of all ranks."""
        image, text = (F.normalize(features[name].float(), dim=-1) for name in ("image", "text"))
        rank = dist.get_rank() if dist.is_initialized() else 0
        logits = image @ gather_rows(text).T * self.temperature.exp() + self.bias
        own = torch.arange(len(image), device=image.device) + rank * len(image)
        signs = -torch.ones_like(logits)
        signs[torch.arange(len(image), device=image.device), own] = 1.0
        return -F.logsigmoid(signs * logits).sum()

    def weights(self, batch):
        rows = float(len(batch["image"]))
        return {"pairs": rows, "labels": float((~batch["labels"].isnan()).sum()), "consistency": rows}


def global_batch(step, size=12):
    """Batch of a step; label 2 is unknown in the even steps, and some of the others."""
    draw = torch.Generator().manual_seed(100 + step)
    labels = (torch.rand(size, 3, generator=draw) > 0.5).float()
    labels[torch.rand(size, 3, generator=draw) < 0.3] = math.nan
    if step % 2 == 0:
        labels[:, 2] = math.nan
    shapes = {"image": 7, "other": 7, "text": 5}
    return {name: torch.randn(size, width, generator=draw) for name, width in shapes.items()} | {
        "labels": labels,
        "turns": torch.arange(1, size + 1) // 3,
        "keys": [f"s{step}.{row}" for row in range(size)],
    }


def micro_batches(step, rank, world_size, cuts):
    """This rank's share of the batch, in `cuts` parts."""
    batch = global_batch(step)
    share = len(batch["keys"]) // world_size
    bounds = torch.linspace(rank * share, (rank + 1) * share, cuts + 1).round().int().tolist()
    return [
        {name: value[start:end] for name, value in batch.items()} | {"even": step % 2 == 0}
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]
