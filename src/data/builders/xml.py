"""Reads ECGs in XML, whichever of three kinds the root element says: GE MUSE, Philips Sierra, HL7 aECG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from src.data.builders import aecg, muse, philips
from src.data.builders.about import About
from src.data.builders.records import Unusable, told
from src.data.builders.signals import Channel
from src.data.builders.xml_tree import Element, name_of, parse

SUFFIX = ".xml"
KINDS: dict[str, ModuleType] = {kind.ROOT: kind for kind in (muse, philips, aecg)}


@dataclass(frozen=True)
class XMLFiles:
    """One record in each `.xml`."""

    def rate(self, path: Path, row: int | None) -> float:
        """The highest rate of the record's channels, Hz."""
        return max((channel.rate for channel in self.read(path, row)), default=0.0)

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record.

        Raises:
            ValueError: no file, no XML, another kind, or a record that is damaged.
        """
        root = parse(path)
        with told(path, "an ECG in XML"):
            found: list[Channel] = _kind(root).channels(root)
        if not found:
            raise ValueError("it holds no leads")
        return found


def about_xml(path: Path) -> About:
    """Of whom a record is; the file is read up to its signal.

    Raises:
        ValueError: as for its signal.
    """
    root = parse(path, until=frozenset(kind.SIGNAL for kind in KINDS.values()))
    with told(path, "an ECG in XML"):
        found: About = _kind(root).about(root)
    return found


def _kind(root: Element) -> ModuleType:
    kind = KINDS.get(name_of(root))
    if kind is None:
        raise Unusable(f"its root is {name_of(root)[:40]}, known are {', '.join(KINDS)}")
    return kind
