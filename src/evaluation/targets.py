"""What is predicted, and of which records: labels or a column of the metadata, patients, columns to group by."""

# N records, K labels, classes or targets

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.config.target import TargetConfig
from src.data.sample import About
from src.data.shards import Shards

if TYPE_CHECKING:
    from src.evaluation.linear import Task  # scipy


@dataclass(frozen=True)
class Target:
    """A prediction task, fixed by the training records."""

    task: Task
    names: tuple[str, ...]
    """Of the K labels or classes, or of the one column of a regression."""
    column: str | None = None
    """The key of the metadata, where it is no label."""


@dataclass(frozen=True)
class Cases:
    """The records of a split for which the target is known, in the split's order."""

    shards: Shards
    samples_N: NDArray[np.int64]
    keys: list[str]
    ids: list[str]
    patients_N: NDArray[np.str_]
    truth_NK: NDArray[np.float64]
    """0, 1 and NaN (unknown) of each label or class, or the values of a regression."""
    columns: dict[str, list[Any]]
    """The metadata that was asked for; None where a record has none."""

    def __len__(self) -> int:
        return len(self.keys)

    def targets(self, task: Task) -> NDArray[Any]:
        """The truth as heads and scores want it: [N, K], or the class of each record [N]."""
        return self.truth_NK.argmax(1) if task == "multiclass" else self.truth_NK


class Truth:
    """Tells the truth of single samples of a split."""

    def __init__(self, shards: Shards, target: Target) -> None:
        """
        Raises:
            ValueError: the split lacks one of the labels.
        """
        self.target = target
        self._places = _places(shards, target) if target.column is None else []

    def of(self, about: About) -> list[float]:
        """0, 1 and NaN (unknown) of each label or class, or the value of a regression."""
        return _truth(about, self.target, self._places)


def target_of(shards: Shards, config: TargetConfig) -> Target:
    """What a section `target` asks for, as the training records have it.

    Raises:
        ValueError: as `label_target` and `column_target`.
    """
    wanted: Task | None = None if config.task == "auto" else config.task
    if config.column is None:
        return label_target(shards, config.labels, wanted)
    return column_target(shards, config.column, wanted)


def label_target(shards: Shards, patterns: Sequence[str] | None, task: Task | None) -> Target:
    """Labels of the index by name or pattern, in its order; a pattern behind `!` takes labels out again.

    Raises:
        ValueError: there are none, or a pattern fits none; says which there are.
    """
    names = shards.label_names
    if not names:
        raise ValueError(
            f"{shards.root} has no labels: build it with labels, or predict a target.column of its metadata"
        )
    wanted = [pattern for pattern in patterns or ["*"] if not pattern.startswith("!")] or ["*"]
    unwanted = [pattern[1:] for pattern in patterns or () if pattern.startswith("!")]
    for pattern in wanted + unwanted:
        if not fnmatch.filter(names, pattern):
            shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
            raise ValueError(f"target.labels: {shards.root} has no label {pattern}; there is {shown}")
    chosen = tuple(name for name in names if _fits(name, wanted) and not _fits(name, unwanted))
    if not chosen:
        raise ValueError(f"target.labels: {', '.join(patterns or ())} leaves no label of {shards.root}")
    return Target(task or shards.index.labels.kind, chosen)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def column_target(shards: Shards, column: str, task: Task | None) -> Target:
    """A column of the metadata: its numbers, or its different words in the training records as classes.

    Raises:
        ValueError: no record has it, or its values do not fit the task.
    """
    values = [about.meta.get(column) for about in shards.about()]
    known = [value for value in values if not _missing(value)]
    if not known:
        raise ValueError(f"target.column: no record of split {shards.split} in {shards.root} has {column} in its json")
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    task = task or ("regression" if numeric else "multiclass")
    if task == "regression":
        if not numeric:
            raise ValueError(f"target.column: {column} holds words such as {known[0]!r}: set target.task to multiclass")
        return Target(task, (column,), column)
    classes = tuple(sorted({as_word(value) for value in known}))
    if not 2 <= len(classes) <= 100:
        raise ValueError(f"target.column: {column} has {len(classes)} different values; classes are 2 to 100")
    return Target(task, classes, column)


