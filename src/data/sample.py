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
TEXT_FIELD = "txt"


class Sample(TypedDict):
    """What a shard holds of one record."""

    key: str
    ecg: NDArray[np.float32]
    """[C, T] in mV."""
    lead_keep: NDArray[np.bool_]
    """[C], False where a lead is missing (zeros) or flat: it holds no signal."""
    labels: NDArray[np.float32]
    """[K], NaN where unknown."""
    text: str | None
    """The report, if there is one."""
    meta: dict[str, Any]
    """The json member without labels and lead_keep: id, patient_id, sampling_rate, leads, ..."""


class Row(NamedTuple):
    """A sample in a tar, as a row of its offset table tells; places are (offset, size) inside the extent."""

    key: bytes
    start: int
    size: int
    crc32: int
    ecg: tuple[int, int]
    meta: tuple[int, int]
    text: tuple[int, int]


def rows(table: NDArray[np.void]) -> Iterator[Row]:
    """Rows of an offset table as Python numbers, column by column: ten times as fast as one by one."""
    absent = [(-1, -1)] * len(table)
    fields = (ECG_FIELD, META_FIELD, TEXT_FIELD)
    places = [table[name].tolist() if name in (table.dtype.names or ()) else absent for name in fields]
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
    ecg_CT = to_millivolt(decode_npy(_member(view, row.ecg)), meta.get("scale"))
    return Sample(
        key=key,
        ecg=ecg_CT,
        lead_keep=decode_lead_keep(meta.pop("lead_keep", None), len(ecg_CT)),
        labels=decode_labels([None] * labels if known is None else known, labels),
        text=decode_text(_member(view, row.text)) if row.text[0] >= 0 else None,
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


def decode_lead_keep(kept: Any, leads: int) -> NDArray[np.bool_]:
    """[C] from the json's list; without one every lead is there."""
    if kept is None:
        return np.ones(leads, np.bool_)
    if not isinstance(kept, list) or len(kept) != leads or not all(isinstance(keep, bool) for keep in kept):
        raise ValueError(f"lead_keep in the json is not true or false for each of {leads} leads: {kept!r}")
    return np.array(kept)


def decode_text(text: memoryview) -> str:
    """The txt member."""
    try:
        return str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 ({error})") from error


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

    The value is the float32 nearest to units / gain, gain being 1 / scale: the same bits as wfdb's physical signal
    rounded to float32, and round(ecg / scale) is the stored integer. Where float32 holds the gain (1000 or 204.8 units
    per mV) one division does it; else the product is taken in float64, five times as slow at 12 x 5000.
    """
    if signal_CT.ndim != 2 or 0 in signal_CT.shape:
        raise ValueError(f"an ECG of shape {list(signal_CT.shape)} is not [leads, samples]")
    if signal_CT.dtype.kind == "f":
        if scale_C is not None:
            raise ValueError(f"the json has a scale though {signal_CT.dtype} values are mV already")
        return signal_CT.astype(np.float32)
    if signal_CT.dtype.kind != "i" or signal_CT.dtype.itemsize > 2:
        raise ValueError(f"an ECG of type {signal_CT.dtype} is neither int16 with a scale nor floating point")
    try:
        exact, factor_C1 = _factor_C1(tuple(scale_C or ()), len(signal_CT))
    except TypeError as error:  # no list, or one of lists, which has no hash
        raise ValueError(f"scale in the json is not a list of numbers: {scale_C}") from error
    if not exact:
        return (signal_CT * factor_C1).astype(np.float32)
    ecg_CT = signal_CT.astype(np.float32)
    ecg_CT /= factor_C1
    return ecg_CT


@lru_cache(maxsize=1024)
def _factor_C1(scale_C: tuple[Any, ...], leads: int) -> tuple[bool, NDArray[np.floating]]:
    """(True, gains [C, 1] in float32) if float32 holds all of them, else (False, scales [C, 1] in float64); cached."""
    if len(scale_C) != leads or not all(isinstance(scale, int | float) and 1e-30 < scale < 1e30 for scale in scale_C):
        raise ValueError(
            f"int16 needs scale in the json, positive mV per unit for each of {leads} leads, not {list(scale_C)}"
        )
    scale_C1 = np.array(scale_C, np.float64)[:, None]
    gain_C1 = (1.0 / scale_C1).astype(np.float32)
    exact = bool((np.abs(gain_C1 * scale_C1 - 1.0) <= 2.0**-52).all())
    return exact, gain_C1 if exact else scale_C1


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
