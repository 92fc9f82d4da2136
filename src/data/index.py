"""What a folder of shards says of itself: index.json, and beside each tar a table of where its samples lie.

index.json stays small (one entry a shard) and its sha256 stands for the data, since it holds those of the tars and
tables. A table has one row a sample and is memory-mapped: no rank ever holds the list of all samples.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from src.data.arrays import decode_npy
from src.files import replace_text

FORMAT: Literal[2] = 2
INDEX_NAME = "index.json"
BUILD = "python -m tools.build_shards"
TRAINING_SPLIT = "train"


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Entry(BaseModel):
    """A part of index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShardEntry(Entry):
    """A tar. What is part of a path is nothing but a name, since an index may come from a server of others."""

    name: Annotated[str, Field(pattern=r"^[^/\x00]*\.tar$")]
    samples: PositiveInt
    bytes: PositiveInt
    sha256: Sha256
    """Of the tar."""
    index_sha256: Sha256
    """Of the file with its offset table."""


class Labels(Entry):
    """The names of the K labels; multiclass: exactly one is 1, multilabel: each for itself."""

    names: tuple[str, ...] = ()
    kind: Literal["multiclass", "multilabel"] = "multilabel"


class Index(Entry):
    """The contents of index.json; each modality adds what its samples share (src/data/modalities)."""

    format: Literal[2] = FORMAT
    modality: str
    labels: Labels = Labels()
    patients: dict[str, int]
    """Different patient_ids in each split; none is in two."""
    texts: dict[str, int]
    """Samples with a report in each split."""
    splits: dict[str, Annotated[tuple[ShardEntry, ...], Field(min_length=1)]]
    source: dict[str, Any]
    """How the shards were made, for people; free in form."""

    def given(self) -> dict[str, Any]:
        """What of the modality's facts is stated before any sample is looked at: the arguments of its `gather`."""
        return {}

    def samples(self, split: str) -> int:
        """Samples of a split."""
        return sum(shard.samples for shard in self.splits[split])

    def bytes(self) -> int:
        """Size of all tars."""
        return sum(shard.bytes for shards in self.splits.values() for shard in shards)


def table_path(tar: Path) -> Path:
    """The offset table beside a tar."""
    return tar.with_suffix(".index.npy")


def table_type(key_width: int, fields: list[str]) -> np.dtype[np.void]:
    """A row: key, extent in the tar (headers and padding included), its CRC32, and each field's place in the extent."""
    place = np.dtype([("offset", "<i8"), ("size", "<i8")])  # both -1 where the sample has no such field
    head = [("key", f"S{key_width}"), ("start", "<i8"), ("size", "<i8"), ("crc32", "<u4")]
    return np.dtype([*head, *((field, place) for field in fields)])


def open_table(path: Path) -> NDArray[np.void]:
    """The table of a tar, memory-mapped; 15 us where np.load takes 160, and large data sets open tars all the time."""
    with path.open("rb", buffering=0) as file:
        return decode_npy(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def save_index(root: Path, index: Index) -> None:
    """Write index.json, whole or not at all."""
    replace_text(root / INDEX_NAME, json.dumps(index.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
