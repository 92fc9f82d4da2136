"""The ECGs of a split, and how they are normalised."""

# C leads

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.config.data import CacheConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.data.modalities.ecg import ECGIndex, Statistics
from src.data.shards import Shards
from src.transforms.preprocessing import Preprocessing


class ECGShards(Shards):
    """The samples of one split of a folder of ECGs.

    Raises:
        ValueError: as Shards; another modality, other leads or another order of them.
    """

    def __init__(self, root: Path | str, split: str, leads: Sequence[str], cache: CacheConfig | None = None) -> None:
        super().__init__(root, split, cache)
        if not isinstance(self.index, ECGIndex):
            raise ValueError(f"{self.root} holds samples of the modality {self.index.modality}, expected are ECGs")
        self._ecg = self.index
        _check_leads(self.root, self._ecg, leads)

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads, in order."""
        return self._ecg.leads

    @property
    def lengths(self) -> tuple[int, int]:
        """Samples of a lead in the shortest and in the longest record of the folder."""
        return self._ecg.lengths

    @property
    def sampling_rate(self) -> float:
        """Hz, of every sample."""
        return self._ecg.sampling_rate

    @property
    def mean_C(self) -> NDArray[np.float64]:
        """Mean of each lead over the training split, mV."""
        return np.array(self._statistics().mean)

    @property
    def std_C(self) -> NDArray[np.float64]:
        """Standard deviation of each lead over the training split, mV."""
        return np.array(self._statistics().std)

    def preprocessing(self, config: ECGTransformConfig, length: int) -> Preprocessing:
        """The part of a training transform that is not random, for windows of `length` samples."""
        dataset = config.normalize == "dataset"
        return Preprocessing(
            leads=self._ecg.leads,
            sampling_rate=self.sampling_rate,
            length=length,
            normalize=config.normalize,
            mean=self._statistics().mean if dataset else None,
            std=self._statistics().std if dataset else None,
            clip=config.clip,
            short=config.short,
        )

    def _statistics(self) -> Statistics:
        if self._ecg.statistics is None:
            raise ValueError(
                f"{self.root} has no statistics since it has no split train:"
                " set data.transform.normalize to sample or none, or index it together with the training tars"
            )
        return self._ecg.statistics


def _check_leads(root: str, index: ECGIndex, leads: Sequence[str]) -> None:
    if tuple(leads) != index.leads:
        raise ValueError(
            f"{root} holds the leads [{', '.join(index.leads)}] and data.leads asks for [{', '.join(leads)}]:"
            " set data.leads to those of the shards, in their order, or build the shards with those of data.leads"
        )
