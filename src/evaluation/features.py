"""Frozen features of records, through the engine's door and shared by all ranks."""

# N records, B records of a call, W windows of a record, V windows of all records of a call, C channels, L tokens,
# D width, F features

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.sample import Sample
from src.data.shards import Shards
from src.distributed.ranks import Ranks, gather_objects, sum_over_ranks
from src.transforms.plain import AnyPreprocessing

MOST_WINDOWS = 512
"""Windows in one forward, however many a record has."""
MOST_VALUES = 1 << 26
"""Numbers in one forward, of windows that are large: 27 clips of 16 frames of 224 x 224."""
Pool = Literal["mean", "mean+std", "mean+max", "tokens"]


class Door(Protocol):
    """An engine, or anything else that embeds."""

    def __call__(self, batch: dict[str, Tensor], mode: str) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Records:
    """Some records of a split, and how each becomes windows for the encoder."""

    shards: Shards
    samples_N: NDArray[np.int64]
    preprocessing: AnyPreprocessing
    windows: int | None
    """Evenly spaced windows of each record; None covers it."""

    def __len__(self) -> int:
        return len(self.samples_N)

    def windows_of(self, sample: Sample) -> NDArray[np.float32]:
        """The windows [W, C, *sides] of a record as the encoder takes them."""
        return self.preprocessing.windows_of(sample, self.windows)

    def batch(self, windows: NDArray[np.float32] | Tensor) -> dict[str, Tensor]:
        """Windows as the door of an engine takes them."""
        return {self.preprocessing.modality: torch.as_tensor(windows)}


def pool_tokens(tokens_BLD: Tensor, pool: Pool) -> Tensor:
    """One vector [B, F] of the tokens: their mean, with their std or maximum beside it, or all of them in a row."""
    tokens_BLD = tokens_BLD.float()
    if pool == "tokens":
        return tokens_BLD.flatten(1)
    mean_BD = tokens_BLD.mean(1)
    if pool == "mean":
        return mean_BD
    beside_BD = tokens_BLD.std(1, correction=0) if pool == "mean+std" else tokens_BLD.amax(1)
    return torch.cat([mean_BD, beside_BD], dim=1)


def at_once(values: int, most: int) -> int:
    """How many windows of so many numbers go into one forward."""
    return max(1, min(most, MOST_VALUES // values))


def average_windows(pooled_VF: NDArray[np.float32], windows_BWC: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean [B, F] over each record's windows, given the features of all of them in a row."""
    ends = np.cumsum([len(windows_WC) for windows_WC in windows_BWC])[:-1]
    return np.stack([features_WF.mean(0) for features_WF in np.split(pooled_VF, ends)])


def unwatched() -> None:
    """What is called before each forward, where nobody waits for it to end or wants to break it off."""


@torch.no_grad()
def embed(
    door: Door,
    records: Records,
    pool: Pool,
    batch_size: int,
    ranks: Ranks,
    alive: Callable[[], object] = unwatched,
) -> NDArray[np.float32]:
    """Features [N, F] of the records, on every rank; of several windows the mean of theirs.

    Every rank makes the same number of calls, each with `batch_size` records and 512 windows or fewer: short shares are
    padded. Before each it calls `alive`, which may ask the other ranks, and may raise.

    Raises:
        ValueError: a record that does not fit the encoder, named.
    """
    found = []
    for samples in _calls(records, batch_size, ranks):
        windows_BWC = [records.windows_of(sample) for sample in samples]
        windows_VC = torch.from_numpy(np.concatenate(windows_BWC))
        pooled = []
        for part in _parts(windows_VC):
            alive()
            pooled.append(pool_tokens(door(records.batch(part), mode="embed")["tokens"], pool))
        found.append(average_windows(torch.cat(pooled)[: len(windows_VC)].cpu().numpy(), windows_BWC))
    return _of_all_ranks(np.concatenate(found), len(records), ranks)


@torch.no_grad()
def embed_tokens(
    door: Door,
    records: Records,
    output: str,
    batch_size: int,
    ranks: Ranks,
    alive: Callable[[], object] = unwatched,
) -> NDArray[np.float32]:
    """What the door gives under the name `output`, [N, L, D], for the first window of each record; on every rank.

    `alive` is called as by `embed`.
    """
    found: list[NDArray[np.float32]] = []
    for samples in _calls(records, batch_size, ranks):
        alive()
        batch = records.batch(np.stack([records.windows_of(sample)[0] for sample in samples]))
        found += [*door(batch, mode="embed")[output].float().cpu().numpy()]
    return _of_all_ranks(np.stack(found), len(records), ranks)


def _calls(records: Records, batch_size: int, ranks: Ranks) -> Iterator[list[Sample]]:
    """This rank's records (every world_size-th) in as many calls as any other rank makes."""
    longest = -(-len(records) // ranks.world_size)
    share = records.samples_N[ranks.rank :: ranks.world_size]
    share = np.concatenate([share, np.repeat(records.samples_N[:1], longest - len(share))])
    for start in range(0, longest, batch_size):
        yield records.shards.read(share[start : start + batch_size])


def _parts(windows_VC: Tensor) -> list[Tensor]:
    """Windows in forwards of MOST_WINDOWS or fewer: a day's record has 43,200 of 2 s. As many on every rank."""
    parts = list(windows_VC.split(at_once(windows_VC[0].numel(), MOST_WINDOWS)))
    return parts + [windows_VC[:1]] * (max(gather_objects(len(parts))) - len(parts))


def _of_all_ranks(share: NDArray[np.float32], count: int, ranks: Ranks) -> NDArray[np.float32]:
    """All ranks' rows in the order of the records, without what padded a share."""
    whole = np.zeros((count, *share.shape[1:]), np.float32)
    mine = whole[ranks.rank :: ranks.world_size]
    mine[:] = share[: len(mine)]
    return sum_over_ranks(torch.from_numpy(whole)).numpy()
