"""Shards from an archive: records are read by several processes, written in their order, and a killed build goes on.

Tars grow in a folder beside the output, `.<name>.partial`. After each whole tar its state is written down, so that the
same command, started again, goes on behind the last one; the bytes are those of a build that nothing disturbed, at any
number of processes. When all is there and indexed, the folder is renamed to its place.

Who the records are of stays outside the shards, in `<name>.private`: the salt of the pseudonyms, pseudonyms.csv, and
rejected.csv with the records that were left out and why.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from src.data.builders.signals import Channel, Leads, conform
from src.data.builders.sources import Listing, Source
from src.data.index import Index
from src.data.make_index import Progress, make_index
from src.data.sample import to_millivolt
from src.data.write_shards import Description, Record, TarWriter, members, move, refuse_taken, tar_name
from src.distributed.processes import die_with_parent, ignore_signals
from src.files import replace_text

CHUNK = 16
"""Records that a process is handed at a time."""
AHEAD = 4
"""Chunks that wait for each process, which bounds the memory."""


class Reader(Protocol):
    """Opens a record; can be sent to another process."""

    def rate(self, path: Path, row: int | None) -> float:
        """The sampling rate of a record in Hz."""

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record."""


class Converted(NamedTuple):
    """A record, read."""

    source: Source
    members: Mapping[str, bytes] | None
    """The files of its sample; None where it can't be used."""
    reason: str
    """Why it can't."""


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


def build_shards(
    output: Path,
    listing: Listing,
    reader: Reader,
    leads: Leads,
    description: Description,
    *,
    workers: int,
    samples_per_shard: int,
    writing: Callable[[Iterator[Converted], int, int], Iterable[Converted]],
    indexing: Progress = iter,
) -> tuple[Index, int]:
    """Read, convert and write the records of a listing; returns the index and the number of rejected records.

    Args:
        output: a new folder.
        listing: its sources have their keys and the patients' pseudonyms.
        reader: opens the sources.
        leads: what each record is brought to.
        description: what the index tells of all.
        workers: processes that read; 1 reads in this one.
        samples_per_shard: the last tar of a split may hold fewer.
        writing: wraps the converted records to show progress, given (records, those done before, all).
        indexing: wraps the list of tars.

    Raises:
        FolderTaken: `output` is there and not empty.
        ValueError: no record can be used, another build writes here, or one with other settings began here.
        OSError: the storage failed or is full; what is done stays, and the same call goes on from there.
    """
    output = output.resolve()
    refuse_taken(output)
    sources = _in_splits(listing.sources)
    partial_folder = output.parent / f".{output.name}.partial"
    with _owned(partial_folder), _told_when_full(partial_folder):
        fingerprint = _fingerprint(sources, reader, leads, description, samples_per_shard)
        state = _read_state(partial_folder, fingerprint)
        converted = _convert_all(sources[state.next :], reader, leads, description, workers)
        _write_tars(partial_folder, state, writing(converted, state.next, len(sources)), samples_per_shard)
        rejected = [*listing.rejected, *state.rejected]
        if not state.tars:
            raise ValueError(f"none of {len(sources):,} records can be used; the first: {_first(rejected)}")
        splits = {
            split: [partial_folder / tar_name(split, number) for number in range(count)]
            for split, count in state.tars.items()
        }
        index = make_index(
            partial_folder,
            splits,
            leads=description.leads,
            sampling_rate=description.sampling_rate,
            labels=description.labels,
            source=description.source,
            progress=indexing,
        )
        _write_private(private_folder(output), sources, rejected)
        for name in ("state.json", "owner.lock"):
            (partial_folder / name).unlink(missing_ok=True)
        move(partial_folder, output)
    return index, len(rejected)


def private_folder(output: Path) -> Path:
    """Where the salt, pseudonyms.csv and rejected.csv of a build lie."""
    return output.parent / f"{output.name}.private"


def _first(rejected: Sequence[tuple[str, str]]) -> str:
    return ": ".join(rejected[0])


def _in_splits(sources: Iterable[Source]) -> list[Source]:
    """Split by split, in the order of their first record, so that one tar is open at a time."""
    by_split: dict[str, list[Source]] = {}
    for source in sources:
        by_split.setdefault(source.split, []).append(source)
    return [source for own in by_split.values() for source in own]


