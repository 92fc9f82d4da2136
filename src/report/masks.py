"""What the run's masks show of a real record of its own split: the samples of the first step, as training drew them."""

# C leads, T samples of a lead, B samples of a batch

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from src.data.ecg_shards import ECGShards
from src.data.order import Order, batch_positions
from src.masks.config import MaskConfig
from src.masks.sampler import Masks, MaskSampler
from src.models.config import EncoderConfig
from src.randomness import Streams
from src.report.paper import ecg_on_paper, masked_ecg
from src.report.read import RunData, last_part, lookup

EXAMPLES = 3
SHOWN_LEADS = ("II", "V1", "V5")
"""Of twelve: a limb lead, a right and a left chest lead; elsewhere the first three."""


@dataclass(frozen=True)
class MaskPictures:
    """Figures of one run."""

    seconds: float
    """Length of the ECG that the encoder sees."""
    grid: int
    """Tokens."""
    style: str
    figures: tuple[tuple[Markup, str], ...]
    """One for each sample, with its caption."""
    all_leads: Markup | None
    """The same ECG without masks, where the figures leave leads out."""


def mask_pictures(run: RunData, show_ecg: bool = True) -> MaskPictures:
    """The masks of the run's first samples over the first of these records, named nowhere, or on empty paper.

    Raises:
        ValueError: why there is nothing to draw, as a sentence.
    """
    mask, encoder = _sections(run.config)
    root, leads, seed = _data(run.config)
    try:
        with ECGShards(root, run.config["data"].get("split", "train"), leads) as shards:
            numbers_B, masks = _masks(run.config, mask, encoder, seed, len(shards))
            ecg_CT = shards.read(numbers_B[:1])[0]["ecg"] if show_ecg else None
            rate = shards.sampling_rate
    except (ValueError, OSError, TypeError, KeyError):
        name = last_part(root)
        raise ValueError(f"The shards {name} can't be read from here, so the masks can't be drawn.") from None
    if ecg_CT is None:
        leads, ecg_CT = [""], np.full((1, encoder.length), np.nan)
    begin = (ecg_CT.shape[1] - encoder.length) // 2
    if begin < 0:
        raise ValueError("The record is shorter than what the encoder takes.")
    ecg_CT = ecg_CT[:, begin : begin + encoder.length]
    shown = _shown(leads)
    figures = tuple(
        _figure(ecg_CT[shown], rate, [leads[lead] for lead in shown], encoder, masks, sample)
        for sample in range(len(numbers_B))
    )
    return MaskPictures(
        seconds=encoder.length / rate,
        grid=encoder.grid[0],
        style=mask.style,
        figures=figures,
        all_leads=ecg_on_paper(ecg_CT, rate, leads) if len(shown) < len(leads) else None,
    )


def _sections(config: dict[str, Any]) -> tuple[MaskConfig, EncoderConfig]:
    if "mask" not in config or lookup(config, "model", "encoder") is None:
        raise ValueError("This run has no masks: its config has no mask or no model.encoder.")
    try:
        mask = MaskConfig.model_validate_json(json.dumps(config["mask"]))
        return mask, EncoderConfig.model_validate_json(json.dumps(config["model"]["encoder"]))
    except ValueError:
        raise ValueError("The config's mask or model.encoder is not one that this version can read.") from None


def _data(config: dict[str, Any]) -> tuple[Path, list[str], int]:
    root, leads, seed = lookup(config, "data", "root"), lookup(config, "data", "leads"), config.get("seed", 0)
    if not isinstance(root, str) or not isinstance(leads, list) or not isinstance(seed, int):
        raise ValueError("The config does not tell where the shards are.")
    return Path(root), [str(lead) for lead in leads], seed


def _masks(
    config: dict[str, Any], mask: MaskConfig, encoder: EncoderConfig, seed: int, samples: int
) -> tuple[NDArray[np.int64], Masks]:
    """The first samples of step 0 and their masks: the same streams as in training."""
    positions = batch_positions(0, int(config["data"]["batch_size"]))[:EXAMPLES]
    epochs_B, numbers_B = Order(seed, [samples]).order(positions)
    streams = Streams.of_samples(seed, epochs_B, numbers_B).fork("mask")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys without effect were told when the run began
        return numbers_B, MaskSampler(mask, encoder.grid, seed)(0, streams)


def _shown(leads: list[str]) -> list[int]:
    if set(SHOWN_LEADS) <= set(leads):
        return [leads.index(lead) for lead in SHOWN_LEADS]
    return list(range(min(len(leads), len(SHOWN_LEADS))))


def _figure(
    ecg_CT: NDArray[np.floating], rate: float, leads: list[str], encoder: EncoderConfig, masks: Masks, sample: int
) -> tuple[Markup, str]:
    context_K, targets_MT = masks.context_BK[sample], masks.targets_BMT[sample]
    hidden = len(np.unique(targets_MT))
    neither = encoder.grid[0] - len(context_K) - hidden
    caption = f"{len(context_K)} context, {hidden} target, {neither} neither"
    title = f"Masks of sample {sample + 1}: {caption}"
    return masked_ecg(ecg_CT, rate, leads, encoder.patch, context_K, targets_MT, title), caption
