"""From what a file holds to Hounsfield units, and the checks that refuse values which are none.

Air is -1000 HU and water 0 by definition, and a body consists of little else: in the seven real volumes of the tests 35
to 67 % of the voxels are air or lung (-1100 to -600 HU), 27 to 61 % soft tissue (-200 to 200), 0.01 % at most lie
below -1100, and 52 to 85 % below -30. So a wrong unit shows, whatever the scanner:

* Values that were rescaled twice (intercept -1024) have 48 to 78 % below -1100, since air comes to lie at -2024.
* Stored values of 0 to 4095, pictures of 8 bits and unit intervals have none below -30.
* A wrong slope or interval puts the air at another place than -1000, or soft tissue at another than 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from src.data.builders.records import Unusable
from src.data.builders.volumes import Volume, rescaled

Kind = Literal["hu", "unit_interval", "rescale"]
SAMPLED = 250_000
"""Voxels that the checks look at, evenly spread: shares of a hundredth are known to a fiftieth of themselves."""
BELOW_AIR, AIR, THIN, LOW, FAT = -1100.0, -1000.0, -600.0, -300.0, -30.0
MOST_BELOW_AIR = 0.02
FEWEST_BELOW_FAT = 0.01
LOW_ENOUGH, FEWEST_THIN = 0.10, 0.20
"""Where a tenth of a volume is below LOW, at least a fifth of that must be below THIN: 91 to 97 % of it are."""
SOFT = (-200.0, 200.0)
FEWEST_SOFT = 0.30
"""Of what is above LOW: 69 to 97 % of it are soft tissue."""
NARROWEST = 20.0
"""HU between the 1st and the 99th of 100 voxels; the noise alone has more."""
PADDING = 0.01
"""A share of the voxels at the least value, if below air, is what scanners write outside of their field of view."""
HIGHEST = 100_000.0
LABELS, MASKS = 1024, 16
ALIKE = 0.5
"""Share of the voxels whose neighbour has the same value: at most 0.06 in real volumes, 0.8 to 0.9 in label maps."""
TOLERANCE = 0.01
"""Of an interval's width, by which values may leave it: interpolation overshoots."""


@dataclass(frozen=True)
class Units:
    """What the values of the files are."""

    kind: Kind
    slope: float | None = None
    intercept: float | None = None
    """Of stored values, where the header has none."""
    interval: tuple[float, float] = (0.0, 1.0)
    interval_hu: tuple[float, float] | None = None
    """What the ends of the interval stand for."""
    checked: bool = True
    """Refuse what can't be HU of a chest."""


def to_hounsfield(volume: Volume, units: Units, slope: float | None, intercept: float | None) -> NDArray[Any]:
    """The values in HU, [C, X, Y, Z]; integers where no arithmetic with fractions was asked for.

    Args:
        volume: its values have the header's own slope and intercept already.
        units: what the values are.
        slope: of this record, as a table has it; instead of that of `units`.
        intercept: likewise.

    Raises:
        ValueError: the values of a channel are no numbers, a label map, or no HU after this; says which units would
            fit.
    """
    values = volume.values_CXYZ
    for number, channel in enumerate(values):
        with _told_of(number, len(values)):
            refuse_unusable(channel)
    if units.kind == "unit_interval":
        return _from_interval(values, units)
    slope = units.slope if slope is None else slope
    intercept = units.intercept if intercept is None else intercept
    found = values if units.kind == "hu" else _rescale(volume, slope, intercept)
    for number, channel in enumerate(found):
        with _told_of(number, len(values)):
            if units.checked and (fault := implausible(channel)):
                raise Unusable(f"as --units {units.kind} {fault}: {fitting(values[number])}")
    return found


@contextmanager
def _told_of(number: int, channels: int) -> Iterator[None]:
    """Faults of one channel of several name it; they count from 0."""
    try:
        yield
    except Unusable as error:
        raise error if channels == 1 else Unusable(f"of its channel {number}: {error}") from None


def refuse_unusable(values: NDArray[Any]) -> None:
    """Refuse NaN, constants and label maps.

    Raises:
        ValueError: which of these it is.
    """
    if values.dtype.kind == "f" and (wrong := values.size - np.count_nonzero(np.isfinite(values))):
        raise Unusable(f"it holds {wrong:,} values that are NaN or infinite")
    if values.min() == values.max():
        raise Unusable(f"it holds the value {values.min():g} throughout")
    if is_label_map(values):
        raise Unusable("it is a label map: whole numbers from 0, alike from voxel to voxel, of which few are different")


