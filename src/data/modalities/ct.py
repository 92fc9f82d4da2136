"""CT volumes in shards: `<key>.ct.npz` with one array in HU, of which the windows of the index are a view."""

# C channels of a volume, D H W its axes, K channels times windows

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from src.data.columns import columns
from src.data.index import TRAINING_SPLIT, Entry, Index
from src.data.modality import Members, Modality
from src.data.npz import unpack_npz
from src.transforms.ct_windows import PRESETS, Window

NAME = "ct"
FIELD = "ct.npz"
LARGEST_VOLUME = 2 << 30
"""Bytes that one volume may unpack to: 512 x 512 x 4096 in 16 bits. More is a bomb, or no chest."""
MOST_CHANNELS = 16
DEFAULT_WINDOWS = (PRESETS["lung"], PRESETS["mediastinum"])
LEVELS = 1 << 16
LOWEST = -(1 << 15)

Triple = tuple[float, float, float]
Sizes = tuple[PositiveInt, PositiveInt, PositiveInt]


class WindowEntry(Entry):
    """A window of HU."""

    name: str
    center: float
    width: float


class Statistics(Entry):
    """Of each window over the training split alone, within 0 .. 1; all windows of the first channel come first."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    """Voxels of a channel."""
    low: float
    high: float
    """The least and the greatest HU, before any window."""


class CTIndex(Index):
    """What all volumes of a folder share."""

    modality: Literal["ct"] = "ct"
    channels: PositiveInt
    orientation: str | None
    """What D, H, W go to, as in SPL (superior, posterior, left), of every sample; None where it is not one for all."""
    orientations: dict[str, PositiveInt]
    """Samples of each; those of which nobody knows are left out."""
    spacing: tuple[Triple, Triple] | None
    """Least and greatest mm along D, H, W; None where some sample does not tell."""
    shapes: tuple[Sizes, Sizes]
    """Least and greatest D, H, W."""
    units: Literal["HU"] = "HU"
    windows: tuple[WindowEntry, ...]
    """What a decoder may turn HU into, a channel each; the shards hold HU, so that others may be chosen later."""
    statistics: Statistics | None
    """None where there is no training split."""

    def given(self) -> dict[str, Any]:
        """The windows."""
        return {"windows": tuple(Window(window.name, window.center, window.width) for window in self.windows)}


def _fields(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name == FIELD)


def _decode(members: Members, meta: dict[str, Any]) -> dict[str, Any]:
    ct_CDHW = unpack_npz(members[0][1], None, LARGEST_VOLUME)
    if ct_CDHW.ndim != 4 or 0 in ct_CDHW.shape or len(ct_CDHW) > MOST_CHANNELS:
        raise ValueError(f"a CT of shape {list(ct_CDHW.shape)} is not [channels, D, H, W]")
    if ct_CDHW.dtype not in (np.int16, np.float32):
        raise ValueError(f"a CT of type {ct_CDHW.dtype} is neither int16 nor float32 HU")
    if ct_CDHW.dtype.kind == "f" and not np.isfinite(ct_CDHW).all():
        raise ValueError("its CT holds NaN or infinite values")
    return {"ct": ct_CDHW}


class Moments:
    """Mean and variance of each channel and window, volume by volume (Chan, Golub & LeVeque 1983)."""

    def __init__(self, channels: int, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._count = 0
        self._mean_K = np.zeros(channels * len(windows))
        self._squares_K = np.zeros(channels * len(windows))
        self._low, self._high = math.inf, -math.inf

    def add(self, ct_CDHW: NDArray[Any]) -> None:
        """Take in a volume."""
        self._low, self._high = min(self._low, float(ct_CDHW.min())), max(self._high, float(ct_CDHW.max()))
        found = [moments for channel_DHW in ct_CDHW for moments in _seen(channel_DHW, self._windows)]
        mean_K, variance_K = np.array(found).T
        count = ct_CDHW[0].size
        delta_K, share = mean_K - self._mean_K, count / (self._count + count)
        self._squares_K += variance_K * count + delta_K**2 * self._count * share
        self._mean_K += delta_K * share
        self._count += count

    def statistics(self) -> Statistics:
        """What the index keeps."""
        std_K = np.sqrt(self._squares_K / self._count)
        return Statistics(
            mean=tuple(self._mean_K.tolist()),
            std=tuple(std_K.tolist()),
            count=self._count,
            low=self._low,
            high=self._high,
        )


def _seen(channel_DHW: NDArray[Any], windows: Sequence[Window]) -> Iterator[tuple[float, float]]:
    """Mean and variance of a channel in each window; of int16 by counting its values, once for all windows."""
    if channel_DHW.dtype == np.int16:
        counts = np.zeros(LEVELS, np.int64)
        for slice_HW in channel_DHW:
            found = np.bincount(slice_HW.reshape(-1).astype(np.int64) - LOWEST)
            counts[: len(found)] += found
        present = np.flatnonzero(counts)
        values, weights = (present + LOWEST).astype(np.float64), counts[present]
    else:
        values, weights = channel_DHW.reshape(-1).astype(np.float64), None
    for window in windows:
        seen = np.clip((values - window.low) / window.width, 0, 1)
        mean = float(np.average(seen, weights=weights))
        yield mean, float(np.average((seen - mean) ** 2, weights=weights))


class GatherCTs:
    """Channels, orientation, spacings, shapes and statistics of all volumes of a folder.

    Raises:
        ValueError: what is wrong with the windows, or with a sample in `add`.
    """

    def __init__(self, windows: Sequence[Window] = DEFAULT_WINDOWS) -> None:
        if not windows:
            raise ValueError("a CT needs a window at least: name one with --windows")
        names = [window.name for window in windows]
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"two windows are called {repeated[0]}: give each window a name of its own")
        self._windows = tuple(windows)
        self._channels: int | None = None
        self._orientations: Counter[str | None] = Counter()
        self._shapes: list[tuple[int, ...]] = []
        self._spacings: list[tuple[float, ...]] = []
        self._told, self._samples = 0, 0
        self._moments: Moments | None = None

    def add(self, split: str, sample: Mapping[str, Any]) -> None:
        """Take in a sample."""
        ct_CDHW, meta = sample["ct"], sample["meta"]
        if 1 in ct_CDHW.shape[1:]:
            raise ValueError(f"its CT has the shape {list(ct_CDHW.shape)}: a single slice is no volume")
        self._channels = self._channels or len(ct_CDHW)
        if len(ct_CDHW) != self._channels:
            raise ValueError(f"its CT has {len(ct_CDHW)} channels, that of the folder {self._channels}")
        self._orientations[_orientation(meta.get("orientation"))] += 1
        spacing = _spacing(meta.get("spacing"))
        self._samples += 1
        self._shapes = _spans(self._shapes, ct_CDHW.shape[1:])
        if spacing is not None:
            self._told += 1
            self._spacings = _spans(self._spacings, spacing)
        if split == TRAINING_SPLIT:
            self._moments = self._moments or Moments(len(ct_CDHW), self._windows)
            self._moments.add(ct_CDHW)

    def _known_orientations(self) -> dict[str, int]:
        return {name: self._orientations[name] for name in sorted(filter(None, self._orientations))}

    def _one_orientation(self) -> str | None:
        return next(iter(self._orientations)) if len(self._orientations) == 1 else None

    def facts(self) -> dict[str, Any]:
        """Of the index."""
        assert self._channels is not None
        return {
            "channels": self._channels,
            "orientation": self._one_orientation(),
            "orientations": self._known_orientations(),
            "spacing": tuple(self._spacings) if self._told == self._samples else None,
            "shapes": tuple(self._shapes),
            "windows": tuple(WindowEntry(**window._asdict()) for window in self._windows),
            "statistics": self._moments.statistics() if self._moments else None,
        }

    def counts(self) -> dict[str, Any]:
        """What people are told."""
        return {
            "channels": self._channels,
            "orientations": self._known_orientations(),
            "spacing": [list(span) for span in self._spacings],
            "without_spacing": self._samples - self._told,
            "shapes": [list(span) for span in self._shapes],
            "windows": [window.name for window in self._windows],
            "statistics": self._moments.statistics().model_dump() if self._moments else None,
        }


def _orientation(stated: Any) -> str | None:
    if stated is not None and not (isinstance(stated, str) and re.fullmatch("[A-Z]{3}", stated)):
        raise ValueError(f"orientation in its json must be three letters, not {stated!r}")
    return stated


def _spacing(stated: Any) -> Triple | None:
    if stated is None:
        return None
    numbers = (
        isinstance(stated, list) and len(stated) == 3 and all(isinstance(length, int | float) for length in stated)
    )
    if not numbers or not all(0 < length < math.inf for length in stated):
        raise ValueError(f"spacing in its json must be three positive numbers of mm, not {stated!r}")
    return float(stated[0]), float(stated[1]), float(stated[2])


def _spans(spans: list[tuple[Any, ...]], found: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Least and greatest of each place, with one more."""
    low, high = spans or [tuple(found), tuple(found)]
    return [tuple(map(min, low, found)), tuple(map(max, high, found))]


