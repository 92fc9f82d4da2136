"""A folder on a local disk that holds copies of remote files, by the sha256 that their index lists.

Several processes and runs share it. A file is fetched under a lock on its own `.partial`, takes its whole size on the
disk before the first byte comes, and gets its name only when its bytes are on the disk and have the right sha256. The
kernel drops locks with their process, however that ends: a partial that nobody holds is thrown away. What was not used
for longest makes room; who has a file open keeps reading it.

Runs with different sizes may share a folder: each makes room by its own size before it fetches, so that the folder is
never above the largest, and the smallest has its way whenever it fetches: the others begin nothing while it waits.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.config.data import CacheConfig
from src.data.storage import RemoteFile, StorageError
from src.files import sha256_of

PARTIAL = ".partial"
LOCK = "lock"
"""Held for moments, while the folder is listed or a name in it changes."""
TURN = "turn"
"""Held by who waits for room: nobody begins to fetch before, else a run with a small size would wait for ever while one
with a larger size fetches."""
OWN = re.compile(rf"[0-9a-f]{{64}}({re.escape(PARTIAL)})?")
"""Names of what the cache put into its folder."""
SLACK = 0.05
"""Share of the cache that is freed at once: the folder is listed once for so much that is fetched, not for each file.
At 200,000 files that takes about a second."""
POLL_SECONDS = 0.05


class Cache:
    """Whole files of a storage on a local disk. Has no state but the folder's: can be pickled and forked."""

    def __init__(self, config: CacheConfig) -> None:
        self.folder, self.size = Path(config.folder), int(config.size * 1e9)

    def open(self, wanted: RemoteFile) -> int:
        """A descriptor to read the file from, fetched if it is not there; another process that fetches it is waited
        for.

        Raises:
            FileNotFoundError, StorageError: the storage does not have it, does not answer, or gives other bytes.
            ValueError: the file does not fit the cache or the disk, or the folder can't be written.
        """
        while True:
            descriptor = self._open_whole(wanted)
            if descriptor is None:
                descriptor = self._fetch(wanted, wait=True)
            if descriptor is not None:
                return descriptor

    def fetch(self, wanted: RemoteFile) -> None:
        """Have the file, or see to it that another process is fetching it; counts as a use.

        Raises: as `open`.
        """
        descriptor = self._open_whole(wanted)
        if descriptor is None:
            descriptor = self._fetch(wanted, wait=False)
        if descriptor is not None:
            os.close(descriptor)

    def is_whole(self, wanted: RemoteFile) -> bool:
        """Whether a copy is there with the bytes that the index lists; reads all of it."""
        try:
            return sha256_of(self.folder / wanted.sha256) == wanted.sha256
        except FileNotFoundError:
            return False

    def drop(self, wanted: RemoteFile) -> None:
        """Forget a file that turned out to be damaged."""
        (self.folder / wanted.sha256).unlink(missing_ok=True)

    def _open_whole(self, wanted: RemoteFile) -> int | None:
        """The file if it is there, with the time of its last use set to now."""
        with self._told(wanted):
            try:
                descriptor = os.open(self.folder / wanted.sha256, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                os.utime(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        if wanted.size is None or os.fstat(descriptor).st_size == wanted.size:
            return descriptor
        os.close(descriptor)
        self.drop(wanted)
        return None

    def _fetch(self, wanted: RemoteFile, wait: bool) -> int | None:
        """The file, fetched by this process; None where another one had the same in hand."""
        path = self.folder / (wanted.sha256 + PARTIAL)
        with self._told(wanted):
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with self._told(wanted):
                if not _locked(partial, wait) or not _is_at(partial, path):
                    return None
                if (self.folder / wanted.sha256).exists():  # finished by another between our look and our lock
                    path.unlink()
                    return None
            try:
                self._fill(partial, wanted)
                return self._named(path, wanted)
            except BaseException:
                with suppress(OSError):  # what is told is why it could not be fetched
                    path.unlink()
                raise
        finally:
            os.close(partial)

    def _named(self, path: Path, wanted: RemoteFile) -> int:
        """Give a partial that is whole its name; returns a descriptor to read it from."""
        with self._told(wanted):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with self._lock(LOCK):  # who lists the folder must not miss it under both names
                    path.rename(self.folder / wanted.sha256)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _fill(self, partial: int, wanted: RemoteFile) -> None:
        """Write the file's bytes to the disk; they are those that the index lists when this returns."""
        os.ftruncate(partial, 0)  # a dead process may have left some
        size, pieces = wanted.size, self._pieces(wanted)
        if size is None:
            pieces = [b"".join(pieces)]
            size = len(pieces[0])
        self._reserve(partial, size, wanted)
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
            with self._told(wanted):
                _write(partial, piece)
        if digest.hexdigest() != wanted.sha256:
            raise StorageError(
                f"{wanted.place} is not the file that its index lists (sha256 {digest.hexdigest()[:12]}... instead of"
                f" {wanted.sha256[:12]}...): upload it again, or index the tars again and upload all that belongs to it"
            )
        with self._told(wanted):
            os.fsync(partial)

    def _pieces(self, wanted: RemoteFile) -> Iterable[bytes]:
        if wanted.size is None:
            return [wanted.storage.read(wanted.name)]
        return wanted.storage.pieces(wanted.name, wanted.size)

    def _reserve(self, partial: int, size: int, wanted: RemoteFile) -> None:
        """Take a file's bytes on the disk; waits while others that are being fetched leave no room for it.

        Meanwhile none is added to them: they get fewer, down to none.
        """
        if size > self.size:
            raise ValueError(
                f"{wanted.place} has {size:,} bytes and data.cache.size is {self.size / 1e9:g} GB: raise it to several"
                " times the largest shard"
            )
        with self._told(wanted), self._lock(TURN):
            while True:
                with self._lock(LOCK) as lock:
                    if self._make_room(lock, size):
                        if size:
                            os.posix_fallocate(partial, 0, size)
                        return
                time.sleep(POLL_SECONDS)

    def _make_room(self, lock: int, size: int) -> bool:
        """Unlink files until so many bytes are free; False where those that are being fetched leave no room.

        The lock's file holds a number that the folder's bytes are not above, so that it is listed only when it fills.
        """
        total = _number(os.pread(lock, 32, 0))
        if total is None or total + size > self.size:
            fetched, whole = self._listed()
            if fetched + size > self.size:
                return False
            total = fetched + sum(taken for _, taken, _ in whole)
            floor = max(fetched, self.size - size - SLACK * self.size) if total + size > self.size else total
            for _, taken, path in sorted(whole):
                if total <= floor:
                    break
                Path(path).unlink(missing_ok=True)
                total -= taken
        os.pwrite(lock, b"%32d" % (total + size), 0)
        return True

    def _listed(self) -> tuple[int, list[tuple[int, int, str]]]:
        """Bytes of what is being fetched, and last use, bytes and path of each whole file.

        What a dead process was fetching is removed.
        """
        fetched, whole = 0, []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # renamed or given up meanwhile
                    if not OWN.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                        continue  # another's, in a folder that is not the cache's alone
                    if entry.name.endswith(PARTIAL) and _removed(Path(entry.path)):
                        continue
                    found = entry.stat()
                    if entry.name.endswith(PARTIAL):
                        fetched += found.st_size
                    else:
                        whole.append((found.st_mtime_ns, found.st_size, entry.path))
        return fetched, whole

    @contextmanager
    def _lock(self, name: str) -> Iterator[int]:
        """A lock of the folder's own."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _told(self, wanted: RemoteFile) -> Iterator[None]:
        """What the disk refuses, as a sentence."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ValueError(
                    f"the disk of data.cache.folder {self.folder} is full though the cache may take"
                    f" {self.size / 1e9:g} GB, and {wanted.name} does not fit: free some of it or lower data.cache.size"
                ) from None
            raise ValueError(
                f"data.cache.folder {self.folder} can't be used ({error.strerror}): name a folder of your own on a"
                " local disk, which grants locks (flock)"
            ) from None


def _locked(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has that name: whoever held its lock may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _removed(partial: Path) -> bool:
    """Remove a partial whose process is gone."""
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _locked(descriptor, wait=False) or not _is_at(descriptor, partial):
            return False
        partial.unlink()
        return True
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _number(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None