def is_label_map(values: NDArray[Any]) -> bool:
    """Whether the values name regions instead of measuring something."""
    flat = values.ravel(order="K")
    places = np.arange(0, flat.size - 1, max(flat.size // SAMPLED, 1) | 1)
    here, beside = flat[places], flat[places + 1]
    if values.min() < 0 or (values.dtype.kind == "f" and not np.array_equal(here, np.rint(here))):
        return False
    different = len(np.unique(here))
    if different > MASKS and (different > LABELS or (different > 150 and values.max() <= 255)):  # a picture of 8 bits
        return False
    inside = here != here.min()
    return different <= MASKS or bool((here[inside] == beside[inside]).mean() > ALIKE)


def _rescale(volume: Volume, slope: float | None, intercept: float | None) -> NDArray[Any]:
    """The stored values with the slope and intercept of the header, or of flags where it has none."""
    if slope is None and intercept is None:
        if volume.scale is None:
            raise Unusable(
                "its header has no slope and intercept to rescale with: --units hu if its values are HU already, else"
                " give --slope and --intercept"
            )
        return volume.values_CXYZ
    if volume.scale not in (None, (1.0, 0.0)):
        assert volume.scale is not None
        raise Unusable(
            f"its header has the slope {volume.scale[0]:g} and the intercept {volume.scale[1]:g}, and those given would"
            " come on top: leave them out"
        )
    return rescaled(volume.values_CXYZ, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def _from_interval(values: NDArray[Any], units: Units) -> NDArray[np.float64]:
    assert units.interval_hu is not None
    low, high = units.interval
    low_hu, high_hu = units.interval_hu
    spare = TOLERANCE * (high - low)
    found = low_hu + (values.astype(np.float64) - low) * ((high_hu - low_hu) / (high - low))
    for number, channel in enumerate(values):
        lowest, highest = float(channel.min()), float(channel.max())
        with _told_of(number, len(values)):
            if not low - spare <= lowest < highest <= high + spare:
                raise Unusable(
                    f"its values go from {lowest:g} to {highest:g}, beyond the interval of {low:g} to {high:g}:"
                    f" {fitting(channel)}"
                )
            if units.checked and (fault := implausible(found[number], low_hu)):
                raise Unusable(
                    f"as {low:g} to {high:g} for {low_hu:g} to {high_hu:g} HU {fault}: --interval or --interval-hu is"
                    " another"
                )
    return found


def implausible(values: NDArray[Any], least: float = -np.inf) -> str:
    """Why values can't be HU of a body; empty where they can. `least` is where a window has cut them off."""
    flat = values.ravel(order="K")
    sample = flat[:: max(flat.size // SAMPLED, 1) | 1].astype(np.float64)
    if max(-sample.min(), sample.max()) > HIGHEST:
        return f"it would reach {max(sample.max(), -sample.min(), key=abs):.4g} HU"
    padding = sample == sample.min()
    if sample.min() < BELOW_AIR and padding.mean() > PADDING and not padding.all():
        sample = sample[~padding]
    below_air = float((sample < BELOW_AIR).mean())
    if below_air > MOST_BELOW_AIR:
        return f"{below_air:.0%} of it would be thinner than air, below {BELOW_AIR:g} HU"
    low, high = np.percentile(sample, [1, 99])
    if high - low < NARROWEST:
        return f"98 % of it would lie within {high - low:.3g} HU"
    if (sample < FAT).mean() < FEWEST_BELOW_FAT:
        return f"it would have no air, lung or fat: less than {FEWEST_BELOW_FAT:.0%} is below {FAT:g} HU"
    below = float((sample < LOW).mean())
    soft = float(((sample >= SOFT[0]) & (sample <= SOFT[1])).mean())
    if soft < FEWEST_SOFT * (1 - below):
        return (
            f"its soft tissue would not be at 0 HU: of what is above {LOW:g} HU, {soft / (1 - below):.0%} is between"
            f" {SOFT[0]:g} and {SOFT[1]:g}"
        )
    if least < THIN and below > LOW_ENOUGH and (sample < THIN).mean() < FEWEST_THIN * below:
        return f"its air would not be at {AIR:g} HU: {below:.0%} is below {LOW:g}, and next to nothing below {THIN:g}"
    return ""


def fitting(values: NDArray[Any]) -> str:
    """What `--units` the values look like."""
    lowest, highest = float(values.min()), float(values.max())
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        if low - TOLERANCE <= lowest and highest <= high + TOLERANCE:
            return f"it looks like --units unit_interval --interval {low:g} {high:g}"
    if not implausible(values):
        return "it looks like HU already, --units hu"
    if lowest >= 0 and highest <= 255:
        return "it looks like a picture of 8 bits, which has lost its HU"
    shifted = values.astype(np.float64)
    for intercept in (-1024.0, -1000.0):
        if not implausible(shifted + intercept):
            return f"it looks like stored values, --units rescale with --slope 1 --intercept {intercept:g}"
        if not implausible(shifted - intercept):
            return (
                f"it looks like HU that were rescaled once too often: give the files before that, or --units rescale"
                f" with --slope 1 --intercept {-intercept:g}"
            )
    return "no --units fits it; --unchecked-units takes it as it is"
