"""Tensors that go round all ranks: each rank holds one at a time, so memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Passing:
    """Tensors on their way to the next rank, and those on their way here."""

    leaving: Sequence[Tensor]
    """Held until they have left."""
    arriving: list[Tensor]
    works: list[dist.Work]

    def wait(self) -> list[Tensor]:
        """The previous rank's tensors, once they are here and ours are gone."""
        for work in self.works:
            work.wait()
        return self.arriving


def pass_on(tensors: Sequence[Tensor], tag: int = 0) -> Passing:
    """Send tensors to the next rank and receive the previous one's, of the same shapes; every rank must call it.

    Nothing may be written into them before `wait`. What is under way at the same time must differ in its tags, which
    are `tag` and those behind it.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    arriving = [torch.empty_like(tensor) for tensor in tensors]
    if world_size == 1:
        return Passing(tensors, list(tensors), [])
    works: list[dist.P2POp] = []
    for number, (sent, received) in enumerate(zip(tensors, arriving, strict=True), tag):
        if not sent.numel():
            continue
        works += [
            dist.P2POp(dist.isend, sent, (rank + 1) % world_size, tag=number),
            dist.P2POp(dist.irecv, received, (rank - 1) % world_size, tag=number),
        ]
    return Passing(tensors, arriving, dist.batch_isend_irecv(works) if works else [])