def read_cases(shards: Shards, target: Target, columns: Sequence[str]) -> Cases:
    """The records of a split for which the target is known.

    Raises:
        ValueError: the split lacks one of the labels, or none of its records is known.
    """
    truths = Truth(shards, target)
    keys, ids, patients, truth, found = [], [], [], [], []
    for about in shards.about():  # not of what the samples hold: CTs are large
        keys.append(about.key)
        ids.append(str(about.meta.get("id", about.key)))
        patients.append(about.patient or about.key)
        truth.append(truths.of(about))
        found.append([None if _missing(about.meta.get(name)) else about.meta[name] for name in columns])
    truth_NK = np.array(truth, np.float64).reshape(len(keys), len(target.names))
    known_N = np.flatnonzero(~np.isnan(truth_NK).all(1))
    if not known_N.size:
        raise ValueError(f"split {shards.split} of {shards.root} has no record whose {_what(target)} is known")
    return Cases(
        shards,
        known_N,
        [keys[row] for row in known_N],
        [ids[row] for row in known_N],
        np.array([patients[row] for row in known_N], np.str_),
        truth_NK[known_N],
        {name: [found[row][place] for row in known_N] for place, name in enumerate(columns)},
    )


class WithPatients(Protocol):
    """Records of a split."""

    @property
    def shards(self) -> Shards: ...

    @property
    def patients_N(self) -> NDArray[np.str_]: ...


def refuse_shared_patients(held: Iterable[WithPatients], tests: Mapping[str, WithPatients], key: str) -> None:
    """A patient of a test set must not be one of the splits that are `held`, if both come from the same shards.

    Raises:
        ValueError: one is; `key` is that of the test sets.
    """
    for name, test in tests.items():
        for split in held:
            if split.shards.sha256 != test.shards.sha256:
                continue
            shared = set(split.patients_N) & set(test.patients_N)
            if shared:
                raise ValueError(
                    f"{key}.{name}: {len(shared)} of its patients are in split {split.shards.split} too, "
                    f"patient {min(shared)} for one; test on a split with other patients"
                )


P = TypeVar("P", bound=WithPatients)


def on_other_splits(held: WithPatients, tests: Mapping[str, P]) -> dict[str, P]:
    """The test sets that are not that very split: who names it twice knows that both are the same records."""
    here = (held.shards.sha256, held.shards.split)
    return {name: test for name, test in tests.items() if (test.shards.sha256, test.shards.split) != here}


def _what(target: Target) -> str:
    return target.column or "label"


def _places(shards: Shards, target: Target) -> list[int]:
    missing = [name for name in target.names if name not in shards.label_names]
    if missing:
        raise ValueError(
            f"{shards.root} has no label {missing[0]}, which is to be predicted: build it with the same labels"
        )
    return [shards.label_names.index(name) for name in target.names]


def _truth(about: About, target: Target, places: list[int]) -> list[float]:
    if target.column is None:
        chosen = [float(about.labels[place]) for place in places]
        if target.task == "multiclass":
            of_class = [float(label == 1) for label in chosen]
            return of_class if sum(of_class) == 1 else [math.nan] * len(chosen)  # of none or several of these classes
        return chosen
    value = about.meta.get(target.column)
    if target.task == "regression":
        return [float(value) if isinstance(value, int | float) and not _missing(value) else math.nan]
    found = [float(not _missing(value) and as_word(value) == name) for name in target.names]
    return found if sum(found) else [math.nan] * len(found)


def as_word(value: Any) -> str:
    """A value of the metadata as a CSV would have it; 5.0 is 5."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
