"""What a folder of shards holds, counted sample by sample, and whether it is still what was indexed.

A sample that training would refuse is a fault: it is named, it counts nowhere, and reading goes on behind it. One
sample is in memory at a time; what remains of each is the sha256 of its content, its report and its patient: 130 bytes,
and 150 more while they are compared at the end.
"""

# K labels

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter
from zlib_ng.zlib_ng import crc32

from src.data.index import TRAINING_SPLIT, Index, Labels, ShardEntry, open_table, table_path
from src.data.modalities import MODALITIES
from src.data.modality import Gather
from src.data.sample import Row, Sample, content_of, decode_sample, fields_of, rows
from src.files import sha256_of

Advance = Callable[[int], object]
"""Told how many bytes were read, as tqdm's update is."""
COMMON_LENGTHS = 5
"""Lengths of reports that are told, the most frequent."""
NAMED = 5
"""Contents in two splits whose keys are told."""


class Fault(NamedTuple):
    """What differs from the index, or can't be used."""

    file: str
    key: str | None
    """None where it is the whole file."""
    why: str


class _Counts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelCounts(_Counts):
    """The samples of a split by what they say of one label."""

    positive: int
    negative: int
    unknown: int
    other: int
    """Neither 0 nor 1: a grade or a probability."""


class TextCounts(_Counts):
    """The reports of a split, of which only counts leave."""

    reports: int
    distinct: int
    duplicate_rate: float
    """Of the reports, those that an earlier one says word for word."""
    words: dict[int, int]
    """Reports of the most frequent lengths in words."""


class SplitCounts(_Counts):
    """A split less its faults."""

    samples: int
    patients: int
    unnamed_patients: int
    """Samples that name no patient."""
    tars: int
    bytes: int
    """Of the tars, as indexed."""
    contents: dict[str, Any]
    """What the modality tells of them: lengths, leads, sizes, spacings, ..."""
    labels: dict[str, LabelCounts]
    without_class: int
    """Multiclass: samples that are not of exactly one class; else 0."""
    texts: TextCounts
    duplicates: int
    """Samples whose content an earlier one of the split has."""


class Shared(_Counts):
    """What two splits have in common, by sha256."""

    splits: tuple[str, str]
    contents: int
    patients: int
    keys: tuple[tuple[str, str], ...]
    """The first few contents: the key in each of the two."""


class Inspection(_Counts):
    """What a folder holds."""

    modality: str
    heading: str
    """What all samples share."""
    labels: Labels
    splits: dict[str, SplitCounts]
    shared: tuple[Shared, ...]
    """Pairs of splits that have a content or a patient in common."""
    faults: tuple[Fault, ...]


