"""Reads a variable out of MATLAB's .mat: up to v7 through scipy, v7.3, which is HDF5, through h5py."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.builders.hdf5 import dataset, opened, refuse_large
from src.data.builders.records import LARGEST_RECORD, Unusable, channels_of, refuse_special, told
from src.data.builders.signals import Channel

SUFFIX = ".mat"
HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_AT = 512
"""Where v7.3 begins its HDF5, behind a header of its own."""
NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
COMPRESSED = 15


@dataclass(frozen=True)
class MatlabFiles:
    """An array [C, T] or [T, C] in each `.mat`."""

    variable: str
    names: tuple[str, ...]
    """Of the C channels."""
    sampling_rate: float
    """Hz."""
    per_millivolt: float = 1.0
    """Values for 1 mV."""

    def rate(self, path: Path, row: int | None) -> float:
        """The rate that all have, Hz."""
        return self.sampling_rate

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record.

        Raises:
            ValueError: the file or the variable is missing, damaged, or of another shape or type.
        """
        with told(path, "MATLAB"):
            refuse_special(path)
            if path.stat().st_size > LARGEST_RECORD:
                raise Unusable(f"{path.name} has more than the {LARGEST_RECORD:,} bytes that a record may have")
            with path.open("rb") as file:
                start = file.read(HDF5_AT + len(HDF5))
            if not start:
                raise Unusable(f"{path.name} is empty")
            array = self._hdf5(path) if HDF5 in (start[: len(HDF5)], start[HDF5_AT:]) else self._older(path)
        return channels_of(array, self.names, self.sampling_rate, self.per_millivolt)

    def _hdf5(self, path: Path) -> NDArray[Any]:
        with opened(path) as file:
            found = dataset(file, self.variable)
            if found.dtype.kind not in "iuf" or found.ndim != 2 or found.attrs.get("MATLAB_empty", 0):
                raise Unusable(f"its {self.variable} is {found.dtype} {list(found.shape)}, expected is a matrix")
            refuse_large(found, math.prod(found.shape))
            array: NDArray[Any] = found[:].T
        return array

    def _older(self, path: Path) -> NDArray[Any]:
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other variables, by their names
            return self._variable(path)

    def _variable(self, path: Path) -> NDArray[Any]:
        from scipy.io import loadmat, whosmat

        known = {name: (shape, kind) for name, shape, kind in whosmat(path, appendmat=False)}
        if self.variable not in known:
            raise Unusable(
                f"it has no variable {self.variable}: it has {', '.join(known) or 'none'}; say which with --variable"
            )
        shape, kind = known[self.variable]
        if kind not in NUMBERS or math.prod(map(int, shape)) * 8 > LARGEST_RECORD:
            raise Unusable(f"its {self.variable} is {kind} {list(shape)}, expected is a matrix of numbers")
        # as stored: MATLAB writes whole doubles as integers, and they may stay so
        array = loadmat(path, appendmat=False, variable_names=[self.variable], mat_dtype=False)[self.variable]
        if not isinstance(array, np.ndarray):
            raise Unusable(f"its {self.variable} is sparse, expected is a full matrix")
        return array


def _refuse_bomb(path: Path) -> None:
    """Refuse compressed elements that unpack to more than a record may have; scipy would ask no one."""
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    place, unpacked = 128, 0
    while order and place + 8 <= len(data):
        kind, size = struct.unpack(f"{order}II", data[place : place + 8])
        if kind == COMPRESSED:
            stream, chunk = zlib.decompressobj(), data[place + 8 : place + 8 + size]
            while chunk and not stream.eof:
                unpacked += len(stream.decompress(chunk, 1 << 20))
                chunk = stream.unconsumed_tail
                if unpacked > LARGEST_RECORD:
                    raise Unusable(f"it unpacks to more than the {LARGEST_RECORD:,} bytes that a record may have")
        place += 8 + size
