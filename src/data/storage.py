"""Files behind an address, over HTTP or from S3 and Google Cloud Storage: read in pieces, each tried several times.

A dropped connection costs a piece and not the file. A piece that fails again is asked for smaller each time; the next
one begins at its whole size.
What does not answer is given up after PAUSES; a run then ends with a sentence, and goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import fsspec

from src.config.data import is_address

PIECE = 8 * 2**20
"""Bytes asked for at a time; a quarter of it after each failure in a row, so that some 2 kB are tried last."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts at the same piece: a store that restarts is back by then."""
CONNECT_SECONDS, SILENT_SECONDS, PIECE_SECONDS = 10, 20, 60
"""What an attempt waits for: an answer to the call, the next bytes, and a whole piece."""
PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
"""By protocol, what fsspec needs."""
REFUSED = (401, 403, 404, 410)
"""Answers over HTTP that another attempt would not change."""
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
"""What botocore and google.auth raise where there are none; by name, since neither need be installed."""


class StorageError(ValueError):
    """The storage is not there, refuses, or gives something else than was indexed: a sentence for the user."""


class Storage:
    """A folder of files behind an address.

    Holds no connection between two calls: it can be pickled, and processes can be forked.

    Raises:
        ValueError: the address has a password or a signature in it, or a protocol that can't be read here.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                f"the address {parts.scheme}://{parts.hostname}{parts.path} was given with a user, a password or a ?:"
                " it would end up in logs; name it without, and leave credentials to the environment (~/.netrc,"
                " AWS_*, GOOGLE_APPLICATION_CREDENTIALS)"
            )
        if parts.scheme not in PACKAGES:
            raise ValueError(f"{address} can't be read: an address starts with {', '.join(PACKAGES)} or file")
        self.address, self._protocol = address.rstrip("/"), parts.scheme
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gRPC, whose threads a fork breaks
        try:
            fsspec.get_filesystem_class(self._protocol)
        except ImportError as error:
            raise ValueError(f"{address} can't be read ({error}): pip install {PACKAGES[parts.scheme]}") from None

    def place(self, name: str) -> str:
        """A file's address, for errors."""
        return f"{self.address}/{name}"

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: the storage refuses or does not answer.
        """
        return self._tried(name, lambda _: self._ask(name))

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """A file of that many bytes, in order.

        Raises: as `read`.
        """
        done = 0
        while done < size:
            piece = self._tried(name, partial(self._piece, name, done, size))
            yield piece
            done += len(piece)

    def _piece(self, name: str, start: int, size: int, failures: int) -> bytes:
        """The bytes from `start` on, fewer after failures; all the rest where the server gives nothing but all."""
        stop = min(size, start + (PIECE >> 2 * failures))
        piece = self._ask(name, start=start, end=stop)
        if len(piece) == size:
            return piece[start:]
        if len(piece) != stop - start:
            raise OSError(f"{len(piece):,} bytes came instead of {stop - start:,}")
        return piece

    def _ask(self, name: str, **span: int) -> bytes:
        path = quote(name) if self._protocol in ("http", "https") else name
        filesystem = fsspec.filesystem(self._protocol, **_options(self._protocol))
        data: bytes = filesystem.cat_file(f"{self.address}/{path}", **span)
        return data

    def _tried(self, name: str, attempt: Callable[[int], bytes]) -> bytes:
        begun = time.monotonic()
        for failures, pause in enumerate((*PAUSES, None)):
            try:
                return attempt(failures)
            except FileNotFoundError:
                raise FileNotFoundError(self.place(name)) from None
            except Exception as error:  # each protocol's library has its own
                if type(error).__name__ in NO_CREDENTIALS:
                    raise StorageError(
                        f"{self.place(name)} needs credentials ({_cause(error)}): give them in the environment or in"
                        " the files of the store's own tools"
                    ) from None
                if isinstance(error, PermissionError) or getattr(error, "status", None) in REFUSED:
                    raise StorageError(f"{self.place(name)} is refused ({_cause(error)}): mend the access") from None
                if pause is None:
                    raise StorageError(
                        f"{self.place(name)} could not be read in {failures + 1} attempts over"
                        f" {time.monotonic() - begun:.0f} s ({_cause(error)}): start again when the storage answers"
                    ) from None  # the cause may have a signed address in it
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class RemoteFile:
    """A file as an index lists it."""

    storage: Storage
    name: str
    sha256: str
    size: int | None
    """Bytes; None where the index does not tell."""

    @property
    def place(self) -> str:
        """Its address."""
        return self.storage.place(self.name)


def local_folder(root: str) -> Path:
    """The folder that a root names, which is no address."""
    assert not is_address(root), root
    return Path(root.removeprefix("file://"))


def _options(protocol: str) -> dict[str, Any]:
    """What fsspec is told of a protocol: patience, and no connection that stays open, which a fork would share."""
    if protocol == "s3":
        waiting = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
        once = {"retries": {"total_max_attempts": 1}, "connector_args": {"keepalive_timeout": 0.01}}
        return {"config_kwargs": {**waiting, **once}}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=PIECE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    session = {"timeout": timeout, "headers": {"Connection": "close"}, "trust_env": True}
    if protocol == "gs":
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it would print a traceback of what is told here
        return {"session_kwargs": session}
    return {"client_kwargs": session}


def _cause(error: Exception) -> str:
    """An error on one line, without what a redirected address may carry."""
    text = " ".join(f"{type(error).__name__} {error}".split())[:300]
    return re.sub(r"\?[^\s'\")]*", "", re.sub(r"//[^/@\s]*@", "//", text))
