"""One sample, and how it comes out of the bytes that a shard holds. Nothing is ever unpickled."""

# C leads, T samples of a lead, K labels

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from src.data.modality import Modality
from src.data.video import Video

META_FIELD = "json"
TEXT_FIELD = "txt"
CLASS_FIELD = "cls"
"""The number of a class, as other tools write it; where the json has labels, these count."""


class Sample(TypedDict):
    """What a shard holds of one record: what all have, and the keys of its modality."""

    key: str
    labels: NDArray[np.float32]
    """[K], NaN where unknown; read-only."""
    text: str | None
    """The report, if there is one."""
    meta: dict[str, Any]
    """The json member without what other keys tell: id, patient_id, ..."""
    ecg: NotRequired[NDArray[np.float32]]
    """[C, T] in mV."""
    lead_keep: NotRequired[NDArray[np.bool_]]
    """[C], False where a lead is missing (zeros) or flat: it holds no signal."""
    videos: NotRequired[tuple[Video, ...]]
    """Those of a study in their order; encoded still."""
    image: NotRequired[NDArray[np.uint8] | NDArray[np.uint16]]
    """[H, W] grey or [H, W, 3] RGB."""
    ct: NotRequired[NDArray[np.int16] | NDArray[np.float32]]
    """[C, D, H, W] in HU, read-only."""


class Row(NamedTuple):
    """A sample in a tar, as a row of its offset table tells; places are (offset, size) inside the extent."""

    key: bytes
    start: int
    size: int
    crc32: int
    meta: tuple[int, int]
    text: tuple[int, int]
    content: tuple[tuple[int, int], ...]
    """Of the modality's members, in the order of `fields`; (-1, -1) where the sample has no such member."""
    category: tuple[int, int] = (-1, -1)


def fields_of(table: NDArray[np.void], modality: Modality) -> tuple[str, ...]:
    """The members with the samples' content in a tar."""
    names = table.dtype.names or ()
    return modality.fields(name for name in names if isinstance(table.dtype[name].names, tuple))


def rows(table: NDArray[np.void], fields: Sequence[str]) -> Iterator[Row]:
    """Rows of an offset table as Python numbers, column by column: ten times as fast as one by one."""
    absent = [(-1, -1)] * len(table)
    known = table.dtype.names or ()
    head = [table[name].tolist() for name in ("key", "start", "size", "crc32")]
    places = [table[name].tolist() if name in known else absent for name in (META_FIELD, TEXT_FIELD, CLASS_FIELD)]
    content = zip(*(table[name].tolist() for name in fields), strict=True) if fields else repeat((), len(table))
    return map(Row, *head, *places[:2], content, places[2])


def decode_sample(row: Row, extent: bytes, labels: int, modality: Modality, fields: Sequence[str]) -> Sample:
    """A sample from its extent in the tar; `labels` is the number K that the index names.

    Raises:
        ValueError: what is wrong with the bytes; the caller knows and adds the file and the sample.
    """
    view, key = memoryview(extent), row.key.decode()
    members = [(name, _member(view, place)) for name, place in zip(fields, row.content, strict=True) if place[0] >= 0]
    if not members:
        raise ValueError(f"there is no member {key}.{modality.wanted}")
    meta = decode_meta(_member(view, row.meta)) if row.meta[0] >= 0 else {}
    labels_K = _labels(meta, _member(view, row.category) if row.category[0] >= 0 else None, labels)
    content = modality.decode(members, meta)
    sample = {
        "key": key,
        "labels": labels_K,
        "text": decode_text(_member(view, row.text)) if row.text[0] >= 0 else None,
        "meta": meta,
        **content,
    }
    return cast(Sample, sample)


def content_of(row: Row, extent: bytes) -> bytes:
    """What two samples have in common if one is a copy of the other: their content, less report and json."""
    view = memoryview(extent)
    return b"".join(_member(view, place) for place in row.content if place[0] >= 0)


class About(NamedTuple):
    """What a sample is told to be, beside its content."""

    key: str
    labels: NDArray[np.float32]
    """[K]."""
    meta: dict[str, Any]
    """The json member without the labels."""

    @property
    def patient(self) -> str | None:
        """Who it is of, if that is known."""
        patient = self.meta.get("patient_id")
        return None if patient is None else str(patient)


def decode_about(key: str, told: memoryview | None, category: memoryview | None, labels: int) -> About:
    """What a sample's json and cls members tell; raises as `decode_sample`."""
    meta = {} if told is None else decode_meta(told)
    return About(key, _labels(meta, category, labels), meta)


def _labels(meta: dict[str, Any], category: memoryview | None, labels: int) -> NDArray[np.float32]:
    """[K]; the json loses them."""
    known = meta.pop("labels", None)
    if known is None and labels and category is not None:
        known = decode_class(category, labels)
    return decode_labels([None] * labels if known is None else known, labels)


def _member(extent: memoryview, place: tuple[int, int]) -> memoryview:
    offset, size = place
    return extent[offset : offset + size]


def decode_labels(known: Any, labels: int) -> NDArray[np.float32]:
    """[K] from the json's list, in which null is unknown; read-only."""
    try:
        labels_K = _array_of(tuple(known))
    except (TypeError, ValueError):
        labels_K = np.empty(0, np.float32)
    if labels_K.shape != (labels,):
        raise ValueError(f"labels {known!r} in the json are not {labels} numbers, as many as the index names")
    return labels_K


@lru_cache(maxsize=4096)
def _array_of(known: tuple[Any, ...]) -> NDArray[np.float32]:
    """Read-only, since it is one array for all samples with these labels: a data set has few different ones."""
    labels_K = np.array([math.nan if label is None else label for label in known], np.float32)
    labels_K.flags.writeable = False
    return labels_K


def decode_class(number: memoryview, labels: int) -> list[float]:
    """[K] from the number in the cls member."""
    text = bytes(number).strip()
    if not text.isdigit() or int(text) >= labels:
        raise ValueError(f"its cls {text[:20]!r} is no number from 0 to {labels - 1}, of the labels that are named")
    return [float(place == int(text)) for place in range(labels)]


def decode_text(text: memoryview) -> str:
    """The txt member."""
    try:
        return str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 ({error})") from error


def decode_meta(text: memoryview) -> dict[str, Any]:
    """The json member as a dict; by pydantic's parser, faster than json's, which refuses lone surrogates."""
    try:
        meta = from_json(bytes(text), cache_strings="keys")
    except ValueError:
        meta = _json_of(text)
    if not isinstance(meta, dict):
        raise ValueError("the json is not an object")
    return meta


def _json_of(text: memoryview) -> Any:
    try:
        return json.loads(str(text, "utf-8"))
    except ValueError as error:
        raise ValueError(f"the json can't be read ({error})") from error
