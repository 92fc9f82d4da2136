"""One sample, and how it comes out of the bytes that a shard holds. Nothing is ever unpickled."""

# C leads, T samples of a lead, K labels

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ECG_FIELD = "ecg.npy"
META_FIELD = "json"


class Sample(TypedDict):
    """What a shard holds of one record."""

    key: str
    ecg: NDArray[np.float32]
    """[C, T] in mV."""
    labels: NDArray[np.float32]
    """[K], NaN where unknown."""
    meta: dict[str, Any]
    """The json member without its labels: id, patient_id, sampling_rate, leads, ..."""


class Row(NamedTuple):
    """A sample in a tar, as a row of its offset table tells; places are (offset, size) inside the extent."""

    key: bytes
    start: int
    size: int
    crc32: int
    ecg: tuple[int, int]
    meta: tuple[int, int]


def rows(table: NDArray[np.void]) -> Iterator[Row]:
    """Rows of an offset table as Python numbers, column by column: ten times as fast as one by one."""
    absent = [(-1, -1)] * len(table)
    places = [table[name].tolist() if name in (table.dtype.names or ()) else absent for name in (ECG_FIELD, META_FIELD)]
    head = [table[name].tolist() for name in ("key", "start", "size", "crc32")]
    return map(Row, *head, *places)


def decode_sample(row: Row, extent: bytes, labels: int) -> Sample:
    """A sample from its extent in the tar; `labels` is the number K that the index names.

    Raises:
        ValueError: what is wrong with the bytes; the caller knows and adds the file and the sample.
    """
    view, key = memoryview(extent), row.key.decode()
    if row.ecg[0] < 0:
        raise ValueError(f"there is no member {key}.{ECG_FIELD}")
    meta = decode_meta(_member(view, row.meta)) if row.meta[0] >= 0 else {}
    known = meta.pop("labels", None)
    return Sample(
        key=key,
        ecg=to_millivolt(decode_npy(_member(view, row.ecg)), meta.get("scale")),
        labels=decode_labels([None] * labels if known is None else known, labels),
        meta=meta,
    )


def _member(extent: memoryview, place: tuple[int, int]) -> memoryview:
    offset, size = place
    return extent[offset : offset + size]


def decode_labels(known: Any, labels: int) -> NDArray[np.float32]:
    """[K] from the json's list, in which null is unknown."""
    try:
        labels_K = np.array([math.nan if label is None else label for label in known], np.float32)
    except (TypeError, ValueError):
        labels_K = np.empty(0, np.float32)
    if labels_K.shape != (labels,):
        raise ValueError(f"labels {known!r} in the json are not {labels} numbers, as many as the index names")
    return labels_K


def decode_meta(text: memoryview) -> dict[str, Any]:
    """The json member as a dict."""
    try:
        meta = json.loads(str(text, "utf-8"))
    except ValueError as error:
        raise ValueError(f"the json can't be read ({error})") from error
    if not isinstance(meta, dict):
        raise ValueError("the json is not an object")
    return meta


def to_millivolt(signal_CT: NDArray[Any], scale_C: list[float] | None) -> NDArray[np.float32]:
    """Integer units times mV per unit of each lead, or floats that are mV already; always a new float32 array.

    The product is rounded once, to float32, from a scale that is itself rounded to float32: together the value is off
    by less than 2^-23 of itself. A unit is at least 2^-15 of any int16, so round(ecg / scale) is the stored integer.
    """
    if signal_CT.ndim != 2 or 0 in signal_CT.shape:
        raise ValueError(f"an ECG of shape {list(signal_CT.shape)} is not [leads, samples]")
    if signal_CT.dtype.kind == "f":
        if scale_C is not None:
            raise ValueError(f"the json has a scale though {signal_CT.dtype} values are mV already")
        return signal_CT.astype(np.float32)
    if signal_CT.dtype.kind != "i" or signal_CT.dtype.itemsize > 2:
        raise ValueError(f"an ECG of type {signal_CT.dtype} is neither int16 with a scale nor floating point")
    ecg_CT = signal_CT.astype(np.float32)
    try:
        ecg_CT *= _scale_C1(tuple(scale_C or ()), len(signal_CT))
    except TypeError as error:  # no list, or one of lists, which has no hash
        raise ValueError(f"scale in the json is not a list of numbers: {scale_C}") from error
    return ecg_CT


@lru_cache(maxsize=1024)
def _scale_C1(scale_C: tuple[Any, ...], leads: int) -> NDArray[np.float32]:
    """The scale as [C, 1], if it is one that float32 and its products with int16 hold in full precision; cached."""
    if len(scale_C) != leads or not all(isinstance(scale, int | float) and 1e-30 < scale < 1e30 for scale in scale_C):
        raise ValueError(
            f"int16 needs scale in the json, positive mV per unit for each of {leads} leads, not {list(scale_C)}"
        )
    return np.array(scale_C, np.float32)[:, None]


def decode_npy(data: memoryview) -> NDArray[Any]:
    """A read-only view of a .npy file's array: np.load without its parsing, 2 us for 50."""
    if data[:6] != npy.MAGIC_PREFIX or len(data) < 12:
        raise ValueError("an array that is not in .npy format")
    start = 10 + struct.unpack_from("<H", data, 8)[0] if data[6] == 1 else 12 + struct.unpack_from("<I", data, 8)[0]
    dtype, shape, fortran, count = _npy_header(bytes(data[:start]))
    if len(data) != start + count * dtype.itemsize:
        raise ValueError(f"an array of shape {list(shape)} and type {dtype} in {len(data) - start} bytes")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Type, shape, Fortran order and number of elements; cached, since a data set has few different headers."""
    stream = io.BytesIO(header)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array in .npy version {version}, which only structured types need")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be unpickled")
    return dtype, shape, fortran, math.prod(shape)
