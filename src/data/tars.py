"""Plain WebDataset tars: the same samples always give the same bytes, on any machine and on any day."""

from __future__ import annotations

import errno
import io
import json
import re
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.data.sample import META_FIELD, TEXT_FIELD
from src.files import sync

SAMPLES_PER_SHARD = 4096
"""10 MB of beats or 500 MB of 12-lead 10 s records at 500 Hz: few enough files for a cluster's storage, small enough
to copy one."""
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class FolderTaken(ValueError):
    """The output folder is there and is not empty."""


class TarWriter:
    """A tar whose bytes depend on nothing but its samples."""

    def __init__(self, path: Path) -> None:
        self.path, self.samples = path, 0
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append the files of a sample."""
        for field, data in members.items():
            header = tarfile.TarInfo(f"{key}.{field}")
            header.size, header.mode, header.mtime = len(data), 0o644, 0
            header.uid = header.gid = 0
            self._tar.addfile(header, io.BytesIO(data))
        self.samples += 1

    def close(self) -> None:
        """Write the end of the archive; it is on disk when this returns."""
        self._tar.close()
        sync(self.path)

    def abandon(self) -> None:
        """Remove a tar that can't be finished."""
        with suppress(OSError):  # what was buffered may not fit the disk either
            self._tar.close()
        self.path.unlink(missing_ok=True)


def check_split(split: str) -> None:
    """Refuse what can't be part of a file name."""
    if not SPLIT.fullmatch(split):
        raise ValueError(
            f"the split {split} can't be part of a file name: use a letter, then up to 63 letters, digits and _"
        )


def tar_name(split: str, number: int) -> str:
    """The name of a split's tar, counted from 0."""
    return f"{split}-{number:06d}.tar"


def check_key(key: str) -> None:
    """Refuse what WebDataset would cut, and what can't be a file's name."""
    if not KEY.fullmatch(key):
        raise ValueError(f"the key {key} must be 1 to 80 letters, digits, - and _, and start with none of these")


def sample_files(content: Mapping[str, bytes], meta: Mapping[str, Any], text: str | None) -> dict[str, bytes]:
    """The files of a sample, its content first."""
    told = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    files = {**content, META_FIELD: told.encode()}
    return files if text is None else {**files, TEXT_FIELD: text.encode()}


def refuse_taken(output: Path) -> None:
    """Refuse an output folder with something in it."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FolderTaken(f"{output} is there and not empty: name another output folder, or delete this one first")


def move(partial: Path, output: Path) -> None:
    """Rename; it replaces an empty folder, and fails if another process has filled it in the meantime."""
    try:
        partial.rename(output)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        refuse_taken(output)
        raise
