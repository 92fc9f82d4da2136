"""The folder that shards lie in, on this machine or behind an address: its index, and its tars opened to be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from src.config.data import CacheConfig, is_address
from src.data.cache import Cache
from src.data.index import BUILD, INDEX_NAME, ShardEntry, open_table, table_path
from src.data.storage import RemoteFile, Storage, StorageError, local_folder
from src.files import sha256_of

CHECKED = 1000
"""So many tars are looked at before a run starts, each for three calls of the file system: at 100,000 that took 0.9 s
on a local disk and would take minutes on a busy network file system. The others are looked at as they are opened."""


REMEDY = "restore it from its source or build the shards again"


class OpenTar(NamedTuple):
    """A tar that is open to be read."""

    path: str
    """Where it is, for errors."""
    descriptor: int
    table: NDArray[np.void]
    stamp: int
    """Changes with either file: what was verified under the same stamp is still as it was."""


class Root(Protocol):
    """A folder of shards."""

    name: str
    """As the config names it."""

    def read_index(self) -> bytes:
        """index.json; FileNotFoundError where there is none."""

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """What can be told of shards without reading them; raises ValueError for one that is not as it was indexed."""

    def open(self, entry: ShardEntry, verified: int | None) -> OpenTar:
        """A tar and its table, compared with the index unless they have the stamp under which that was done before.

        Raises:
            ValueError: they are not those that were indexed.
            OSError: they are not there, or the storage fails.
        """

    def fetch(self, entry: ShardEntry) -> None:
        """Have a shard at hand, or see to it that another process does."""

    def drop(self, entry: ShardEntry) -> None:
        """Forget the copy of a tar with a broken sample, if it is the copy that is damaged."""


def find_root(root: Path | str, cache: CacheConfig | None) -> Root:
    """What a config's root stands for.

    Raises:
        ValueError: an address that can't be read, or one without a cache.
    """
    if not is_address(str(root)):
        return LocalRoot(local_folder(str(root)))
    if cache is None:
        raise ValueError(f"{Storage(str(root)).address} is an address: copy its shards to a folder of this machine")
    return RemoteRoot(Storage(str(root)), Cache(cache))


class LocalRoot:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = str(folder), folder

    def read_index(self) -> bytes:
        try:
            return (self.folder / INDEX_NAME).read_bytes()
        except NotADirectoryError:
            raise FileNotFoundError(self.folder) from None

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """That tars are there with their sizes, and their tables are there, of CHECKED of them evenly spread."""
        for entry in entries[:: -(-len(entries) // CHECKED)]:
            self._check(entry)

    def _check(self, entry: ShardEntry) -> None:
        tar = self.folder / entry.name
        if not tar.is_file():
            raise ValueError(f"{tar} is missing though {tar.parent / INDEX_NAME} lists it: {REMEDY}")
        _check_size(tar, tar.stat().st_size, entry)
        if not table_path(tar).is_file():
            raise ValueError(f"{table_path(tar)}, the offset table of {tar.name}, is missing: {REMEDY}")

    def open(self, entry: ShardEntry, verified: int | None) -> OpenTar:
        tar = self.folder / entry.name
        descriptor = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        try:
            stamp = _stamp(os.fstat(descriptor), table_path(tar).stat())
            if stamp != verified:
                self._check_table(tar, entry)
                _check_size(tar, os.fstat(descriptor).st_size, entry)
            return OpenTar(str(tar), descriptor, open_table(table_path(tar)), stamp)
        except BaseException:
            os.close(descriptor)
            raise

    def _check_table(self, tar: Path, entry: ShardEntry) -> None:
        """That a tar's table is the indexed one: a wrong offset would look like a damaged tar."""
        if sha256_of(table_path(tar)) != entry.index_sha256:
            raise ValueError(
                f"{table_path(tar)} is not the offset table that {INDEX_NAME} was written with: restore it from its"
                f" source, or delete {tar.parent / INDEX_NAME} and index the folder again with"
                f" `{BUILD} index --input {tar.parent}`"
            )

    def fetch(self, entry: ShardEntry) -> None:
        """Nothing to do."""

    def drop(self, entry: ShardEntry) -> None:
        """Nothing to do: it is no copy."""


def _stamp(*files: os.stat_result) -> int:
    """Tells files from those that took their places, or were written over, later."""
    return hash(tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in files))


def _check_size(tar: Path, size: int, entry: ShardEntry) -> None:
    if size != entry.bytes:
        raise ValueError(f"{tar} has {size:,} bytes and was indexed with {entry.bytes:,}: {REMEDY}")


class RemoteRoot:
    """A folder behind an address, whose shards are fetched into a cache when they are opened."""

    def __init__(self, storage: Storage, cache: Cache) -> None:
        self.name, self.cache = storage.address, cache
        self._storage = storage
        self._whole: set[str] = set()

    def read_index(self) -> bytes:
        return self._storage.read(INDEX_NAME)

    def check(self, entries: Sequence[ShardEntry]) -> None:
        """Nothing: each file is compared with its sha256 when it is fetched."""

    def open(self, entry: ShardEntry, verified: int | None) -> OpenTar:
        table = self._table(entry, verify=verified is None)
        tar = self._tar(entry)
        path = f"{tar.place} ({self.cache.folder / tar.sha256} in the cache)"
        return OpenTar(path, self._opened(tar), table, stamp=0)  # a copy's name is the sha256 it was fetched with

    def fetch(self, entry: ShardEntry) -> None:
        self.cache.fetch(self._table_file(entry))
        self.cache.fetch(self._tar(entry))

    def drop(self, entry: ShardEntry) -> None:
        """A copy that is as indexed stays and is not looked at again: the sample is broken in the storage too."""
        tar = self._tar(entry)
        if tar.sha256 in self._whole:
            return
        if self.cache.is_whole(tar):
            self._whole.add(tar.sha256)
        else:
            self.cache.drop(tar)

    def _tar(self, entry: ShardEntry) -> RemoteFile:
        return RemoteFile(self._storage, entry.name, entry.sha256, entry.bytes)

    def _table_file(self, entry: ShardEntry) -> RemoteFile:
        return RemoteFile(self._storage, str(table_path(Path(entry.name))), entry.index_sha256, None)

    def _table(self, entry: ShardEntry, verify: bool) -> NDArray[np.void]:
        """Memory-mapped; a damaged copy is fetched again."""
        wanted = self._table_file(entry)
        descriptor = self._opened(wanted)
        try:
            path = Path(f"/proc/self/fd/{descriptor}")  # it may have no name any more
            if verify and sha256_of(path) != wanted.sha256:
                self.cache.drop(wanted)
                return self._table(entry, verify)
            return open_table(path)
        finally:
            os.close(descriptor)

    def _opened(self, wanted: RemoteFile) -> int:
        try:
            return self.cache.open(wanted)
        except FileNotFoundError:
            raise StorageError(
                f"{wanted.place} is missing though the {INDEX_NAME} beside it lists it: upload it"
            ) from None
