"""Shards from an archive: records are read by several processes, written in their order, and a killed build goes on.

Tars grow in a folder beside the output, `.<name>.partial`. After each whole tar the state is written down, so that the
same command, started again, goes on behind the last one; the bytes are those of a build that nothing disturbed, at any
number of processes. When all is there and indexed, the folder is renamed to its place.

Who the records are of stays outside the shards, in `<name>.private`, which only its owner may read: the salt of the
pseudonyms, pseudonyms.csv, rejected.csv with the records that were left out and why, and the state of a build.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from src.data.builders.sources import Listing, Source
from src.data.index import INDEX_NAME, Index, table_path
from src.data.make_index import Contents, Progress, make_index
from src.data.tars import TarWriter, check_key, move, refuse_taken, sample_files, tar_name
from src.distributed.processes import die_with_parent, ignore_signals
from src.files import replace_text

AHEAD = 4
"""Chunks that wait for each process, at most."""
AHEAD_BYTES = 256 << 20
"""What all that wait may hold, by the largest record so far: Holter recordings go one by one."""
STATE = "state.json"


class Convert(Protocol):
    """Reads a source; can be sent to another process, and its repr tells all of its settings."""

    at_a_time: ClassVar[int]
    """Sources that a process is handed at a time, at most; so few are read by this process alone."""

    def __call__(self, source: Source) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The content's files of a sample, and what its json tells of them.

        Raises:
            ValueError: why the source can't be used.
        """


class Converted(NamedTuple):
    """A record, read."""

    source: Source
    members: Mapping[str, bytes] | None
    """The files of its sample; None where it can't be used."""
    reason: str
    """Why it can't."""

    def bytes(self) -> int:
        """What its files hold."""
        return sum(map(len, (self.members or {}).values()))


@dataclass
class _State:
    """How far a build is, at the end of a tar."""

    fingerprint: str
    next: int
    """The first source that is in no whole tar."""
    tars: dict[str, int]
    """Whole tars of each split."""
    rejected: list[tuple[str, str]]
    """Name and reason of each source before `next` that can't be used."""


@contextmanager
def claim(output: Path) -> Iterator[Path]:
    """Hold the place of a build against a second one, however this process ends; yields the private folder.

    Raises:
        FolderTaken: `output` is there and not empty.
        ValueError: another build writes there.
    """
    refuse_taken(output)
    private = private_folder(output)
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    private.chmod(0o700)
    with (private / "owner.lock").open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(f"{output} is being written by another build: wait for it or stop it") from None
        refuse_taken(output)  # by a build that has ended in the meantime
        yield private


def private_folder(output: Path) -> Path:
    """Where the salt, pseudonyms.csv and rejected.csv of a build lie."""
    return output.parent / f"{output.name}.private"


def build_shards(
    output: Path,
    listing: Listing,
    convert: Convert,
    contents: Contents,
    *,
    workers: int,
    samples_per_shard: int,
    writing: Callable[[Iterator[Converted], int, int], Iterable[Converted]],
    indexing: Progress = iter,
) -> tuple[Index, int]:
    """Read, convert and write the records of a listing; returns the index and the number of rejected records.

    Args:
        output: a new folder, claimed.
        listing: its sources have their keys and the patients' pseudonyms.
        convert: makes the files of a sample of each source.
        contents: what the index tells of all.
        workers: processes that read; 1 reads in this one.
        samples_per_shard: the last tar of a split may hold fewer.
        writing: wraps the converted records to show progress, given (records, those done before, all).
        indexing: wraps the list of tars.

    Raises:
        ValueError: no record can be used, or a build with other settings began here.
        OSError: the storage failed or is full; what is done stays, and the same call goes on from there.
    """
    growing, private = output.parent / f".{output.name}.partial", private_folder(output)
    sources = _in_order(listing.sources)
    with _told_when_full(growing):
        state = _read_state(growing, private, _fingerprint(sources, convert, contents, samples_per_shard))
        converted = _convert_all(sources[state.next :], convert, workers)
        _write_tars(growing, private, state, writing(converted, state.next, len(sources)), samples_per_shard)
        rejected = [*listing.rejected, *state.rejected]
        if not state.tars:
            _write_private(private, sources, rejected)
            raise ValueError(
                f"none of {len(sources):,} records can be used; the first: {': '.join(rejected[0])}; all:"
                f" {private / 'rejected.csv'}"
            )
        index = _index(growing, state, contents, indexing)
        _write_private(private, sources, rejected)
        move(growing, output)
        (private / STATE).unlink()
    return index, len(rejected)


def problems(listing: Listing, convert: Convert, workers: int) -> Iterator[tuple[str, str]]:
    """Each record of a listing with why it can't be used, empty where it can; nothing is written."""
    for name, reason in listing.rejected:
        yield name, reason
    for source, _, reason in _convert_all(listing.sources, convert, workers):
        yield source.name, reason


def _index(folder: Path, state: _State, contents: Contents, indexing: Progress) -> Index:
    """Index the tars; nothing else stays in the folder."""
    splits = {
        split: [folder / tar_name(split, number) for number in range(count)] for split, count in state.tars.items()
    }
    index = make_index(folder, splits, contents, indexing, count_duplicates=True)
    tars = [tar for own in splits.values() for tar in own]
    wanted = {folder / INDEX_NAME, *tars, *map(table_path, tars)}
    for path in set(folder.iterdir()) - wanted:
        path.unlink()
    return index


def _in_order(sources: Iterable[Source]) -> list[Source]:
    """Split by split, so that one tar is open at a time, and by key: the order of the names would tell of them."""
    by_split: dict[str, list[Source]] = {}
    for source in sources:
        by_split.setdefault(source.split, []).append(source)
    return [source for own in by_split.values() for source in sorted(own, key=attrgetter("key"))]


