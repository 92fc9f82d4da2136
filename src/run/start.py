"""Which encoder a supervised run trains, how its input is made, and the weights that it begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.config.data import DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.inputs import check_input, check_one_each
from src.data.inputs import open_shards, preprocessing_of, shards_for
from src.data.shards import Shards
from src.distributed.ranks import broadcast_object
from src.evaluation.encoder import load_encoder
from src.models.config import EncoderSection
from src.run.resume import encoder_of_run
from src.run.training import TrainingRun
from src.transforms.plain import AnyPreprocessing, plain_part
from src.transforms.preprocessing import Preprocessing


class Start(NamedTuple):
    """What a run begins with; rank 0's on all ranks."""

    encoder: EncoderSection
    preprocessing: AnyPreprocessing
    weights: dict[str, Tensor] | None
    """None where they are drawn, or come with the run's own checkpoint."""


def open_start(run: TrainingRun, data: DataConfig, section: EncoderSection | None) -> tuple[Shards, Start]:
    """The training records and the encoder: that of the run's own checkpoints, so that a run that goes on does without
    init_from; else init_from's; else `section`, which is model.encoder, with random weights.

    Raises:
        ValueError: init_from holds no encoder, or another than data and model.encoder say.
    """
    shards, init_from = open_shards(data), run.config.init_from
    if init_from is None:
        assert section is not None, "the config has checked it"
        return shards, Start(section, preprocessing_of(data, shards, section), None)
    start = broadcast_object(_pretrained(run, init_from) if run.ranks.first else None)
    refuse_another_encoder(section, start.encoder, init_from)
    refuse_another_input(data, start.encoder, start.preprocessing, init_from)
    return shards_for(start.preprocessing, data.root, data.split, data.cache), start


def _pretrained(run: TrainingRun, init_from: str) -> Start:
    own = encoder_of_run(run.folder)
    if own is not None:
        return Start(*own, None)
    with torch.random.fork_rng(devices=[]):  # what stands on it is drawn alike on all ranks
        encoder = load_encoder(Path(init_from))
    return Start(encoder.config, encoder.preprocessing, encoder.network.state_dict())


def refuse_another_encoder(section: EncoderSection | None, encoder: EncoderSection, init_from: str) -> None:
    """Refuse a section model.encoder that would build another encoder than the trained one.

    Raises:
        ValueError: names the key.
    """
    if section is not None and (difference := first_other(section.model_dump(), encoder.model_dump())):
        key, ours, theirs = difference
        raise ValueError(
            f"model.encoder.{key} is {ours}, but init_from {init_from} has {theirs}: leave model.encoder out"
        )


def refuse_another_input(
    data: DataConfig, encoder: EncoderSection, preprocessing: AnyPreprocessing, init_from: str
) -> None:
    """Refuse settings that would show a trained encoder another input than it has learned on.

    Raises:
        ValueError: names the key, and what it should be.
    """
    transform = data.transform
    if transform.modality != preprocessing.modality:
        raise ValueError(
            f"data.transform.modality is {transform.modality}, but the encoder of init_from {init_from} takes "
            f"{preprocessing.modality}: set it to that"
        )
    check_one_each(data, encoder)
    wants: dict[str, tuple[object, object]]
    if isinstance(transform, ECGTransformConfig):
        assert isinstance(preprocessing, Preprocessing)
        wants = {"leads": (data.leads, preprocessing.leads)}
        wants |= {
            f"transform.{key}": (getattr(transform, key), getattr(preprocessing, key))
            for key in ("normalize", "clip", "short")
        }
    else:
        wants = {"transform": (plain_part(transform), preprocessing)}
    for key, (ours, theirs) in wants.items():
        if ours != theirs:
            raise ValueError(
                f"data.{key} is {ours}, but the encoder of init_from {init_from} was trained with {theirs}: set it to "
                "that"
            )
    check_input(data, encoder)


def first_other(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key in which two sections differ, and both values; `absent` where one has no such key."""
    for key in [*theirs, *ours]:
        both = ours.get(key, "absent"), theirs.get(key, "absent")
        if both[0] != both[1]:
            return key, *both
    return None