class _Contents:
    """The sha256 of one thing of each sample, and whose it is: 40 bytes a sample."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._samples = array("q")

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: int, content: bytes) -> None:
        """Take in a sample's."""
        self._digests += hashlib.sha256(content).digest()
        self._samples.append(sample)

    def distinct(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """The different ones in ascending order, and the first sample of each."""
        # S32 leaves out zeros at the end: two digests would have to agree in all else
        found, first = np.unique(np.frombuffer(bytes(self._digests), "S32"), return_index=True)
        return found, np.frombuffer(self._samples, np.int64)[first]


class _Split:
    """Counts one split."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.samples = 0
        self._unnamed = 0
        self._words: Counter[int] = Counter()
        self._labels_4K = np.zeros((4, len(index.labels.names)), np.int64)
        self._without_class = 0
        self._gather = MODALITIES[index.modality].gather(**index.given())
        self.contents, self.patients, self._texts = _Contents(), _Contents(), _Contents()

    def add(self, number: int, sample: Sample, content: bytes) -> None:
        """Take in a sample; `content` is how its content is stored. Raises ValueError if training would refuse it."""
        self._gather.add(TRAINING_SPLIT, sample)  # so that it makes statistics of every split
        self.samples += 1
        self.contents.add(number, content)
        self._add_labels(sample["labels"])
        if (patient := sample["meta"].get("patient_id")) is None:
            self._unnamed += 1
        else:
            self.patients.add(number, str(patient).encode("utf-8", "surrogatepass"))
        if (text := sample["text"]) is not None:
            self._texts.add(number, text.encode())
            self._words[len(text.split())] += 1

    def _add_labels(self, labels_K: NDArray[np.float32]) -> None:
        known_3K = np.stack([labels_K == 1, labels_K == 0, np.isnan(labels_K)])
        self._labels_4K += np.vstack([known_3K, ~known_3K.any(0)])
        if self._index.labels.kind == "multiclass":
            self._without_class += known_3K[0].sum() != 1

    def counts(self, entries: tuple[ShardEntry, ...]) -> SplitCounts:
        """What was taken in."""
        texts = len(self._texts.distinct()[0])
        labels = zip(self._index.labels.names, self._labels_4K.T.tolist(), strict=True)
        return SplitCounts(
            samples=self.samples,
            patients=len(self.patients.distinct()[0]),
            unnamed_patients=self._unnamed,
            tars=len(entries),
            bytes=sum(entry.bytes for entry in entries),
            contents=self._gather.counts() if self.samples else {},
            labels={
                name: LabelCounts(**dict(zip(LabelCounts.model_fields, counts, strict=True))) for name, counts in labels
            },
            without_class=int(self._without_class),
            texts=TextCounts(
                reports=len(self._texts),
                distinct=texts,
                duplicate_rate=1 - texts / len(self._texts) if len(self._texts) else 0.0,
                words=dict(self._words.most_common(COMMON_LENGTHS)),
            ),
            duplicates=self.samples - len(self.contents.distinct()[0]),
        )


def inspect(root: Path, index: Index, *, verify: bool = False, advance: Advance = int) -> Inspection:
    """Read every sample of a folder once, checked by its CRC32, and count.

    Args:
        root: the folder.
        index: its index.
        verify: also compare the sha256 of every tar, which takes a second reading, and the index's own numbers.
        advance: told the bytes that were read; index.bytes() in all, twice that to verify.

    Raises:
        OSError: the storage failed.
    """
    faults: list[Fault] = []
    found: dict[str, _Split] = {}
    whole = MODALITIES[index.modality].gather(**index.given())
    for split, entries in index.splits.items():
        found[split] = _Split(index)
        first = 0
        for entry in entries:
            faults += _count_tar(root / entry.name, entry, index, (split, found[split], whole), first, verify, advance)
            first += entry.samples
    splits = {split: found[split].counts(entries) for split, entries in index.splits.items()}
    if verify and not faults:
        faults += [Fault("index.json", None, why) for why in _disagreements(index, splits, whole.facts())]
    return Inspection(
        modality=index.modality,
        heading=MODALITIES[index.modality].heading(index),
        labels=index.labels,
        splits=splits,
        shared=tuple(_shared(root, index, found)),
        faults=tuple(faults),
    )


def _count_tar(
    tar: Path,
    entry: ShardEntry,
    index: Index,
    counting: tuple[str, _Split, Gather],
    first: int,
    verify: bool,
    advance: Advance,
) -> Iterator[Fault]:
    """Take in the samples of a tar; yields its faults. `counting` is the split, its counts and those of all splits."""
    split, counts, whole = counting
    if not tar.is_file():
        yield Fault(tar.name, None, "is missing though index.json lists it")
        advance(entry.bytes * (1 + verify))
        return
    if (size := tar.stat().st_size) != entry.bytes:
        yield Fault(tar.name, None, f"has {size:,} bytes and was indexed with {entry.bytes:,}")
    if verify:
        if sha256_of(tar) != entry.sha256:
            yield Fault(tar.name, None, "is not the file that was indexed: another sha256")
        advance(entry.bytes)
    table = yield from _table(tar, entry)
    read = 0
    if table is not None:
        fields = fields_of(table, MODALITIES[index.modality])
        with tar.open("rb") as file:
            for number, row in enumerate(rows(table, fields), start=first):
                file.seek(row.start)
                extent = file.read(row.size)
                try:
                    sample = _usable(row, extent, index, fields)
                    counts.add(number, sample, content_of(row, extent))
                    if verify:
                        whole.add(split, sample)
                except ValueError as error:
                    yield Fault(tar.name, row.key.decode(), str(error))
                advance(row.size)
                read += row.size
    advance(entry.bytes - read)


def _table(tar: Path, entry: ShardEntry) -> Generator[Fault, None, NDArray[np.void] | None]:
    """The offset table if it is the indexed one, else None; yields what is wrong with it."""
    path = table_path(tar)
    if not path.is_file():
        yield Fault(path.name, None, f"is missing, so that the {entry.samples:,} samples of {tar.name} can't be found")
        return None
    if sha256_of(path) != entry.index_sha256:
        yield Fault(
            path.name,
            None,
            f"is not the offset table that was indexed (another sha256), so that the {entry.samples:,} samples of"
            f" {tar.name} can't be found",
        )
        return None
    return open_table(path)


def _usable(row: Row, extent: bytes, index: Index, fields: Sequence[str]) -> Sample:
    """A sample as training would take it."""
    changed = len(extent) != row.size or crc32(extent) != row.crc32
    told = "its bytes are not those that were indexed: another CRC32"
    try:
        sample = decode_sample(row, extent, len(index.labels.names), MODALITIES[index.modality], fields)
    except Exception as error:  # damaged bytes let numpy's parser of headers raise anything
        if changed:
            raise ValueError(f"{told}; {error}") from error
        raise
    if changed:
        raise ValueError(told)
    return sample


def _shared(root: Path, index: Index, found: Mapping[str, _Split]) -> Iterator[Shared]:
    """What each two splits have in common."""
    contents = {split: counts.contents.distinct() for split, counts in found.items()}
    patients = {split: counts.patients.distinct()[0] for split, counts in found.items()}
    for one, other in combinations(found, 2):
        same = np.intersect1d(contents[one][0], contents[other][0])
        people = len(np.intersect1d(patients[one], patients[other]))
        if len(same) or people:
            pair = [
                [key_of(root, index.splits[split], int(number)) for number in _first(contents[split], same[:NAMED])]
                for split in (one, other)
            ]
            yield Shared(splits=(one, other), contents=len(same), patients=people, keys=tuple(zip(*pair, strict=True)))


def _first(contents: tuple[NDArray[np.bytes_], NDArray[np.int64]], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    distinct, samples = contents
    return samples[np.searchsorted(distinct, wanted)]


def key_of(root: Path, entries: tuple[ShardEntry, ...], number: int) -> str:
    """The key of a sample by its number in the split."""
    for entry in entries:
        if number < entry.samples:
            return open_table(table_path(root / entry.name))["key"][number].decode()
        number -= entry.samples
    raise AssertionError("no such sample")


def locate(root: Path, index: Index, key: str) -> tuple[str, int]:
    """The split of a key, and its number there.

    Raises:
        ValueError: no sample has it.
    """
    for split, entries in index.splits.items():
        first = 0
        for entry in entries:
            path = table_path(root / entry.name)
            if path.is_file() and sha256_of(path) == entry.index_sha256:
                places = np.flatnonzero(open_table(path)["key"] == key.encode())
                if len(places):
                    return split, first + int(places[0])
            first += entry.samples
    split, entries = next(iter(index.splits.items()))
    raise ValueError(f"--show: {root} has no sample {key}; the first of {split} is {key_of(root, entries, 0)}")


def _disagreements(index: Index, splits: Mapping[str, SplitCounts], facts: Mapping[str, Any]) -> Iterator[str]:
    """Where the index says something else than was counted."""
    for split, counts in splits.items():
        told = (index.samples(split), index.patients.get(split), index.texts.get(split))
        if told != (counted := (counts.samples, counts.patients, counts.texts.reports)):
            yield f"tells {told} samples, patients and reports of {split}, and the tars hold {counted}"
    for name, fact in facts.items():
        told_fact, fact = (_as_json(value) for value in (getattr(index, name), fact))
        if not _same(told_fact, fact):
            yield f"tells {name} {told_fact}, and the tars hold {fact}"


def _as_json(fact: Any) -> Any:
    return json.loads(TypeAdapter(Any).dump_json(fact))


def _same(told: Any, counted: Any) -> bool:
    """Equal, and numbers nearly so: sums of floats depend on their order."""
    if isinstance(told, dict) and isinstance(counted, dict):
        return told.keys() == counted.keys() and all(_same(told[name], counted[name]) for name in told)
    if isinstance(told, list) and isinstance(counted, list):
        return len(told) == len(counted) and all(map(_same, told, counted))
    if isinstance(told, float) and isinstance(counted, float):
        return math.isclose(told, counted, rel_tol=1e-6, abs_tol=1e-9)
    return bool(told == counted)
