"""The index of a folder of tars: where each sample lies, and what all of them share.

Every sample is decoded once here, so that what would stop a training run after a night is told while building.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.index import (
    INDEX_NAME,
    Index,
    Labels,
    ShardEntry,
    save_index,
    table_path,
    table_type,
)
from src.data.modalities import MODALITIES
from src.data.modality import Modality
from src.data.sample import Sample, content_of, decode_sample, fields_of, rows
from src.data.scan import scan_tar
from src.files import sha256_of

Progress = Callable[[Collection[Path]], Iterable[Path]]
"""Wraps the list of tars to show how far it is, as tqdm does."""


def find_tars(root: Path, patterns: Mapping[str, str] | None = None) -> dict[str, list[Path]]:
    """The tars of a folder that has no index yet, by split, each split in the order of the names.

    Without patterns the split is the name less its number (`train-000012.tar`); with them it is {split: glob}, and
    tars that no glob matches are left out.

    Raises:
        ValueError: no folder, no tars, an index that is there already, a tar in two splits.
    """
    tars = sorted(root.glob("*.tar"))
    if not tars:
        raise ValueError(f"{root} holds no .tar: name the folder of the shards with --input")
    if (root / INDEX_NAME).exists():
        raise ValueError(f"{root} has an {INDEX_NAME} already: delete it to index the folder again")
    splits: dict[str, list[Path]] = {}
    if patterns is None:
        for tar in tars:
            splits.setdefault(re.sub(r"[-_.]?\d+$", "", tar.stem) or "all", []).append(tar)
        return splits
    for split, pattern in patterns.items():
        splits[split] = [tar for tar in tars if tar.match(pattern)]
        if not splits[split]:
            raise ValueError(f"no .tar in {root} matches {pattern}, which --split gives for {split}")
        for other in list(splits)[:-1]:
            if both := set(splits[split]) & set(splits[other]):
                raise ValueError(f"{min(both)} matches both {other} and {split}: keep each tar in one --split")
    return splits


@dataclass(frozen=True)
class Contents:
    """What is known of a folder of samples before one is looked at."""

    modality: str
    labels: Labels
    source: Mapping[str, Any]
    """How the samples were made; no dates and no places of this machine, since it is part of the index's identity."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What is stated of all samples: the arguments of the modality's `gather`."""


class Survey:
    """What all samples of a folder share, gathered and checked sample by sample.

    Raises:
        ValueError: what is wrong with the flags, or with a sample in `add`, where the caller adds the file and the key.
    """

    def __init__(self, contents: Contents) -> None:
        names = contents.labels.names
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"two labels are called {repeated[0]}: give each label a name of its own")
        self.gather = MODALITIES[contents.modality].gather(**contents.given)
        self.split_of: dict[str, str] = {}
        self.texts: Counter[str] = Counter()

    def add(self, split: str, sample: Sample) -> None:
        """Take in a sample."""
        self.gather.add(split, sample)
        self._one_split(sample["meta"].get("patient_id"), split)
        self.texts[split] += sample["text"] is not None

    def _one_split(self, patient: Any, split: str) -> None:
        """A patient in two splits would let a model be scored on what it has learnt by heart."""
        if patient is not None and self.split_of.setdefault(str(patient), split) != split:
            raise ValueError(
                f"its patient {patient} is in the splits {self.split_of[str(patient)]} and {split}: keep each in one"
            )

    def patients(self, splits: Iterable[str]) -> dict[str, int]:
        """Different patients of each split."""
        of_patients = list(self.split_of.values())
        return {split: of_patients.count(split) for split in splits}


def make_index(
    root: Path,
    splits: Mapping[str, Sequence[Path]],
    contents: Contents,
    progress: Progress = iter,
    count_duplicates: bool = False,
) -> Index:
    """Scan the tars of each split, write their tables and at last index.json.

    Args:
        root: the folder of the tars.
        splits: the tars of each split, in the order that numbers the samples.
        contents: what is known of the samples.
        progress: shows how far it is.
        count_duplicates: put into `source` how many samples hold the very content of another (`duplicates`), and
            how many such contents are in several splits (`duplicates_across_splits`); 100 bytes a sample meanwhile.

    Raises:
        ValueError: a tar or a sample that can't be used, named.
    """
    survey, modality = Survey(contents), MODALITIES[contents.modality]
    split_of = {tar: split for split, tars in splits.items() for tar in tars}
    entries: dict[str, list[ShardEntry]] = {split: [] for split in splits}
    keys: list[NDArray[np.bytes_]] = []
    hashes: dict[str, list[NDArray[np.void]]] = {split: [] for split in splits}
    for tar in progress(split_of):
        table = scan_tar(tar)
        if count_duplicates:
            hashes[split_of[tar]].append(_hash_contents(tar, table, modality))
        _survey_tar(survey, split_of[tar], tar, table, modality, len(contents.labels.names))
        keys.append(table["key"])
        entries[split_of[tar]].append(_write_table(tar, table))
    _refuse_repeated_keys(list(split_of), keys)
    source = dict(contents.source)
    index = modality.index(
        modality=contents.modality,
        labels=contents.labels,
        patients=survey.patients(splits),
        texts={split: survey.texts[split] for split in splits},
        splits={split: tuple(shards) for split, shards in entries.items()},
        source={**source, **_duplicates(hashes)} if count_duplicates else source,
        **survey.gather.facts(),
    )
    save_index(root, index)
    return index


def members_of(tar: Path) -> tuple[str, ...]:
    """The fields of a tar's samples.

    Raises:
        ValueError: as `scan_tar`.
    """
    return (scan_tar(tar).dtype.names or ())[len(table_type(1, []).names or ()) :]


def told_by(tar: Path, members: Collection[str]) -> str:
    """The modality whose members a tar holds.

    Raises:
        ValueError: none, or several.
    """
    found = [name for name, modality in MODALITIES.items() if modality.fields(members)]
    if len(found) != 1:
        wanted = ", ".join(f"{modality.wanted} ({name})" for name, modality in MODALITIES.items())
        raise ValueError(
            f"{tar.name} holds the members {', '.join(members)}, expected are those of one modality: {wanted}"
        )
    return found[0]


def _survey_tar(
    survey: Survey, split: str, tar: Path, table: NDArray[np.void], modality: Modality, labels: int
) -> None:
    """Decode each sample of a tar that was just scanned."""
    fields = fields_of(table, modality)
    with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for row in rows(table, fields):
            try:
                extent = data[row.start : row.start + row.size]
                survey.add(split, decode_sample(row, extent, labels, modality, fields))
            except ValueError as error:
                raise ValueError(f"{tar.name}: sample {row.key.decode()} can't be used: {error}") from error


def _hash_contents(tar: Path, table: NDArray[np.void], modality: Modality) -> NDArray[np.void]:
    """The sha256 of the stored content of each sample, [samples] of 32 bytes."""
    digests = bytearray()
    with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for row in rows(table, fields_of(table, modality)):
            digests += hashlib.sha256(content_of(row, data[row.start : row.start + row.size])).digest()
    return np.frombuffer(bytes(digests), "V32")


def _duplicates(hashes: Mapping[str, Sequence[NDArray[np.void]]]) -> dict[str, int]:
    """Samples whose content an earlier one has, and contents that are in several splits."""
    of_splits = [np.concatenate(own).view("S32") for own in hashes.values() if own]
    # S32 leaves out zeros at the end: two digests would have to agree in all else
    different = [np.unique(own) for own in of_splits]
    _, counts = np.unique(np.concatenate(different), return_counts=True)
    return {
        "duplicates": sum(map(len, of_splits)) - len(counts),
        "duplicates_across_splits": int((counts > 1).sum()),
    }


def _write_table(tar: Path, table: NDArray[np.void]) -> ShardEntry:
    path = table_path(tar)
    content = io.BytesIO()  # numpy writes into a file by itself and can't say why it fails
    np.lib.format.write_array(content, table, version=(1, 0), allow_pickle=False)
    path.write_bytes(content.getvalue())
    return ShardEntry(
        name=tar.name,
        samples=len(table),
        bytes=tar.stat().st_size,
        sha256=sha256_of(tar),
        index_sha256=sha256_of(path),
    )


def _refuse_repeated_keys(tars: list[Path], keys: list[NDArray[np.bytes_]]) -> None:
    """Keys name samples in the audit and in errors, so that one must not stand for two."""
    ordered = np.sort(np.concatenate(keys))
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        key = ordered[repeated[0]]
        first, second = [tar for tar, own in zip(tars, keys, strict=True) if key in own][:2]
        raise ValueError(
            f"{first.name} and {second.name} both hold the key {key.decode()}: give each sample of a folder a key of"
            " its own and index it again"
        )
