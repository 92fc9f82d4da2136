"""Whose a run folder is: one living process's, and of one job that was started twice the later one's.

Rank 0 holds a lock on owner.lock, which tells who it is. The lock is POSIX's: the kernel drops it with the process
however that ends, forked loader workers do not inherit it, and it works over NFS. A cluster that has lost sight of a
node starts a job again while its first processes may live on there, as orphans, and with them their lock. So a new
owner puts a new file in place of the old one: whoever finds that owner.lock is not its own file has been succeeded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from src.distributed.variables import JOB, RESTART

PATIENCE_SECONDS = 5.0
"""So long may a dying owner take."""
POLL_SECONDS = 0.1
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


@dataclass(frozen=True)
class Owner:
    """Who owns a run folder, as owner.lock tells it."""

    process: int
    host: str
    job: str | None = None
    """The cluster's number of its job, where there is one."""
    restart: int = 0
    """How often the cluster has started that job again."""
    attempt: int = 0
    """Of the run; 0 where that is not known."""

    def __str__(self) -> str:
        job = "" if self.job is None else f" (job {self.job}, restart {self.restart})"
        return f"process {self.process} on {self.host}{job}"

    def succeeds(self, other: Owner) -> bool:
        """Whether this is a later start of the other's job, which makes the other an orphan."""
        return self.job is not None and self.job == other.job and self.restart > other.restart

    def is_gone(self) -> bool:
        """Whether this machine can tell that the process has ended."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def read_owner(path: Path) -> Owner | None:
    """Who is recorded there, if anybody; earlier versions wrote `process 12 on host`.

    Never of a file whose lock this process holds: closing it would drop the lock.
    """
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    if earlier := re.fullmatch(r"process (\d+) on (\S+)", text):
        return Owner(int(earlier[1]), earlier[2])
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):  # a kill came before the owner was written
        return None


class Ownership:
    """A process's hold on one owner.lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self.mark: int | None = None
        """The inode of this attempt's file, by which its other ranks know it too."""
        self.rivalled = False
        """Whether ranks of the attempt before may be alive: its owner's lock is held, can't be had or was another
        machine's, or it was an earlier start of this job, whose other ranks may be orphans on other machines."""

    def claim(self, recorded: int) -> int:
        """Take the folder and return the number of this attempt; `recorded` is that of the last one known.

        Raises:
            ValueError: somebody else has it; a dying owner is given a few seconds.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self._take(recorded)
            if isinstance(found, int):
                return found
            if time.monotonic() > deadline:
                raise ValueError(found)
            time.sleep(POLL_SECONDS)

    def _take(self, recorded: int) -> int | str:
        """Put a file of our own in place and return the attempt's number, or say who is in the way.

        The file is locked under another name first, which keeps out whoever tries the same at the same time.
        """
        draft = self._path.with_name(self._path.name + ".draft")
        file = draft.open("a+")
        if _lock(file) is False or not _has_name(file, draft):
            file.close()
            return f"{self._path.parent} is being taken by another process; stop that run or set another logging.folder"
        before, held = read_owner(self._path), _is_held(self._path)
        own = Owner(os.getpid(), socket.gethostname(), os.environ.get(JOB), int(os.environ.get(RESTART, 0)))
        if refusal := self._refusal(before, held, own):
            draft.unlink()
            file.close()
            return refusal
        self.rivalled = before is not None and (held is not False or before.host != own.host or own.succeeds(before))
        attempt = 1 + max(recorded, before.attempt if before is not None and self.rivalled else 0)
        file.truncate(0)
        file.write(json.dumps(asdict(own) | {"attempt": attempt}))
        file.flush()
        os.fsync(file.fileno())
        if before is not None and self.rivalled:  # kept, so that no later owner.lock gets the inode of an orphan's
            self._path.replace(self._path.with_name(f"{self._path.name}.attempt-{before.attempt}"))
        draft.replace(self._path)
        self._file, self.mark = file, os.fstat(file.fileno()).st_ino
        return attempt

    def _refusal(self, before: Owner | None, held: bool | None, own: Owner) -> str | None:
        if held is False or (before is not None and own.succeeds(before)):
            return None
        root = self._path.parent
        if held:
            elsewhere = before is not None and before.host != own.host
            dead = f"; if that machine is gone, remove {self._path}" if elsewhere else ""
            return (
                f"{root} is in use by {before or 'another process'}; stop that run or set another logging.folder{dead}"
            )
        if before is None or before.is_gone():
            return None
        return (
            f"{root} was last used by {before}, and its file system has no locks that would tell whether that run "
            f"lives: remove {self._path} when it is dead, or set another logging.folder"
        )

    def superseded(self) -> bool:
        """Whether a later attempt has taken the folder.

        The folder is opened to look: that makes NFS ask its server, where a look at the name may be a minute old.
        """
        if self.mark is None:
            return False
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            return os.stat(self._path.name, dir_fd=folder).st_ino != self.mark
        except FileNotFoundError:  # removed by hand, and nobody has come yet
            return False
        finally:
            os.close(folder)

    def check(self) -> None:
        """Raises ValueError where a later attempt has taken the folder."""
        if self.superseded():
            successor = read_owner(self._path) or "another process"
            raise ValueError(f"{self._path.parent} was taken over by {successor}, which goes on; this attempt ends")

    def release(self) -> None:
        """Leave the folder where no lock tells others that this process has ended."""
        if self._file is not None and _lock(self._file) is None and not self.superseded():
            self._path.unlink(missing_ok=True)


def _lock(file: TextIO) -> bool | None:
    """Whether the file's lock is this process's now; None where the file system has none."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno in LOCKLESS:
            return None
        raise
    return True


def _is_held(path: Path) -> bool | None:
    """Whether a living process has the lock; None where the file system has none."""
    try:
        with path.open("r+") as file:
            locked = _lock(file)
    except FileNotFoundError:
        return False
    return None if locked is None else not locked


def _has_name(file: TextIO, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
