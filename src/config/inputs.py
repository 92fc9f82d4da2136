"""Whether the samples of `data` are what `model.encoder` takes; every objective with an encoder asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.config.data import DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.transforms import CTTransformConfig, ImageTransformConfig

if TYPE_CHECKING:
    from src.models.config import EncoderSection


def check_input(data: DataConfig, encoder: EncoderSection) -> None:
    """Refuse an encoder of another input than data.transform makes.

    How many channels CT volumes have is known from their shards alone.

    Raises:
        ValueError: says which keys differ.
    """
    config = data.transform
    if isinstance(config, ECGTransformConfig):
        if len(encoder.sides) != 1:
            raise ValueError(
                f"model.encoder takes inputs of {len(encoder.sides)} axes ({_times(encoder.sides)}), but data has "
                "ECGs: take another encoder, or set data.transform.modality"
            )
        if len(data.leads) != encoder.channels:
            raise ValueError(f"model.encoder.leads is {encoder.channels}, but data.leads names {len(data.leads)} leads")
        return
    if isinstance(config, CTTransformConfig):
        _check_sides(config.size, encoder, "data.transform.size makes CT volumes of")
        return
    if isinstance(config, ImageTransformConfig):
        _check_sides((config.size, config.size), encoder, "data.transform.size makes images of")
    else:
        sides = (config.clip.frames, config.size, config.size)
        _check_sides(sides, encoder, "data.transform.clip.frames and data.transform.size make clips of")
    if config.channels != encoder.channels:
        raise ValueError(
            f"model.encoder.colors is {encoder.channels}, but data.transform.channels is {config.channels}: set them "
            "alike"
        )


def pads(data: DataConfig) -> bool:
    """Whether inputs of a batch may end before others, with padding behind their end."""
    return isinstance(data.transform, ECGTransformConfig) and data.transform.short == "pad"


def check_one_each(data: DataConfig, padding_for: EncoderSection | None = None) -> None:
    """Refuse transforms that make several inputs of a sample, or inputs of several lengths.

    An objective that leaves padding out of all that it computes names its encoder as `padding_for`.

    Raises:
        ValueError: names the key.
    """
    config = data.transform
    if isinstance(config, ECGTransformConfig):
        _check_lengths(config, padding_for)
    elif isinstance(config, CTTransformConfig):
        if config.patches is not None:
            raise ValueError(_SEVERAL.format(key="patches", what="parts of a volume"))
    elif not isinstance(config, ImageTransformConfig):
        if config.videos is not None:
            raise ValueError(_SEVERAL.format(key="videos", what="videos of a study"))
        if config.clip.clips > 1:
            raise ValueError(_SEVERAL.format(key="clip.clips", what="clips of a video"))


def _check_lengths(config: ECGTransformConfig, padding_for: EncoderSection | None) -> None:
    if config.lengths is not None:
        other = ", and set data.transform.short to pad for shorter records" if padding_for is not None else ""
        raise ValueError(
            "data.transform.lengths is not for this objective, whose encoder has one length, model.encoder.length: "
            f"leave it out{other}"
        )
    if config.short == "refuse":
        return
    if padding_for is None:
        raise ValueError(
            "data.transform.short: pad is not for this objective, whose encoder has one length, model.encoder.length, "
            "and no padding: leave it out"
        )
    if not padding_for.knows_padding:
        raise ValueError(
            "data.transform.short is pad, but the encoder that model.encoder.name names can't be told what is padding: "
            "take one of ecg_*, ecg_lead_* and s4, or leave data.transform.short out"
        )


_SEVERAL = "data.transform.{key} makes several {what}, and this objective takes one input of a sample: leave it out"


def _check_sides(sides: tuple[int, ...], encoder: EncoderSection, makes: str) -> None:
    if sides != encoder.sides:
        raise ValueError(
            f"model.encoder takes inputs of {_times(encoder.sides)}, but {makes} {_times(sides)}: set them alike"
        )


def _times(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
