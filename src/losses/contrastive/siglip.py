"""SigLIP (arXiv 2303.15343): every pair of sides is a question by itself, yes or no.

    L = -1/B sum_ij log sigmoid(z_ij (s <x_i, y_j> + b)),    z_ij = 1 for a sample's own sides, else -1

The second sides of all ranks pass by this rank's first sides in blocks. Nothing of a block is kept: backward computes
it again, so that the loss needs O(b x block) beside the features, whatever the number of ranks. With transport `ring`
the second sides go round the ranks, and in backward their gradients go with them and are home after the last; `gather`
holds all of them on every rank, and is one collective instead of many.
"""

# B first sides of this rank, M second sides that visit, K of them in a block, D width

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from src.distributed.collectives import gather_uneven, padded, row_counts
from src.distributed.ring import pass_on
from src.losses.contrastive.columns import precise, unit
from src.losses.contrastive.duplicates import gather_ids, same
from src.losses.kinds import Duplicates, Transport

GRADIENTS = 2
"""Tag of gradients on the ring, behind those of second sides and their ids."""


def siglip(
    first_BD: Tensor,
    second_BD: Tensor,
    scale: Tensor,
    bias: Tensor,
    ids_B: Tensor | None = None,
    duplicates: Duplicates = "ignore",
    transport: Transport = "ring",
    block: int = 1024,
    overlap: float = 1.0,
) -> Tensor:
    """The sum over this rank's first sides and all ranks' second sides; its weight is B.

    `scale` and `bias` have one element each (`temperature.SigmoidScale`). Pairs of different samples with one id are
    negatives (`ignore`), no question (`exclude`), or positives (`share`); `ids_B` are integers, or sets [B, K] that are
    the same from a Jaccard `overlap` on. Samples that lack a side are left out before the call: ranks may hold
    different numbers of rows, or none. It can be differentiated once.
    """
    assert first_BD.shape == second_BD.shape and first_BD.ndim == 2, (first_BD.shape, second_BD.shape)
    assert duplicates == "ignore" or ids_B is not None, f"{duplicates} needs ids"
    with torch.autocast(first_BD.device.type, enabled=False):
        counts, place = row_counts(first_BD)
        start = sum(counts[:place])
        first_BD, second_BD = unit(first_BD), unit(second_BD)
        own = columns = None if duplicates == "ignore" or ids_B is None else ids_B.contiguous()
        if transport == "gather":
            second_BD = gather_uneven(second_BD, counts)
            columns = None if own is None else gather_ids(own, counts)
            counts, place = [len(second_BD)], 0
        pairs = _Pairs(counts, place, start, block, duplicates, overlap, own, columns)
        numbers = precise(scale).reshape(1), precise(bias).reshape(1)
        total: Tensor = _SigLIP.apply(first_BD, second_BD, *(number.to(first_BD) for number in numbers), pairs)
        return total


@dataclass
class _Pairs:
    """Which pairs there are, and what is asked of each."""

    counts: list[int]
    """Second sides of each rank on the ring; where all have been gathered, of one."""
    place: int
    """This rank's on the ring."""
    start: int
    """The sample that this rank's first row is."""
    block: int
    duplicates: Duplicates
    overlap: float
    own: Tensor | None
    """Ids of this rank's first sides."""
    columns: Tensor | None
    """Ids of the second sides that start from here."""

    def visits(self, travelling: list[Tensor]) -> Iterator[tuple[int, int, list[Tensor]]]:
        """Whose second sides are here: their first sample, how many they are, and what travels with them.

        The next ones are on their way meanwhile, so what travels must not be written to.
        """
        starts = [0, *accumulate(self.counts)]
        for turn in range(len(self.counts)):
            of = (self.place - turn) % len(self.counts)
            last = turn == len(self.counts) - 1
            passing = None if last else pass_on(travelling)
            yield starts[of], self.counts[of], travelling
            travelling = travelling if passing is None else passing.wait()

    def packed(self, second_MD: Tensor) -> list[Tensor]:
        """What travels, as long as the longest rank's."""
        longest = max(self.counts)
        return [padded(part, longest) for part in (second_MD, self.columns) if part is not None]

    def blocks(self, first: int, count: int, ids: list[Tensor]) -> Iterator[tuple[slice, int, Tensor | None]]:
        """Blocks of the columns at hand: which, on what diagonal samples meet themselves, who says the same [B, K]."""
        for begin in range(0, count, self.block):
            part = slice(begin, min(begin + self.block, count))
            same_BK = None if self.own is None else same(self.own, ids[0][part], self.overlap)
            yield part, self.start - first - begin, same_BK

    def doubts(self, logits_BK: Tensor, offset: int, same_BK: Tensor | None) -> Tensor:
        """Logits, written over, with the sign turned where yes is right: the loss of each pair is log(1 + exp(doubt)).

        `offset` is the diagonal on which samples meet themselves.
        """
        diagonal = _diagonal(logits_BK, offset)
        if same_BK is None:
            diagonal.neg_()
        elif self.duplicates == "share":
            _diagonal(same_BK, offset).fill_(True)
            logits_BK.copy_(torch.where(same_BK, -logits_BK, logits_BK))
        else:
            own = -diagonal
            logits_BK.masked_fill_(same_BK, -torch.inf)
            diagonal.copy_(own)
        return logits_BK

    def turn_back(self, slopes_BK: Tensor, offset: int, same_BK: Tensor | None) -> Tensor:
        """Slopes along the doubts, written over, as slopes along the logits."""
        if same_BK is not None and self.duplicates == "share":  # `doubts` has put the diagonal into it
            return slopes_BK.copy_(torch.where(same_BK, -slopes_BK, slopes_BK))
        _diagonal(slopes_BK, offset).neg_()
        return slopes_BK


