"""What every objective asks of its samples, whatever their modality: shards, preprocessing, one input of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from src.config.data import CacheConfig, DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.transforms import CTTransformConfig, ImageTransformConfig
from src.data.batches.ecg import ECGBatch
from src.data.ecg_shards import ECGShards
from src.data.loader import Collate, Prepare, Prepares
from src.data.modalities.ct import CTIndex
from src.data.shards import Shards
from src.data.sources import Sources
from src.data.synthetic import make_synthetic
from src.models.config import EncoderSection
from src.randomness import Streams
from src.transforms.plain import AnyPreprocessing, plain_part
from src.transforms.preprocessing import Preprocessing


def open_shards(data: DataConfig, split: str | None = None) -> Shards:
    """The shards of a split of data.root; without one those of data.split, made first where data.synthetic asks for it.

    Raises:
        ValueError: they hold another modality, or other leads; or as Shards.
    """
    if split is None and data.synthetic is not None:
        make_synthetic(Path(data.root), data.synthetic, data.leads, data.transform.modality)
    return _open(data.root, split or data.split, data.transform.modality, data.leads, data.cache)


def shards_for(
    preprocessing: AnyPreprocessing, root: Path | str, split: str, cache: CacheConfig | None = None
) -> Shards:
    """The shards of a split, for an encoder that was trained already.

    Raises:
        ValueError: they hold another modality, other leads or another sampling rate; or as Shards.
    """
    if not isinstance(preprocessing, Preprocessing):
        return _open(root, split, preprocessing.modality, (), cache)
    shards = ECGShards(root, split, preprocessing.leads, cache)
    if shards.sampling_rate != preprocessing.sampling_rate:
        raise ValueError(
            f"{shards.root} holds ECGs at {shards.sampling_rate:g} Hz, but the encoder was trained at "
            f"{preprocessing.sampling_rate:g} Hz: build the shards with --sampling-rate "
            f"{preprocessing.sampling_rate:g}"
        )
    return shards


def _open(root: Path | str, split: str, modality: str, leads: Sequence[str], cache: CacheConfig | None) -> Shards:
    if modality == "ecg":
        return ECGShards(root, split, leads, cache)
    shards = Shards(root, split, cache)
    if shards.index.modality != modality:
        raise ValueError(
            f"{shards.root} holds samples of the modality {shards.index.modality}, but {modality} is asked for: name "
            "other shards, or set data.transform.modality"
        )
    return shards


def sources_of(data: DataConfig, main: Shards) -> Sources:
    """The shards of data.root, and those of data.mixture beside them.

    Raises:
        ValueError: as `open_shards`; ECGs of another sampling rate.
    """
    modality = data.transform.modality
    others = {
        name: _open(other.root, other.split, modality, data.leads, data.cache) for name, other in data.mixture.items()
    }
    for name, other in others.items():
        if isinstance(main, ECGShards) and isinstance(other, ECGShards) and other.sampling_rate != main.sampling_rate:
            raise ValueError(
                f"data.mixture.{name}: {other.root} is at {other.sampling_rate:g} Hz, data.root {main.root} at "
                f"{main.sampling_rate:g} Hz: build them at one rate with --sampling-rate"
            )
    return Sources(main, others)


def preprocessing_of(data: DataConfig, shards: Shards, encoder: EncoderSection) -> AnyPreprocessing:
    """What of data.transform is not random, for the input that the encoder takes.

    Raises:
        ValueError: the shards do not fit: they have no statistics where the transform normalises with them, or CTs with
            other channels than the encoder.
    """
    if isinstance(data.transform, ECGTransformConfig):
        assert isinstance(shards, ECGShards), "open_shards gives those"
        return shards.preprocessing(data.transform, encoder.sides[0])
    if isinstance(data.transform, CTTransformConfig):
        assert isinstance(shards.index, CTIndex)
        channels = shards.index.channels * len(data.transform.windows)
        if channels != encoder.channels:
            raise ValueError(
                f"model.encoder.colors is {encoder.channels}, but the CTs of {shards.root} have "
                f"{shards.index.channels} channels in {len(data.transform.windows)} windows: set it to {channels}"
            )
    return plain_part(data.transform)


class InputBatch:
    """Samples to a batch: one input of each by the name of the modality, [B, C, *sides] float32.

    Beside ECGs of which some end early `keep` [B, T] bool, True where they have samples; where none does there is no
    mask, which would cost attention its fast path.
    """

    def __init__(self, data: DataConfig, preprocessing: AnyPreprocessing, seed: int) -> None:
        self.modality = data.transform.modality
        self._make = _batch(data, preprocessing, seed)

    @property
    def prepare(self) -> Prepare | None:
        """Decodes a sample as far as it is broken or not, where that is to be done before it is in a batch."""
        return self._make.prepare if isinstance(self._make, Prepares) else None

    def __call__(self, step: int, samples: Sequence[Any], streams: Streams) -> dict[str, Tensor]:
        """A batch of samples as `prepare` has made them, if there is one.

        Raises:
            ValueError: a sample can't be brought to the encoder's input; it is named.
        """
        made = self._make(step, samples, streams)
        ends_early = self.modality == "ecg" and not bool(made["keep"].all())
        return {name: made[name] for name in (self.modality, *(["keep"] if ends_early else []))}


def _batch(data: DataConfig, preprocessing: AnyPreprocessing, seed: int) -> Collate:
    config = data.transform
    if isinstance(config, ECGTransformConfig):
        assert isinstance(preprocessing, Preprocessing)
        return ECGBatch(config, preprocessing, seed)
    # OpenCV, scipy: each is imported where it is needed.
    if isinstance(config, ImageTransformConfig):
        from src.data.batches.image import ImageBatch

        return ImageBatch(config)
    if isinstance(config, CTTransformConfig):
        from src.data.batches.ct import CTBatch

        return CTBatch(config)
    from src.data.batches.video import VideoBatch

    return VideoBatch(config)
