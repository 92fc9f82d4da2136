"""Batches for the tests of transforms, and the streams that belong to them."""

from typing import Any

import numpy as np

from src.config.data import STANDARD_LEADS
from src.config.ecg_transforms import ECGTransformConfig
from src.randomness import Streams
from src.transforms.ecg import ECGTransform
from src.transforms.preprocessing import Preprocessing

RATES = (100.0, 500.0)


def streams_of(batch: int, first: int = 0) -> Streams:
    return Streams.of_samples(0, np.zeros(batch, np.int64), np.arange(first, first + batch))


def random_batch(batch: int, length: int, leads: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 0.3, (batch, leads, length)).astype(np.float32)


def random_records(batch: int, length: int) -> list[dict[str, Any]]:
    """Records that are longer than a window, every third without one of its leads."""
    rng, records = np.random.default_rng(1), []
    for number in range(batch):
        keep_C = np.ones(12, np.bool_)
        keep_C[number % 12] = number % 3 > 0
        ecg_CT = rng.normal(0.1, 0.3, (12, length + 13 * number)).astype(np.float32)
        records.append({"key": f"r{number}", "ecg": ecg_CT * keep_C[:, None], "lead_keep": keep_C})
    return records


def transform_of(
    length: int, rate: float, leads: tuple[str, ...] = STANDARD_LEADS, **sections: dict[str, Any] | Any
) -> ECGTransform:
    """The pipeline with these sections of data.transform, as they would be read from a file."""
    config = ECGTransformConfig.model_validate(sections, strict=False)
    statistics = {
        "mean": tuple(0.01 * n for n in range(len(leads))),
        "std": tuple(0.5 + 0.05 * n for n in range(len(leads))),
    }
    preprocessing = Preprocessing(
        leads=leads, sampling_rate=rate, length=length, normalize=config.normalize, clip=config.clip, **statistics
    )
    return ECGTransform(config, preprocessing)