def _each(orientations: Mapping[str, int]) -> str:
    return ", ".join(f"{name} in {count:,}" for name, count in orientations.items()) or "unknown"


def _between(spans: Sequence[Sequence[float]], unit: str) -> str:
    """`512 x 512 x 300`, or from the least to the greatest of each axis."""
    low, high = (" x ".join(f"{value:g}" for value in span) for span in spans)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _lines(counts: Mapping[str, Any]) -> Iterable[str]:
    yield f"shapes: {_between(counts['shapes'], 'voxels')}; orientations: {_each(counts['orientations'])}"
    known = _between(counts["spacing"], "mm") if counts["spacing"] else "unknown"
    without = counts["without_spacing"]
    yield f"spacing: {known}" + (f"; {without:,} samples without one" if without and counts["spacing"] else "")
    statistics = counts["statistics"]
    yield f"HU: {statistics['low']:g} to {statistics['high']:g}"
    names = [
        f"{name} of channel {channel}" if counts["channels"] > 1 else name
        for channel in range(counts["channels"])
        for name in counts["windows"]
    ]
    cells = zip(names, statistics["mean"], statistics["std"], strict=True)
    yield from columns(("window", "mean", "std"), [(name, f"{mean:.4f}", f"{std:.4f}") for name, mean, std in cells])


def _heading(index: CTIndex) -> str:
    windows = ", ".join(f"{window.name} {window.center:g},{window.width:g}" for window in index.windows)
    spacing = _between(index.spacing, "mm") if index.spacing else "unknown spacing"
    channels = f"{index.channels} channels, " if index.channels > 1 else ""
    orientation = index.orientation or "no common orientation"
    return f"CT in HU, {channels}{orientation}, {_between(index.shapes, 'voxels')}, {spacing}; windows {windows}"


def _remarks(index: CTIndex) -> Iterable[str]:
    if index.statistics is None:
        yield f"there is no split {TRAINING_SPLIT} and so no statistics to normalise with"
    if index.spacing is not None and index.spacing[0] != index.spacing[1]:
        yield "voxels differ in size from volume to volume: --spacing brings all to one"
    if index.orientation is None:
        yield (
            f"the volumes' orientations are {_each(index.orientations)}: left and right may differ from one to the"
            " next; --orientation brings all to one"
        )


CT = Modality(NAME, FIELD, CTIndex, _fields, _decode, GatherCTs, _lines, _heading, _remarks)
