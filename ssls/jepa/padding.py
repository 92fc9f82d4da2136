"""What counts under a kind of mask where inputs end early.

Masks are drawn over the whole grid all the same, so that a batch has one K and one T, whoever is in it. What they take
of the padding behind a record is left out afterwards.
"""

# B batch, L tokens, K context tokens, M target blocks, N tokens of a block

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Counted(NamedTuple):
    """What is looked at, what is predicted, and who is regularised.

    A sample whose context holds no signal counts nowhere: there is nothing to predict from, and a regulariser would see
    what padding looks like. It goes through the networks as if its padding were signal, since a softmax over no token
    is not a number.
    """

    seen_BL: Tensor
    """Tokens of the grid that others look at."""
    context_BK: Tensor
    """Those of the context."""
    targets_BMN: Tensor
    """Targets that the loss is of."""
    rows_B: Tensor
    """Samples whose context holds signal."""


def counted(valid_BL: Tensor, context_BK: Tensor, targets_BMN: Tensor) -> Counted:
    """What counts, given the tokens that hold signal."""
    rows_B = valid_BL.gather(1, context_BK).any(1)
    seen_BL = valid_BL | ~rows_B.unsqueeze(1)
    valid_BMN = valid_BL.gather(1, targets_BMN.flatten(1)).view_as(targets_BMN)
    return Counted(seen_BL, seen_BL.gather(1, context_BK), valid_BMN & rows_B[:, None, None], rows_B)
