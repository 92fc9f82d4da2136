"""What a folder of shards says of itself: index.json, and beside each tar a table of where its samples lie.

index.json stays small (one entry a shard) and its sha256 stands for the data, since it holds those of the tars and
tables. A table has one row a sample and is memory-mapped: no rank ever holds the list of all samples.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from src.files import replace_text

FORMAT: Literal[2] = 2
INDEX_NAME = "index.json"
BUILD = "python -m tools.build_shards"
TRAINING_SPLIT = "train"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ShardEntry(_Entry):
    """A tar."""

    name: str
    samples: PositiveInt
    bytes: PositiveInt
    sha256: str
    """Of the tar."""
    index_sha256: str
    """Of the file with its offset table."""


class Labels(_Entry):
    """The names of the K labels; multiclass: exactly one is 1, multilabel: each for itself."""

    names: tuple[str, ...] = ()
    kind: Literal["multiclass", "multilabel"] = "multilabel"


class Statistics(_Entry):
    """Of each lead over the training split alone, in mV; 0 where no record of it has that lead."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: tuple[int, ...]
    """Values of each lead; those of missing and flat leads do not count."""


class Index(_Entry):
    """The contents of index.json."""

    format: Literal[2] = FORMAT
    modality: Literal["ecg"] = "ecg"
    leads: tuple[str, ...]
    sampling_rate: PositiveFloat
    """Hz, of every sample."""
    lengths: tuple[int, int]
    """Samples of a lead in the shortest and in the longest record."""
    labels: Labels = Labels()
    statistics: Statistics | None
    """None where there is no training split."""
    patients: dict[str, int]
    """Different patient_ids in each split; none is in two."""
    texts: dict[str, int]
    """Samples with a report in each split."""
    missing_leads: dict[str, int]
    """Samples of all splits in which a lead is missing or flat; leads that always carry a signal are left out."""
    splits: dict[str, Annotated[tuple[ShardEntry, ...], Field(min_length=1)]]
    source: dict[str, Any]
    """How the shards were made, for people; free in form."""

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
    """The table of a tar, memory-mapped."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def save_index(root: Path, index: Index) -> None:
    """Write index.json, whole or not at all."""
    replace_text(root / INDEX_NAME, json.dumps(index.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")


def load_index(root: Path) -> tuple[Index, str]:
    """The index of a folder and the sha256 of index.json's bytes, which identifies the data.

    Raises:
        ValueError: there is none, it is damaged, or it is of another format version.
    """
    path = root / INDEX_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{root} holds no {INDEX_NAME}: build shards there with `{BUILD} ecg --input FILE --output {root}`,"
            f" or index tars that are already there with `{BUILD} index --input {root}`"
        ) from None
    return _parse_index(path, data), hashlib.sha256(data).hexdigest()


def _parse_index(path: Path, data: bytes) -> Index:
    remedy = "restore it, or delete it and the tables beside it and index the folder again"
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy} with `{BUILD} index`") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ValueError(
            f"{path} has format version {version}, this code reads {FORMAT}: {remedy} with `{BUILD} index`"
        )
    try:
        return Index.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path} is damaged ({where}: {first['msg']}): {remedy} with `{BUILD} index`") from None
