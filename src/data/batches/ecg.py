"""ECGs as a batch: of one length, or of a length that each step draws, with what is signal and what is padding."""

# B batch, C leads, T samples of a lead

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.preprocessing import Preprocessing


class ECGBatch:
    """Samples to `ecg` [B, C, T] float32 and `keep` [B, T] bool, False behind the end of a shorter record.

    Where data.transform.lengths names several, T is one of them, drawn from (seed, step) alone: a length that looked at
    the batch would be another on each rank. Each is as likely as any other, whatever lengths the records have: what a
    model is to see is the config's choice, and the index knows the shortest and the longest record alone.
    """

    def __init__(self, config: ECGTransformConfig, preprocessing: Preprocessing, seed: int) -> None:
        self._lengths, self._seed = config.lengths or (preprocessing.length,), seed
        self._transform = ECGTransform(config, preprocessing, finite=True)  # a shard's samples are, or are broken

    def __call__(self, step: int, samples: Sequence[Mapping[str, Any]], streams: Streams) -> dict[str, Tensor]:
        """A batch.

        Raises:
            ValueError: a record has other leads, or is shorter than T where data.transform.short is refuse; it is
                named.
        """
        length = self.length(step)
        ecg_BCT = self._transform(samples, streams.fork("transform"), length)
        ends_B = np.array([sample["ecg"].shape[1] for sample in samples])
        keep_BT = np.arange(length) < ends_B[:, None]
        return {"ecg": torch.from_numpy(ecg_BCT), "keep": torch.from_numpy(keep_BT)}

    def length(self, step: int) -> int:
        """Samples of a lead in the batch of a step."""
        if len(self._lengths) == 1:
            return self._lengths[0]
        drawn = Streams.of_step(self._seed, step).fork("ecg").integers("length", len(self._lengths))
        return self._lengths[int(drawn[0])]
