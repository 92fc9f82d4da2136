"""A CT volume of an archive, whatever its format, into the files of its sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from src.data.builders import arrays, nifti, nrrd_files
from src.data.builders.arrays import ArrayFiles
from src.data.builders.grid import Grid, place
from src.data.builders.hounsfield import Units, to_hounsfield
from src.data.builders.nifti import read_nifti
from src.data.builders.nrrd_files import read_nrrd
from src.data.builders.records import Unusable
from src.data.builders.series import read_series
from src.data.builders.sources import Source
from src.data.builders.volumes import Volume
from src.data.modalities.ct import FIELD, NAME
from src.data.npz import pack_npz

SUFFIXES = (*nifti.SUFFIXES, *nrrd_files.SUFFIXES, *arrays.SUFFIXES)
"""Of the files that hold a volume each; all others may be slices of a DICOM series."""


@dataclass(frozen=True)
class ConvertCT:
    """Reads a volume, makes HU of its values and brings it onto the grid."""

    at_a_time: ClassVar[int] = 1
    """A volume has up to hundreds of MB."""
    units: Units
    grid: Grid
    arrays: ArrayFiles
    slope_column: str | None = None
    intercept_column: str | None = None
    """Which of a record's meta rescale its stored values."""
    compress: bool = False
    channels: int = 1
    """That each volume has."""

    def __call__(self, source: Source) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The volume, and what its json tells of it; raises ValueError for what can't be used."""
        volume = self._read(source)
        if len(volume.values_CXYZ) != self.channels:
            raise Unusable(
                f"it has {len(volume.values_CXYZ)} channels, not {self.channels}: --channels says how many all have"
            )
        slope, intercept = _number(source, self.slope_column), _number(source, self.intercept_column)
        hounsfield = to_hounsfield(volume, self.units, slope, intercept)
        found = place(volume, hounsfield, self.grid)
        told: dict[str, Any] = {
            "orientation": found.orientation,
            "spacing": None if found.spacing is None else [round(length, 6) for length in found.spacing],
            "source_shape": list(found.source_shape),
            "source_spacing": None if found.source_spacing is None else [round(own, 6) for own in found.source_spacing],
            "units": self.units.kind,
            "stored": found.stored,
        }
        if volume.oblique > 0.05:
            told["oblique"] = round(volume.oblique, 1)
        return {FIELD: pack_npz(NAME, found.array_CDHW, self.compress)}, told

    def _read(self, source: Source) -> Volume:
        if source.parts:
            return read_series(source.parts)
        name = source.path.name.casefold()
        if name.endswith(nifti.SUFFIXES):
            volume = read_nifti(source.path)
        elif name.endswith(nrrd_files.SUFFIXES):
            volume = read_nrrd(source.path)
        elif name.endswith(arrays.SUFFIXES):
            volume = self.arrays.read(source.path)
        else:
            raise Unusable(f"it ends like none of {', '.join(SUFFIXES)}, and is no folder of a DICOM series")
        return self.arrays.complete(volume)


def _number(source: Source, column: str | None) -> float | None:
    if column is None:
        return None
    value = source.meta.get(column)
    if not isinstance(value, float) or not np.isfinite(value):
        raise Unusable(f"the table has no number for it in the column {column}")
    return value
