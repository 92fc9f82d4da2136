"""The tokens of records, embedded once and kept on disk while probes are trained on them.

Nothing is augmented, so that the tokens of a record are the same in each epoch: to encode it every time would cost the
forward 20 times over. They are kept in fp16 (10 bits of mantissa to bf16's 7, and what a norm gives out is far from
65,504), in files that are mapped: what fits into memory is read from there, what does not from the disk. All ranks read
all of them, so that the folder must be one that they share.
"""

# N records, B records of a call, W windows of a record, V windows of all records of a call, C channels, L tokens,
# D width, F features

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.sample import Sample
from src.distributed.ranks import Ranks, gather_objects
from src.evaluation.features import MOST_WINDOWS, Door, Pool, Records, at_once, average_windows, pool_tokens, split

Half = NDArray[np.float16]
BYTES = 2
"""Of a number in fp16."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of each record: those of several windows are one set, in which a query sees the record whole.

    Those of padding are no part of it.
    """

    records: tuple[Half, ...]
    """[L, D] of each, mapped from a file; L may differ."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def width(self) -> int:
        return int(self.records[0].shape[1])

    def batch(self, rows_B: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, L, D] of some records and which of them are there, [B, L]; None where all are equally long."""
        chosen = [self.records[row] for row in rows_B]
        longest = max(map(len, chosen))
        if all(len(tokens_LD) == longest for tokens_LD in chosen):
            return torch.from_numpy(np.stack(chosen)), None
        padded_BLD = np.zeros((len(chosen), longest, self.width), np.float16)
        keep_BL = np.zeros((len(chosen), longest), np.bool_)
        for place, tokens_LD in enumerate(chosen):
            padded_BLD[place, : len(tokens_LD)] = tokens_LD
            keep_BL[place, : len(tokens_LD)] = True
        return torch.from_numpy(padded_BLD), torch.from_numpy(keep_BL)


@torch.no_grad()
def keep_tokens(
    door: Door, records: Records, path: Path, pool: Pool, batch_size: int, ranks: Ranks
) -> tuple[Tokens, NDArray[np.float32]]:
    """The tokens of the records, kept in files path.0, path.1, ... of each rank, and their pooled features [N, F].

    Every rank embeds its share (every world_size-th record) and gets all. The door must not need the other ranks.

    Raises:
        ValueError: there is no room for the tokens, or fp16 can't hold them.
    """
    share = records.samples_N[ranks.rank :: ranks.world_size]
    lengths, pooled, width = list[int](), [], 0
    with _file(path, ranks.rank).open("wb") as file:
        for start in range(0, len(share), batch_size):
            samples = records.shards.read(share[start : start + batch_size])
            windows_BWC = [records.windows_of(sample) for sample in samples]
            values, kept, features = windows_BWC[0][0].size, list[int](), []
            for part in split(records.batch(samples, windows_BWC), at_once(values, MOST_WINDOWS)):
                given = door(part, mode="embed")
                tokens_VLD, valid_VL = given["tokens"], given.get("valid")
                features.append(pool_tokens(tokens_VLD, pool, valid_VL).cpu().numpy())
                V, length, width = tokens_VLD.shape
                if file.tell() == 0:
                    of_a_record = sum(map(len, windows_BWC)) / len(samples) * length * width * BYTES
                    require_room(path.parent, round(of_a_record * len(records)), len(records))
                _halved(tokens_VLD if valid_VL is None else tokens_VLD[valid_VL], samples).tofile(file)
                kept += [length] * V if valid_VL is None else valid_VL.sum(1).tolist()
            starts = np.cumsum([0, *map(len, windows_BWC[:-1])])
            lengths += np.add.reduceat(kept, starts).tolist()
            pooled.append(average_windows(np.concatenate(features), windows_BWC))
    shares = gather_objects((lengths, width, np.concatenate(pooled) if pooled else None))
    width, found = max(of_rank[1] for of_rank in shares), [of_rank[2] for of_rank in shares if of_rank[2] is not None]
    whole_NF = np.empty((len(records), found[0].shape[1]), np.float32)
    for rank, features_NF in enumerate(found):
        whole_NF[rank :: ranks.world_size] = features_NF
    mapped = [_mapped(_file(path, rank), of_rank[0], width) for rank, of_rank in enumerate(shares)]
    return Tokens(tuple(mapped[n % len(shares)][n // len(shares)] for n in range(len(records)))), whole_NF


def require_room(folder: Path, needed: int, records: int) -> None:
    """Refuse to keep more than the disk holds.

    Raises:
        ValueError: says how much there is and how much it takes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the tokens of {records:,} records take {needed / 1e9:,.1f} GB, but the disk of {folder} has "
            f"{free / 1e9:,.1f} GB: set another logging.folder, fewer features.windows, or head.kind linear"
        )


def _file(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.{rank}")


def _halved(tokens: Tensor, samples: Sequence[Sample]) -> Half:
    halves = tokens.to(torch.float16)
    if not halves.isfinite().all():
        raise ValueError(
            f"tokens of samples {samples[0]['key']} to {samples[-1]['key']} reach {tokens.abs().max():g}, but they "
            f"are kept in fp16, which ends at 65,504: set head.kind to linear"
        )
    kept: Half = halves.cpu().numpy()
    return kept


def _mapped(path: Path, lengths: Sequence[int], width: int) -> list[Half]:
    """The records of one file, one behind the other."""
    if not lengths:
        return []
    whole = np.memmap(path, np.float16, mode="r", shape=(sum(lengths), width))
    return np.split(whole, np.cumsum(lengths)[:-1])