def _fingerprint(sources: Sequence[Source], *settings: Any) -> str:
    """Of everything that the bytes of the shards depend on, the records' own bytes aside."""
    digest = hashlib.sha256(repr(settings).encode())
    for source in sources:
        digest.update(json.dumps(asdict(source), default=str, sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a folder against a second build; the kernel lets go of it however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "owner.lock").open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(f"{folder} is being written by another build: wait for it or stop it") from None
        yield


@contextmanager
def _told_when_full(folder: Path) -> Iterator[None]:
    """A full disk as a sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"{folder} can't grow ({error.strerror}): make room, and the same command goes on from the last whole tar"
        ) from error


def _read_state(folder: Path, fingerprint: str) -> _State:
    """Where a build that was stopped stands; tars that it did not finish are removed."""
    path = folder / "state.json"
    state = _State(fingerprint, 0, {}, [])
    if path.exists():
        state = _State(**json.loads(path.read_text(encoding="utf-8")))
    if state.fingerprint != fingerprint:
        raise ValueError(
            f"{folder} holds a build that was begun with other settings or another list of records:"
            " give the same ones to go on, or delete it to begin anew"
        )
    whole = {tar_name(split, number) for split, count in state.tars.items() for number in range(count)}
    for tar in folder.glob("*.tar"):
        if tar.name not in whole:
            tar.unlink()
    return state


def _write_tars(folder: Path, state: _State, converted: Iterable[Converted], samples_per_shard: int) -> None:
    """Write what comes, tar by tar; `state` follows."""
    tar: TarWriter | None = None
    split, read = "", state.next
    rejected = list(state.rejected)

    def finish(writer: TarWriter) -> None:
        writer.close()
        state.tars[split] = state.tars.get(split, 0) + 1
        state.next, state.rejected = read, list(rejected)
        replace_text(folder / "state.json", json.dumps(asdict(state)))

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


def _convert_all(
    sources: Sequence[Source], reader: Reader, leads: Leads, description: Description, workers: int
) -> Iterator[Converted]:
    """Each source, read and converted, in their order."""
    convert = partial(_convert, reader=reader, leads=leads, description=description)
    if workers <= 1 or len(sources) <= CHUNK:
        yield from map(convert, sources)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),))
    chunks = (sources[start : start + CHUNK] for start in range(0, len(sources), CHUNK))
    try:
        waiting: deque[Future[list[Converted]]] = deque(
            pool.submit(_convert_chunk, convert, chunk) for chunk in islice(chunks, AHEAD * workers)
        )
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(_convert_chunk, convert, chunk) for chunk in islice(chunks, 1))
            yield from done
    except BrokenProcessPool:
        raise ValueError(
            "a process that reads records died, perhaps for want of memory: the same command goes on from the last"
            " whole tar; give it fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    die_with_parent(parent)
    ignore_signals()


def _convert_chunk(convert: Callable[[Source], Converted], sources: Sequence[Source]) -> list[Converted]:
    return [convert(source) for source in sources]


def _convert(source: Source, reader: Reader, leads: Leads, description: Description) -> Converted:
    """One record into the files of its sample; what is wrong with it becomes the reason."""
    try:
        signal = conform(reader.read(source.path, source.row), leads)
        to_millivolt(signal.array_CT, signal.scale)  # what can't be read again must not get into a tar
    except ValueError as error:
        return Converted(source, None, str(error))
    meta: dict[str, Any] = {"id": source.key, "patient_id": source.patient_id, **source.meta}
    if source.labels:
        meta["labels"] = list(source.labels)
    if signal.scale is not None:
        meta["scale"] = signal.scale
    if not all(signal.keep):
        meta["lead_keep"] = signal.keep
    if signal.flat:
        meta["flat_leads"] = signal.flat
    if signal.gaps:
        meta["gaps"] = signal.gaps
    record = Record(source.split, source.key, signal.array_CT, meta, source.text)
    return Converted(source, members(record, description), "")


def _write_private(folder: Path, sources: Sequence[Source], rejected: Sequence[tuple[str, str]]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = {name for name, _ in rejected}
    known = [
        (source.key, source.name, source.patient_id or "", source.patient or "")
        for source in sources
        if source.name not in out
    ]
    replace_text(folder / "pseudonyms.csv", _csv(("key", "record", "patient_id", "patient"), known))
    replace_text(folder / "rejected.csv", _csv(("record", "reason"), rejected))


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
