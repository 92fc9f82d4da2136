"""Reads volumes out of .npz and .npy, which say nothing of how they lie in the patient; nothing is unpickled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.data.arrays import decode_npy
from src.data.builders.records import Unusable, refuse_special, told
from src.data.builders.volumes import Volume
from src.data.modalities.ct import LARGEST_VOLUME, MOST_CHANNELS
from src.data.npz import unpack_npz

SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class ArrayFiles:
    """[C, D, H, W] or [D, H, W] in each file."""

    name: str | None = None
    """Of the array in an .npz; None for the only one."""
    orientation: str | None = None
    """What its axes go to; None where nobody knows."""
    spacing: tuple[float, float, float] | None = None
    """mm; None where nobody knows."""

    def complete(self, volume: Volume) -> Volume:
        """The volume of a file of any format, with what is stated of all where the file doesn't say it itself."""
        return replace(
            volume,
            orientation=volume.orientation or self.orientation,
            spacing=volume.spacing or self.spacing,
        )

    def read(self, path: Path) -> Volume:
        """The volume of a file.

        Raises:
            ValueError: the file is missing, damaged, too large or holds another shape or type.
        """
        with told(path, path.suffix):
            refuse_special(path)
            if path.stat().st_size > LARGEST_VOLUME:
                raise Unusable(f"it has more than the {LARGEST_VOLUME:,} bytes that a volume may have")
            try:
                if path.suffix.casefold() == ".npz":
                    array = unpack_npz(path, self.name, LARGEST_VOLUME)
                else:
                    array = decode_npy(memoryview(path.read_bytes()))
            except ValueError as error:
                raise Unusable(str(error)) from None
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise Unusable(f"its array is {array.dtype}, expected are numbers")
            if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and len(array) > MOST_CHANNELS):
                raise Unusable(
                    f"its array has the shape {list(array.shape)}, expected is [C, D, H, W] with at most"
                    f" {MOST_CHANNELS} channels, or [D, H, W]"
                )
            values_CXYZ = array if array.ndim == 4 else array[None]
            if values_CXYZ.dtype.kind == "b":
                values_CXYZ = values_CXYZ.astype(np.uint8)
        return Volume(values_CXYZ)
