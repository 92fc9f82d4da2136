"""An ECG of an archive, whatever its format, into the files of its sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from src.data.arrays import encode_npy
from src.data.builders.signals import Channel, Leads, conform
from src.data.builders.sources import Source
from src.data.millivolt import to_millivolt
from src.data.modalities.ecg import FIELD


class Reader(Protocol):
    """Opens a record; can be sent to another process."""

    def rate(self, path: Path, row: int | None) -> float:
        """The sampling rate of a record in Hz."""

    def read(self, path: Path, row: int | None) -> list[Channel]:
        """The channels of a record."""


@dataclass(frozen=True)
class ConvertECG:
    """Opens a record and brings it to the leads and the rate that are wanted."""

    at_a_time: ClassVar[int] = 16
    reader: Reader
    leads: Leads

    def __call__(self, source: Source) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The array, and what its json tells of it; raises ValueError for what can't be used."""
        found = conform(self.reader.read(source.path, source.row), self.leads)
        to_millivolt(found.array_CT, found.scale)  # what can't be read again must not get into a tar
        told: dict[str, Any] = {"leads": list(self.leads.names), "sampling_rate": self.leads.sampling_rate}
        if found.scale is not None:
            told["scale"] = found.scale
        if not all(found.keep):
            told["lead_keep"] = found.keep
        if found.flat:
            told["flat_leads"] = found.flat
        if found.gaps:
            told["gaps"] = found.gaps
        return {FIELD: encode_npy(found.array_CT)}, told
