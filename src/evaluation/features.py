"""Frozen features of records, through the engine's door and shared by all ranks."""

# N records, B records of a call, W windows of a record, V windows of all records of a call, C channels, T samples of a
# lead, L tokens, D width, F features

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.sample import Sample
from src.data.shards import Shards
from src.distributed.ranks import Ranks, gather_objects, sum_over_ranks
from src.models.padding import mean_token, without
from src.transforms.plain import AnyPreprocessing
from src.transforms.preprocessing import Preprocessing

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

    @property
    def padded(self) -> bool:
        """Whether some may be shorter than a window."""
        return isinstance(self.preprocessing, Preprocessing) and self.preprocessing.short == "pad"

    def batch(self, samples: Sequence[Sample], windows_BWC: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
        """Windows of some records as the door of an engine takes them."""
        lengths_B = [sample["ecg"].shape[1] for sample in samples] if self.padded else None
        return as_batch(self.preprocessing, windows_BWC, lengths_B)


def as_batch(
    preprocessing: AnyPreprocessing, windows_BWC: Sequence[NDArray[np.float32]], lengths_B: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Windows [V, C, *sides] of all records by their modality, one record's after the other.

    Where a record has fewer samples than a window (`lengths_B`) also `keep` [V, T], False behind its end.
    """
    batch: dict[str, Tensor] = {preprocessing.modality: torch.from_numpy(np.concatenate(windows_BWC))}
    T = windows_BWC[0].shape[-1]
    if lengths_B is None or min(lengths_B) >= T:
        return batch
    ends_V = np.repeat(lengths_B, [len(windows_WC) for windows_WC in windows_BWC])
    return batch | {"keep": torch.from_numpy(np.arange(T) < ends_V[:, None])}


def split(batch: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """Batches of so many rows or fewer."""
    parts = [tensor.split(size) for tensor in batch.values()]
    return [dict(zip(batch, tensors, strict=True)) for tensors in zip(*parts, strict=True)]


def pool_tokens(tokens_BLD: Tensor, pool: Pool, valid_BL: Tensor | None = None) -> Tensor:
    """One vector [B, F] of the tokens: their mean, with their std or maximum beside it, or all of them in a row.

    Tokens that are not valid (padding; True = keep) are no part of it.

    Raises:
        ValueError: all in a row, where there is padding: features would be of different lengths.
    """
    tokens_BLD = tokens_BLD.float()
    if pool == "tokens":
        if valid_BL is not None:
            raise ValueError(
                "pool is tokens, which lays the tokens of a window in a row, and a record that is shorter than a "
                "window has fewer: take mean, mean+std or mean+max"
            )
        return tokens_BLD.flatten(1)
    mean_BD = mean_token(tokens_BLD, valid_BL)
    if pool == "mean":
        return mean_BD
    beside_BD = _std(tokens_BLD, mean_BD, valid_BL) if pool == "mean+std" else _maximum(tokens_BLD, valid_BL)
    return torch.cat([mean_BD, beside_BD], dim=1)


def _std(tokens_BLD: Tensor, mean_BD: Tensor, valid_BL: Tensor | None) -> Tensor:
    if valid_BL is None:
        return tokens_BLD.std(1, correction=0)
    return mean_token((tokens_BLD - mean_BD.unsqueeze(1)).square(), valid_BL).sqrt()


def _maximum(tokens_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    return (tokens_BLD if valid_BL is None else without(tokens_BLD, valid_BL, -math.inf)).amax(1)


def pool_given(given: Mapping[str, Tensor], pool: Pool) -> Tensor:
    """Of what a door gives: its tokens, those that are valid if it says which."""
    return pool_tokens(given["tokens"], pool, given.get("valid"))


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
    """Features [N, F] of the records, on every rank; of several windows the mean of theirs. As `over_windows`."""
    return over_windows(lambda part: pool_given(door(part, mode="embed"), pool), records, batch_size, ranks, alive)


@torch.no_grad()
def predict(
    door: Door, records: Records, batch_size: int, ranks: Ranks, alive: Callable[[], object] = unwatched
) -> NDArray[np.float32]:
    """The `probabilities` [N, K] that the door gives in mode `predict`, on every rank; of several windows their mean.

    As `over_windows`.
    """
    return over_windows(
        lambda part: door(part, mode="predict")["probabilities"].float(), records, batch_size, ranks, alive
    )


def over_windows(
    read: Callable[[dict[str, Tensor]], Tensor],
    records: Records,
    batch_size: int,
    ranks: Ranks,
    alive: Callable[[], object],
) -> NDArray[np.float32]:
    """The mean over each record's windows of what `read` makes of a batch of them, [N, F], on every rank.

    Every rank makes the same number of calls, each with `batch_size` records and 512 windows or fewer: short shares are
    padded. Before each it calls `alive`, which may ask the other ranks, and may raise.

    Raises:
        ValueError: a record that does not fit the encoder, named.
    """
    found = []
    for samples in _calls(records, batch_size, ranks):
        windows_BWC = [records.windows_of(sample) for sample in samples]
        count, pooled = sum(map(len, windows_BWC)), []
        for part in _parts(records.batch(samples, windows_BWC)):
            alive()
            pooled.append(read(part))
        found.append(average_windows(torch.cat(pooled)[:count].cpu().numpy(), windows_BWC))
    return _of_all_ranks(np.concatenate(found), len(records), ranks)


@torch.no_grad()
def embed_tokens(
    door: Door,
    records: Records,
    output: str,
    batch_size: int,
    ranks: Ranks,
    alive: Callable[[], object] = unwatched,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """What the door gives under the name `output`, [N, L, D], for the first window of each record; on every rank.

    Beside it which of these tokens are valid, [N, L], where records may be shorter than a window. `alive` is called as
    by `embed`.
    """
    found: list[NDArray[np.float32]] = []
    valid: list[NDArray[np.float32]] = []
    for samples in _calls(records, batch_size, ranks):
        alive()
        batch = records.batch(samples, [records.windows_of(sample)[:1] for sample in samples])
        given = door(batch, mode="embed")
        tokens_BLD = given[output].float().cpu().numpy()
        found += [*tokens_BLD]
        valid += [*(given["valid"].float().cpu().numpy() if "valid" in given else np.ones(tokens_BLD.shape[:2]))]
    tokens_NLD = _of_all_ranks(np.stack(found), len(records), ranks)
    return tokens_NLD, _of_all_ranks(np.stack(valid), len(records), ranks) > 0 if records.padded else None


@torch.no_grad()
def read_records(
    read: Callable[[Sequence[Sample]], Tensor],
    records: Records,
    batch_size: int,
    ranks: Ranks,
    alive: Callable[[], object] = unwatched,
) -> NDArray[np.float32]:
    """What `read` makes of some samples, [B, ...], for all of them, [N, ...], on every rank; integers up to 2^24 too.

    Every rank makes the same number of calls; `alive` is called before each, as by `embed`.
    """
    found = []
    for samples in _calls(records, batch_size, ranks):
        alive()
        found.append(read(samples).float().cpu().numpy())
    return _of_all_ranks(np.concatenate(found), len(records), ranks)


def _calls(records: Records, batch_size: int, ranks: Ranks) -> Iterator[list[Sample]]:
    """This rank's records (every world_size-th) in as many calls as any other rank makes."""
    longest = -(-len(records) // ranks.world_size)
    share = records.samples_N[ranks.rank :: ranks.world_size]
    share = np.concatenate([share, np.repeat(records.samples_N[:1], longest - len(share))])
    for start in range(0, longest, batch_size):
        yield records.shards.read(share[start : start + batch_size])


def _parts(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Windows in forwards of MOST_WINDOWS or fewer: a day's record has 43,200 of 2 s. As many on every rank."""
    values = next(iter(batch.values()))[0].numel()
    parts, one = split(batch, at_once(values, MOST_WINDOWS)), split(batch, 1)[:1]
    return parts + one * (max(gather_objects(len(parts))) - len(parts))


def _of_all_ranks(share: NDArray[np.float32], count: int, ranks: Ranks) -> NDArray[np.float32]:
    """All ranks' rows in the order of the records, without what padded a share."""
    whole = np.zeros((count, *share.shape[1:]), np.float32)
    mine = whole[ranks.rank :: ranks.world_size]
    mine[:] = share[: len(mine)]
    return sum_over_ranks(torch.from_numpy(whole)).numpy()
