"""Weights of an encoder, or of a whole objective, for inputs of another resolution, length or number of frames.

network.load_state_dict(resized(state, trained_as, wanted))
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.config import EncoderSection

# L tokens of a grid, P tokens without a place that stand before them, D width

MODES = {1: "linear", 2: "bicubic", 3: "trilinear"}
MAY_DIFFER = {"input", "length", "drop_path", "pretrained", "config"}
LEARNED = ("places.learned", "model.pos_embed")
"""Positions that are weights: of transformers here, and of timm's."""


def resized(state: Mapping[str, Tensor], old: EncoderSection, new: EncoderSection) -> dict[str, Tensor]:
    """The weights that `old` was trained with, for `new`, whose input has another size and nothing else that is other.

    Learned positions [1, P + L, D] are interpolated on the grid, as transformers' I-JEPA does it, those of a predictor
    beside its encoder too; at the same size they stay what they are to the last bit. All else stays. Positions that are
    computed are no weights: they are made for the new grid with neighbours one apart, as by V-JEPA 2's published code
    at any resolution and number of frames. (I-JEPA's and V-JEPA's interpolate their tables of waves, which are learned
    positions to `src.models.published`.) Transformers' models interpolate their own in the forward.

    Raises:
        ValueError: they differ in more than the size of the input; names the key.
    """
    _differ_in_size_alone(old, new)
    return {
        name: _interpolated(tensor, old.grid, new.grid) if name.endswith(LEARNED) else tensor
        for name, tensor in state.items()
    }


def _interpolated(places_1LD: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """On half-pixel centres. A table that is shorter than the grid is one for its last axes alone."""
    while math.prod(old) > places_1LD.shape[1]:
        old, new = old[1:], new[1:]
    if old == new:
        return places_1LD
    first = places_1LD.shape[1] - math.prod(old)
    field = places_1LD[:, first:].unflatten(1, old).movedim(-1, 1)
    stretched = F.interpolate(field.float(), size=new, mode=MODES[len(new)], align_corners=False)
    placed_1LD = stretched.flatten(2).transpose(1, 2).to(places_1LD.dtype)
    return torch.cat([places_1LD[:, :first], placed_1LD], dim=1)


def _differ_in_size_alone(old: EncoderSection, new: EncoderSection) -> None:
    was, wanted = (section.model_dump(exclude=MAY_DIFFER) for section in (old, new))
    for key in dict.fromkeys(("name", *was, *wanted)):
        if was.get(key) != wanted.get(key):
            raise ValueError(
                f"model.encoder.{key} is {wanted.get(key)}, but the weights are of an encoder whose {key} is "
                f"{was.get(key)}: only the size of its input may differ"
            )
