"""Parses XML that others wrote: no entity is expanded, nothing outside is fetched, and size, depth and count end."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable, refuse_special, told

LARGEST_FILE = 64 << 20
"""Bytes; an ECG of 10 s with 12 leads has some 200,000."""
MOST_ELEMENTS, DEEPEST = 1_000_000, 100
Element: TypeAlias = Any
"""xml.etree.ElementTree.Element, which only defusedxml makes here."""


def parse(path: Path, until: frozenset[str] = frozenset()) -> Element:
    """The root of a file; no further than to the start of an element called one of `until`.

    Raises:
        ValueError: no file, no XML, or a trap: entities, endless depth, too large.
    """
    with told(path, "XML"):
        from defusedxml import EntitiesForbidden, ExternalReferenceForbidden
        from defusedxml.ElementTree import iterparse

        refuse_special(path)
        if path.stat().st_size > LARGEST_FILE:
            raise Unusable(f"{path.name} has {path.stat().st_size:,} bytes, which no ECG in XML has")
        root, depth, count = None, 0, 0
        try:
            with path.open("rb") as file:
                for event, element in iterparse(file, ("start", "end")):
                    root = element if root is None else root
                    depth += 1 if event == "start" else -1
                    count += event == "start"
                    if depth > DEEPEST or count > MOST_ELEMENTS:
                        raise Unusable(f"{path.name} has elements nested or repeated as in no ECG")
                    if event == "start" and name_of(element) in until:
                        break
        except (EntitiesForbidden, ExternalReferenceForbidden):
            raise Unusable(f"{path.name} declares entities, which no ECG needs: it is refused unread") from None
        return root


def name_of(element: Element) -> str:
    """Its tag without namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, name: str) -> Iterator[Element]:
    """Those right below with that name, in any namespace."""
    return (child for child in element if name_of(child) == name)


def find(element: Element | None, *names: str) -> Element | None:
    """The first element down a path of names."""
    for name in names:
        element = next(children(element, name), None) if element is not None else None
    return element


def below(element: Element, name: str) -> Iterator[Element]:
    """Those anywhere below with that name."""
    return (child for child in element.iter() if name_of(child) == name)


def text_of(element: Element | None, *names: str) -> str:
    """The text at the end of a path, without the space around it; empty where there is none."""
    found = find(element, *names)
    return (found.text or "").strip() if found is not None else ""


def number(text: str, what: str) -> float:
    """A finite number.

    Raises:
        ValueError: `what` is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Unusable(f"its {what} is {text[:40]!r}, expected is a number")
    return value


def positive(text: str, what: str) -> float:
    """A finite number above 0."""
    value = number(text, what)
    if value <= 0:
        raise Unusable(f"its {what} is {text[:40]!r}, expected is a number above 0")
    return value


def base64_bytes(text: str, what: str) -> bytes:
    """What a text holds in base64; space between is no matter."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable(f"its {what} is no base64 ({error})") from None


def int16_values(data: bytes, what: str) -> NDArray[np.int64]:
    """Little-endian 16-bit integers."""
    if len(data) % 2:
        raise Unusable(f"its {what} ends in half a sample")
    return np.frombuffer(data, "<i2").astype(np.int64)
