"""Loaders that the verb `data` of benchmark measures: ours, and others that make the same batches of the same records.

A pass is an iterator over the batches of one epoch. All are given the same decoding and the same transform; what they
differ in is where the bytes come from, in which order, and who asks for them.
"""

# B batch

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from src.config.data import DataConfig
from src.data.index import open_table, table_path
from src.data.loader import Loader
from src.data.modalities import MODALITIES
from src.data.modality import Members
from src.data.order import permute
from src.data.sample import META_FIELD, Row, decode_meta, fields_of, rows
from src.data.shards import Shards
from src.distributed.ranks import Ranks
from src.randomness import Streams
from tools.benchmark_sets import SEED, Whole

SHUFFLED_BYTES = 1 << 28
"""What webdataset's shuffle buffer may hold, and at most its customary 1,000 samples."""
PREFETCH = 2
"""Batches that each worker reads ahead, torch's default."""


def decoded(modality: str, key: str, members: Members, meta: memoryview) -> dict[str, Any]:
    """A sample out of the bytes of its members and its json."""
    told = decode_meta(meta)
    return {"key": key, "meta": told, "text": None, **MODALITIES[modality].decode(members, told)}


class Ours:
    """This project's loader."""

    def __init__(self, shards: Shards, whole: Whole, batch: int, workers: int) -> None:
        leads = {"leads": shards.leads} if hasattr(shards, "leads") else {}
        config = DataConfig(root=str(shards.root), batch_size=batch, workers=workers, **leads)
        self._loader = Loader(config, shards, whole.collate, Ranks(0, 1, torch.device("cpu")), SEED)
        self._steps, self._epochs = len(shards) // batch, count()

    def __iter__(self) -> Iterator[Any]:
        return self.steps(1)

    def steps(self, epochs: int) -> Iterator[Any]:
        """The batches of the next epochs, less what does not fill a batch; the same workers give them all."""
        first = next(self._epochs) * self._steps
        for (batch,) in self._loader.steps(first, first + epochs * self._steps):
            yield batch


class Draws:
    """Streams for the batches of loaders that have none: those of an epoch of ours, so that all draw the same crops."""

    def __init__(self, samples: int, batch: int) -> None:
        streams = Streams.of_samples(SEED, np.zeros(samples, np.int64), np.arange(samples))
        self._batches = [streams[start : start + batch] for start in range(0, samples - batch + 1, batch)]
        self._made = count()

    def next(self) -> Streams:
        """Of this process's next batch; workers take turns."""
        worker = get_worker_info()
        number = next(self._made) if worker is None else next(self._made) * worker.num_workers + worker.id
        return self._batches[number % len(self._batches)]


class Sequential:
    """The bytes of the tars from the first to the last, and nothing done with them; a batch is a mebibyte."""

    def __init__(self, tars: Sequence[Path]) -> None:
        self._tars = tars

    def __iter__(self) -> Iterator[int]:
        for tar in self._tars:
            with tar.open("rb", buffering=0) as file:
                while data := file.read(1 << 20):
                    yield len(data)


class Bare:
    """A loop of pread at places that are known, decoding and transform, in a shuffled order that is known as well."""

    def __init__(self, shards: Shards, whole: Whole, batch: int) -> None:
        self._whole, self._batch, self._modality = whole, batch, shards.index.modality
        self._draws = Draws(len(shards), batch)
        self._tars = tars_of(shards)
        places = [
            _Place(number, row.start, row.size, row.key.decode(), row.meta, list(_present(fields, row)))
            for number, tar in enumerate(self._tars)
            for table in [open_table(table_path(tar))]
            for fields in [fields_of(table, MODALITIES[self._modality])]
            for row in rows(table, fields)
        ]
        order = permute(SEED, len(places), np.arange(len(places)))
        self._places = [places[place] for place in order.tolist()]

    def __iter__(self) -> Iterator[Any]:
        files = [os.open(tar, os.O_RDONLY) for tar in self._tars]
        try:
            for start in range(0, len(self._places) - self._batch + 1, self._batch):
                samples = [self._read(files, place) for place in self._places[start : start + self._batch]]
                yield self._whole(0, samples, self._draws.next())
        finally:
            for file in files:
                os.close(file)

    def _read(self, files: Sequence[int], place: _Place) -> dict[str, Any]:
        view = memoryview(os.pread(files[place.tar], place.size, place.start))
        members = [(name, view[offset : offset + length]) for name, offset, length in place.content]
        return decoded(self._modality, place.key, members, view[place.meta[0] : sum(place.meta)])


