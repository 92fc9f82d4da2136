"""The one module that engines wrap: every way into an objective is one `forward`, which every backend's hooks see."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

FEATURES = "features"


class Door(nn.Module):
    """`whole` is a batch with its contrast; every other mode is the objective's own.

    An objective with losses between samples says `contrastive = True`. Its mode `train` returns `features` {name: [B,
    ...]} beside its other sums, and its mode `contrast` maps the features of all the rank's samples to the remaining
    sums. Integers among them, what the contrast must know of the samples, have no gradient. One whose `contrast` has no
    parameters says `contrast_trains = False`.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: dict[str, Any], mode: str) -> Any:
        """The objective's forward in the given mode."""
        if mode != "whole":
            return self.objective(batch, mode=mode)
        return contrasted(self.objective, self.objective(batch, mode="train"))


def contrasted(objective: nn.Module, found: dict[str, Any]) -> dict[str, Tensor]:
    """All sums of one batch: those of `train`, and the contrast of its features where there are any."""
    if FEATURES not in found:
        return found
    assert getattr(objective, "contrastive", False), "an objective that returns features must say contrastive = True"
    sums = {name: value for name, value in found.items() if name != FEATURES}
    return sums | objective(found[FEATURES], mode="contrast")
