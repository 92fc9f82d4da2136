"""Whether an exported encoder tells one sample from another."""

import json

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from src.models.config import EncoderConfig
from src.models.vit import build_encoder


def variance_between_samples(encoder_folder, shards, clip):
    """The share of the variance of layer-normed tokens that lies between samples at the same position.

    Of every tenth sample, cut from its middle and normalised; near 0 where the encoder has learned positions alone.
    """
    config = EncoderConfig(**json.loads((encoder_folder / "config.json").read_text()))
    ecgs = [sample["ecg"] for sample in shards.read(np.arange(0, len(shards), 10))]
    starts = [(ecg_CT.shape[1] - config.length) // 2 for ecg_CT in ecgs]
    batch = np.stack([ecg_CT[:, s : s + config.length] for ecg_CT, s in zip(ecgs, starts, strict=True)])
    batch = np.clip((batch - shards.mean_C[:, None]) / shards.std_C[:, None], -clip, clip)
    encoder = build_encoder(config)
    encoder.load_state_dict(load_file(encoder_folder / "model.safetensors"))
    with torch.no_grad():
        tokens_BLD = encoder(torch.from_numpy(batch.astype(np.float32)))
    tokens_BLD = F.layer_norm(tokens_BLD, tokens_BLD.shape[-1:])
    return (tokens_BLD.var(0).mean() / tokens_BLD.flatten(0, 1).var(0).mean()).item()
