"""The tokens that are no words: where a text begins and ends, what stands for nothing, and what for anything."""

# B batch, T tokens

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -100
"""A label that no loss is of, as torch's cross entropy and transformers have it."""


@dataclass(frozen=True)
class SpecialTokens:
    """Their ids; some tokenizers have one token for two of these."""

    begin: int
    end: int
    pad: int
    mask: int
    """What stands for a token that is to be predicted in parallel; `begin` where the tokenizer has none."""
    vocabulary: int
    """Ids that a text may have, these among them."""

    @property
    def never_written(self) -> tuple[int, ...]:
        """Ids that are not part of any text."""
        return tuple(sorted({self.begin, self.pad, self.mask} - {self.end}))


def as_labels(ids_BT: NDArray[np.int64], keep_BT: NDArray[np.bool_], special: SpecialTokens) -> NDArray[np.int64]:
    """What is to be written [B, T], given rows of a tokenizer and which tokens of them are kept (True = keep).

    Without the token that a row may begin with, always with one that ends it, and IGNORE behind; a row without a token
    has no label at all. Of a row that fills T without an end its last token gives way to it.
    """
    labels_BT = np.full_like(ids_BT, IGNORE)
    for row, (ids_T, keep_T) in enumerate(zip(ids_BT, keep_BT, strict=True)):
        ids = ids_T[keep_T].tolist()
        if not ids:
            continue
        if ids[0] == special.begin:
            ids = ids[1:]
        if ids and ids[-1] == special.end:
            ids = ids[:-1]
        ids = [*ids[: labels_BT.shape[1] - 1], special.end]
        labels_BT[row, : len(ids)] = ids
    return labels_BT


def shift_right(labels_BT: Tensor, special: SpecialTokens) -> Tensor:
    """What a decoder is given to predict the labels: each token sees those before it, the first one `begin`."""
    begin_B1 = torch.full_like(labels_BT[:, :1], special.begin)
    inputs_BT = torch.cat([begin_B1, labels_BT[:, :-1]], dim=1)
    return inputs_BT.masked_fill(inputs_BT == IGNORE, special.pad)