class _Place(NamedTuple):
    """Where a sample lies."""

    tar: int
    start: int
    size: int
    key: str
    meta: tuple[int, int]
    content: list[tuple[str, int, int]]
    """Name, offset in the sample's extent, and size of each member."""


def _present(fields: Sequence[str], row: Row) -> Iterator[tuple[str, int, int]]:
    for name, (offset, size) in zip(fields, row.content, strict=True):
        if offset >= 0:
            yield name, offset, size


class WebDataset:
    """The webdataset library's own pipeline: tars shared out to workers and shuffled, a shuffle buffer, batches."""

    def __init__(self, shards: Shards, whole: Whole, batch: int, workers: int) -> None:
        self._tars = [str(tar) for tar in tars_of(shards)]
        self._buffer = max(batch, min(1000, SHUFFLED_BYTES * len(shards) // shards.index.bytes()))
        self._modality, self._whole, self._batch, self._workers = shards.index.modality, whole, batch, workers
        self._draws, self._epochs = Draws(len(shards), batch), count()

    def __iter__(self) -> Iterator[Any]:
        import webdataset as wds

        seed = next(self._epochs)
        pipeline = (
            wds.WebDataset(self._tars, shardshuffle=len(self._tars), seed=seed, empty_check=False)
            .shuffle(self._buffer, initial=self._batch, seed=seed)  # begins as soon as the others do
            .map(self._decoded)
            .batched(self._batch, collation_fn=self._collated, partial=False)
        )
        ahead = {"prefetch_factor": PREFETCH} if self._workers else {}
        return iter(wds.WebLoader(pipeline, batch_size=None, num_workers=self._workers, **ahead))

    def _decoded(self, sample: dict[str, Any]) -> dict[str, Any]:
        fields = MODALITIES[self._modality].fields(name for name in sample if not name.startswith("__"))
        members = [(name, memoryview(sample[name])) for name in fields]
        return decoded(self._modality, sample["__key__"], members, memoryview(sample[META_FIELD]))

    def _collated(self, samples: Sequence[Any]) -> Any:
        return self._whole(0, samples, self._draws.next())


class Files(Dataset[Any]):
    """A folder with a file for each member, read by torch's DataLoader with shuffle=True."""

    def __init__(self, folder: Path, modality: str, whole: Whole, batch: int, workers: int) -> None:
        self._modality, self._whole, self._batch, self._workers = modality, whole, batch, workers
        self._folder = folder
        members: dict[str, list[str]] = {}
        for path in sorted(folder.iterdir()):
            key, _, field = path.name.partition(".")
            members.setdefault(key, []).append(field)
        self._records = [(key, MODALITIES[modality].fields(fields)) for key, fields in members.items()]
        self._draws = Draws(len(self._records), batch)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, Any]:
        key, fields = self._records[number]
        members = [(field, self._read(key, field)) for field in fields]
        return decoded(self._modality, key, members, self._read(key, META_FIELD))

    def _read(self, key: str, field: str) -> memoryview:
        return memoryview((self._folder / f"{key}.{field}").read_bytes())

    def __iter__(self) -> Iterator[Any]:
        ahead = {"prefetch_factor": PREFETCH} if self._workers else {}
        return iter(
            DataLoader(
                self,
                self._batch,
                shuffle=True,
                drop_last=True,
                num_workers=self._workers,
                collate_fn=self._collated,
                **ahead,  # type: ignore[arg-type]
            )
        )

    def _collated(self, samples: Sequence[Any]) -> Any:
        return self._whole(0, samples, self._draws.next())


def tars_of(shards: Shards) -> list[Path]:
    """The tars of a split."""
    return [Path(shards.root) / entry.name for entry in shards.index.splits[shards.split]]


def unpacked(tars: Sequence[Path], folder: Path) -> Path:
    """A folder with each member of the tars as a file."""
    for tar in tars:
        with tarfile.open(tar) as archive:
            archive.extractall(folder, filter="data")
    return folder
