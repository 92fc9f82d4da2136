"""What the shards must know of a modality: ECG, image, video or CT each give these few answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from src.data.index import Index

Members = Sequence[tuple[str, memoryview]]
"""Names (`ecg.npy`) and bytes of the members of a sample that hold its content."""


class Gather(Protocol):
    """Looks at all samples of a folder, one after the other."""

    def add(self, split: str, sample: Mapping[str, Any]) -> None:
        """Take in a sample.

        Raises:
            ValueError: what is wrong with it.
        """

    def facts(self) -> dict[str, Any]:
        """What the modality's index tells beside what all have."""

    def counts(self) -> dict[str, Any]:
        """What people are told of the samples; can be written as JSON."""


@dataclass(frozen=True)
class Modality:
    """The answers of one modality."""

    name: str
    wanted: str
    """The member that a sample must have, for errors."""
    index: type[Index]
    fields: Callable[[Iterable[str]], tuple[str, ...]]
    """Of the members' names those with a sample's content, in their order."""
    decode: Callable[[Members, dict[str, Any]], dict[str, Any]]
    """The modality's keys of a sample out of its members and its json, which loses what they tell; raises ValueError
    for what can't be used."""
    gather: Callable[..., Gather]
    """A new one; takes what is stated of all samples before they are looked at (`Index.given`)."""
    lines: Callable[[Mapping[str, Any]], Iterable[str]]
    """The counts of a split, as text."""
    heading: Callable[[Any], str]
    """What an index says of all samples, in a few words."""
    remarks: Callable[[Any], Iterable[str]]
    """What whoever built an index should know of it."""