def _fingerprint(sources: Sequence[Source], *settings: Any) -> str:
    """Of everything that the bytes of the shards depend on, the records' own bytes aside; not of where they lie."""
    digest = hashlib.sha256(repr(settings).encode())
    for source in sources:
        here = replace(source, path=Path(), parts=tuple(Path(part.name) for part in source.parts))
        digest.update(json.dumps(asdict(here), default=str, sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def _told_when_full(folder: Path) -> Iterator[None]:
    """A full disk as a sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = error.filename or folder
        raise OSError(
            f"{where} can't grow ({error.strerror}): make room, and the same command goes on from the last whole tar"
        ) from error


def _read_state(folder: Path, private: Path, fingerprint: str) -> _State:
    """Where a build that was stopped stands; tars that it did not finish are removed."""
    path = private / STATE
    if not folder.exists() or not path.exists():
        path.unlink(missing_ok=True)  # of a build that was killed between the rename and its removal
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return _State(fingerprint, 0, {}, [])
    anew = f"delete {folder} to begin anew"
    try:
        state = _State(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {anew}") from None
    if state.fingerprint != fingerprint:
        raise ValueError(
            f"{folder} holds a build that was begun with other settings or another list of records: give the same ones"
            f" to go on, or {anew}"
        )
    whole = {folder / tar_name(split, number) for split, count in state.tars.items() for number in range(count)}
    found = set(folder.glob("*.tar"))
    if lost := whole - found:
        raise ValueError(f"{min(lost)}, which is done, is missing: {anew}")
    for tar in found - whole:
        tar.unlink()
    return state


def _write_tars(
    folder: Path, private: Path, state: _State, converted: Iterable[Converted], samples_per_shard: int
) -> None:
    """Write what comes, tar by tar; `state` follows."""
    tar: TarWriter | None = None
    split, read = "", state.next
    rejected = list(state.rejected)

    def finish(writer: TarWriter) -> None:
        writer.close()
        state.tars[split] = state.tars.get(split, 0) + 1
        state.next, state.rejected = read, list(rejected)
        replace_text(private / STATE, json.dumps(asdict(state)), mode=0o600)

    try:
        for source, files, reason in converted:
            if tar is not None and (source.split != split or tar.samples == samples_per_shard):
                finish(tar)
                tar = None
            read += 1
            if files is None:
                rejected.append((source.name, reason))
                continue
            split = source.split
            if tar is None:
                tar = TarWriter(folder / tar_name(split, state.tars.get(split, 0)))
            tar.add(source.key, files)
        if tar is not None:
            finish(tar)
            tar = None
    finally:
        if tar is not None:
            tar.abandon()
    state.next, state.rejected = read, rejected


def _convert_all(sources: Sequence[Source], convert: Convert, workers: int) -> Iterator[Converted]:
    """Each source, read and converted, in their order."""
    if workers <= 1 or len(sources) <= convert.at_a_time:
        yield from (_convert(convert, source) for source in sources)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),))
    waiting: deque[Future[list[Converted]]] = deque()
    submitted = done = largest = 0
    try:
        while done < len(sources):
            room = AHEAD_BYTES // largest if largest else 0  # records that may wait; none while no size is known
            size = min(max(room // (AHEAD * workers), 1), convert.at_a_time)
            while submitted < len(sources) and submitted - done < max(workers, min(room, size * AHEAD * workers)):
                with _without_interrupts():
                    waiting.append(pool.submit(_convert_chunk, convert, sources[submitted : submitted + size]))
                submitted = min(submitted + size, len(sources))
            for converted in waiting.popleft().result():
                done += 1
                largest = max(largest, converted.bytes())
                yield converted
    except BrokenProcessPool:
        raise ValueError(
            "a process that reads records died, perhaps for want of memory: the same command goes on from the last"
            " whole tar; give it fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start in here are not reached by Ctrl-C, before they can say so themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(parent: int) -> None:
    die_with_parent(parent)
    ignore_signals()


def _convert_chunk(convert: Convert, sources: Sequence[Source]) -> list[Converted]:
    return [_convert(convert, source) for source in sources]


def _convert(convert: Convert, source: Source) -> Converted:
    """One source into the files of its sample; what is wrong with it becomes the reason."""
    try:
        content, told = convert(source)
    except ValueError as error:
        return Converted(source, None, str(error))
    check_key(source.key)
    meta: dict[str, Any] = {"id": source.key, "patient_id": source.patient_id, **source.meta, **told}
    if source.labels:
        meta["labels"] = list(source.labels)
    try:
        return Converted(source, sample_files(content, meta, source.text), "")
    except UnicodeEncodeError as error:
        return Converted(source, None, f"its text can't be written as UTF-8 ({error.reason} at {error.start})")


def _write_private(folder: Path, sources: Sequence[Source], rejected: Sequence[tuple[str, str]]) -> None:
    out = {name for name, _ in rejected}
    known = [
        (source.key, source.name, source.patient_id or "", source.patient or "")
        for source in sources
        if source.name not in out
    ]
    _replace(folder / "pseudonyms.csv", _csv(("key", "record", "patient_id", "patient"), known))
    _replace(folder / "rejected.csv", _csv(("record", "reason"), rejected))


def _replace(path: Path, text: str) -> None:
    """Write a private file; that of an earlier build keeps its content under a number."""
    if path.exists() and path.read_text(encoding="utf-8", errors="surrogateescape") != text:
        number = next(number for number in count(1) if not path.with_suffix(f".{number}.csv").exists())
        path.rename(path.with_suffix(f".{number}.csv"))
    replace_text(path, text, mode=0o600, errors="surrogateescape")  # names of files need not be UTF-8


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