def _diagonal(values_BK: Tensor, offset: int) -> Tensor:
    """A view of the elements [i, i + offset]; of none where the diagonal misses the matrix."""
    B, K = values_BK.shape
    return values_BK.diagonal(offset) if -B <= offset <= K else values_BK[:0, 0]


class _SigLIP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first_BD: Tensor, second_MD: Tensor, scale: Tensor, bias: Tensor, pairs: _Pairs) -> Tensor:
        ctx.save_for_backward(first_BD, second_MD, scale, bias)
        ctx.pairs = pairs
        total, zero = first_BD.new_zeros((), dtype=torch.float64), first_BD.new_zeros(())
        scaled_BD = scale * first_BD
        for sample, count, (visitors_MD, *ids) in pairs.visits(pairs.packed(second_MD)):
            for part, offset, same_BK in pairs.blocks(sample, count, ids):
                logits_BK = torch.addmm(bias, scaled_BD, visitors_MD[part].T)
                doubts_BK = pairs.doubts(logits_BK, offset, same_BK)
                # log(1 + exp(x)); F.softplus rounds it to x above 20
                total += torch.logaddexp(doubts_BK, zero, out=doubts_BK).sum(dtype=torch.float64)
        return total.to(first_BD.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        assert not torch.is_grad_enabled(), "SigLIP in blocks is differentiated once: create_graph is not for it"
        with torch.autocast(gradient.device.type, enabled=False):
            first_BD, second_MD, scale, bias = ctx.saved_tensors
            pairs: _Pairs = ctx.pairs
            pulls_BD, scaled_BD = torch.zeros_like(first_BD), scale * first_BD
            on_bias = first_BD.new_zeros(1, dtype=torch.float64)
            carried = _Carried(pairs, second_MD, ctx.needs_input_grad[1])
            for sample, count, (visitors_MD, *ids) in pairs.visits(pairs.packed(second_MD)):
                own_MD = carried.arrived()
                for part, offset, same_BK in pairs.blocks(sample, count, ids):
                    logits_BK = torch.addmm(bias, scaled_BD, visitors_MD[part].T)
                    slopes_BK = pairs.doubts(logits_BK, offset, same_BK).sigmoid_()
                    slopes_BK = pairs.turn_back(slopes_BK, offset, same_BK).mul_(gradient)
                    pulls_BD.addmm_(slopes_BK, visitors_MD[part])
                    on_bias += slopes_BK.sum(dtype=torch.float64)
                    if own_MD is not None:
                        own_MD[part].addmm_(slopes_BK.T, scaled_BD)
                carried.leave()
            on_scale = (pulls_BD * first_BD).sum(dtype=torch.float64).reshape(1)
        needs = ctx.needs_input_grad
        found = (scale * pulls_BD, carried.home(len(second_MD)), on_scale.to(scale), on_bias.to(bias))
        return *(slope if need else None for slope, need in zip(found, needs[:4], strict=True)), None


class _Carried:
    """Gradients of the second sides, which go round behind them: a rank adds its own and passes them on.

    After as many turns as there are ranks they are those of the rank's own second sides.
    """

    def __init__(self, pairs: _Pairs, second_MD: Tensor, wanted: bool) -> None:
        self.alone = len(pairs.counts) == 1
        self.held = second_MD.new_zeros(max(pairs.counts), second_MD.shape[1]) if wanted else None
        self.passing: Any = None

    def arrived(self) -> Tensor | None:
        """Those that belong to the second sides at hand, to be added to."""
        if self.passing is not None:
            (self.held,) = self.passing.wait()
        return self.held

    def leave(self) -> None:
        """To the next rank, as the second sides."""
        if self.held is not None and not self.alone:
            self.passing = pass_on([self.held], tag=GRADIENTS)

    def home(self, count: int) -> Tensor | None:
        """Those of this rank's own, after the last turn."""
        held = self.arrived()
        return None if held is None else held[:count]
