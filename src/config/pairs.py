"""The `pairs` section, typed: what two views of an ECG are that an encoder is to find alike; free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from src.config.data import DataConfig
from src.config.ecg_transforms import ECGTransformConfig
from src.config.inputs import check_input, check_one_each, pads
from src.config.section import Section

if TYPE_CHECKING:
    from src.models.config import EncoderSection

ALIKE = ("lengths", "short", "normalize", "clip")
"""Keys of a transform that are the encoder's preprocessing, so that both views have the same."""


class PairsConfig(Section):
    """Two views of each ECG, which go through data.transform, each with draws of its own."""

    positives: Literal["augmented", "adjacent", "leads"] = "augmented"
    """augmented: both from the whole record. adjacent: from two segments of model.encoder.length, the second of which
    begins where the first ends (CMSC of CLOCS, arXiv 2005.13249). leads: from the same segment, half of its leads in
    each view and the others zero (after CMLC of CLOCS)."""
    second: ECGTransformConfig | None = None
    """What the second view goes through, all of it; null is data.transform. Where segments are cut `crop` is that of
    data.transform for both."""


def check_pairs(pairs: PairsConfig, data: DataConfig, encoder: EncoderSection) -> None:
    """Refuse data of which there are no such pairs, or none that the encoder takes.

    Raises:
        ValueError: names the key.
    """
    first = data.transform
    if not isinstance(first, ECGTransformConfig):
        raise ValueError(
            f"data.transform.modality is {first.modality}, and this objective pairs ECGs alone: leave it out, and name "
            "shards of ECGs in data.root"
        )
    check_one_each(data, encoder)
    check_input(data, encoder)
    if pairs.positives == "adjacent" and pads(data):
        raise ValueError(
            "data.transform.short is pad, and pairs.positives is adjacent, which takes two whole segments of a record: "
            "leave data.transform.short out, or set pairs.positives to augmented"
        )
    if pairs.positives == "leads":
        _check_leads(pairs, data, encoder)
    for key in ALIKE if pairs.second is not None else ():
        mine, other = getattr(first, key), getattr(pairs.second, key)
        if mine != other:
            raise ValueError(
                f"pairs.second.{key} is {_said(other)}, but data.transform.{key} is {_said(mine)}, and the encoder is "
                "left behind with one preprocessing: set them alike"
            )


def _check_leads(pairs: PairsConfig, data: DataConfig, encoder: EncoderSection) -> None:
    if encoder.channels < 2:
        raise ValueError(
            "pairs.positives is leads, but data.leads has one lead, and two views share none: take augmented or "
            "adjacent, or more leads"
        )
    for name, transform in (("data.transform", data.transform), ("pairs.second", pairs.second)):
        if isinstance(transform, ECGTransformConfig) and transform.vcg.probability:
            raise ValueError(
                f"{name}.vcg needs all leads, and pairs.positives leads leaves each view a half: set "
                f"{name}.vcg.probability to 0"
            )


def _said(value: object) -> object:
    return "null" if value is None else list(value) if isinstance(value, tuple) else value
