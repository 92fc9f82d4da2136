"""Texts of volumes out of a JSON: by the name of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from src.data.builders.ct import SUFFIXES
from src.data.builders.sources import Listing, Source

LARGEST_TEXTS = 1 << 30


class Matched(NamedTuple):
    """A listing with its texts."""

    listing: Listing
    unmatched: list[str]
    """Names of the JSON that no volume has."""


def read_texts(path: Path, name_key: str, text_key: str) -> dict[str, str]:
    """{name: text} out of a JSON: an object `{name: text}`, or a list of objects with a name and a text each.

    A text of blanks is an empty one: its name is that of a volume nevertheless.

    Raises:
        ValueError: no such file, no JSON, another form, a name that comes twice.
    """
    try:
        if path.stat().st_size > LARGEST_TEXTS:
            raise ValueError(f"{path} has more than {LARGEST_TEXTS:,} bytes: split it")
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is not there: name the JSON of the texts with --texts") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON in UTF-8 ({error})") from None
    except (_Twice, RecursionError) as error:
        raise ValueError(f"{path} can't be used: {error}") from None
    pairs = content.items() if isinstance(content, dict) else _pairs(path, content, name_key, text_key)
    texts: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(text, str):
            raise ValueError(f"{path}: the text of {name} is {type(text).__name__}, expected is a string")
        if name in texts:
            raise ValueError(f"{path} has two texts of {name}: keep one")
        texts[name] = text.strip()
    return texts


class _Twice(Exception):
    """A key of an object that comes twice, of which json would take the last."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(f"the key {name} comes twice: keep one")
        found[name] = value
    return found


def _pairs(path: Path, content: Any, name_key: str, text_key: str) -> list[tuple[str, Any]]:
    if not isinstance(content, list):
        raise ValueError(f"{path} is neither an object {{name: text}} nor a list of objects")
    pairs = []
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get(name_key), str) or text_key not in entry:
            raise ValueError(
                f"{path}: entry {number} has no {name_key} and {text_key}: name its keys with --path-column and"
                " --text-column"
            )
        pairs.append((entry[name_key], entry[text_key]))
    return pairs


def with_texts(listing: Listing, texts: Mapping[str, str]) -> Matched:
    """The listing with the text of each volume: by its path, by its file's name, or by these without suffix.

    A name with a folder is a path and nothing else: files of two patients may be called alike.

    Raises:
        ValueError: no name is that of a volume, or one could be that of several.
    """
    volumes: dict[str, list[int]] = {}
    for number, source in enumerate(listing.sources):
        for name in _names(source):
            volumes.setdefault(name, []).append(number)
    sources = list(listing.sources)
    unmatched: list[str] = []
    taken: dict[int, str] = {}
    for name, text in texts.items():
        found = volumes.get(name, [])
        if len(found) > 1:
            one, other = (listing.sources[number].name for number in found[:2])
            raise ValueError(f"the text of {name} could be that of {one} or of {other}: name it by its path")
        if not found:
            unmatched.append(name)
            continue
        number = found[0]
        if number in taken:
            raise ValueError(f"the texts of {taken[number]} and {name} are both of {listing.sources[number].name}")
        taken[number] = name
        sources[number] = replace(sources[number], text=text or None)
    if texts and not taken:
        raise ValueError(
            f"none of {len(texts):,} texts is of one of {len(sources):,} volumes: {unmatched[0]} is no file's name, as"
            f" {sources[0].name if sources else 'none'} is"
        )
    return Matched(replace(listing, sources=sources), unmatched)


def _names(source: Source) -> set[str]:
    names = {source.name, Path(source.name).name}
    stems = {name[: -len(suffix)] for name in names for suffix in SUFFIXES if name.casefold().endswith(suffix)}
    return names | stems
