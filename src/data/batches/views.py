"""Two views of each ECG as a batch."""

# B batch, C leads, T samples of a lead

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config.data import DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.pairs import PairsConfig
from src.models.config import EncoderSection, TransformerConfig
from src.models.drop_path import kept_branches
from src.models.views import VIEWS, branches_name
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.plain import AnyPreprocessing
from src.transforms.positives import Samples, adjacent, leads_apart
from src.transforms.preprocessing import Preprocessing
from src.transforms.views import views_of_parts


class ViewBatch:
    """Samples to `first` and `second` [B, C, T] float32, the two views of each, drawn apart.

    Beside ECGs of which some end early `keep` [B, T] bool, True where both views have samples, and for an encoder that
    drops paths the branches [B, depth, 2] that each view keeps. All of it is a function of (seed, epoch, sample).
    """

    def __init__(
        self, data: DataConfig, pairs: PairsConfig, encoder: EncoderSection, preprocessing: AnyPreprocessing
    ) -> None:
        first = data.transform
        assert isinstance(preprocessing, Preprocessing) and isinstance(first, ECGTransformConfig), "see check_pairs"
        self._positives, self._crop, self._length = pairs.positives, first.crop, preprocessing.length
        self._transforms = [
            ECGTransform(config, preprocessing, finite=True) for config in (first, pairs.second or first)
        ]
        self._drops = encoder if isinstance(encoder, TransformerConfig) and encoder.drop_path else None

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> dict[str, Tensor]:
        """A batch.

        Raises:
            ValueError: a record has no such pair, has other leads, or is shorter than T where that is refused; it is
                named.
        """
        made = views_of_parts(self._transforms, self._parts(samples, streams.fork("pairs")), streams)
        batch = {name: torch.from_numpy(ecg_BCT) for name, ecg_BCT in zip(VIEWS, made, strict=True)}
        ends_B = np.array([sample["ecg"].shape[1] for sample in samples])
        if ends_B.min() < self._length:  # without short records attention keeps its fast path
            batch["keep"] = torch.from_numpy(np.arange(self._length) < ends_B[:, None])
        if self._drops is not None:
            for name in VIEWS:
                batch[branches_name(name)] = torch.from_numpy(kept_branches(self._drops, streams.fork(name)))
        return batch

    def _parts(self, samples: Samples, streams: Streams) -> tuple[Samples, Samples]:
        """What each view is of."""
        if self._positives == "adjacent":
            return adjacent(samples, self._length, self._crop, streams)
        if self._positives == "leads":
            return leads_apart(samples, self._length, self._crop, streams)
        return samples, samples
