"""Whether an exported encoder tells one sample from another."""

import numpy as np
import torch

from src.evaluation import representation
from src.evaluation.encoder import load_encoder


def variance_between_samples(folder, shards):
    """The share of the variance of tokens that lies between samples, of every tenth sample's middle.

    Near 0 where the encoder has learned positions alone.
    """
    encoder = load_encoder(folder)
    windows = [
        encoder.preprocessing.prepare(sample["ecg"], sample["lead_keep"], 1, sample["key"])
        for sample in shards.read(np.arange(0, len(shards), 10))
    ]
    return representation.variance_between_samples(encoder(torch.from_numpy(np.concatenate(windows))))
