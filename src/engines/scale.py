"""The loss scale of fp16: a declared state, since no function of the step gives it."""

from __future__ import annotations

FIRST, HIGHEST = 2.0**16, 2.0**24
GROWS_AFTER = 2000
"""Finite steps in a row after which the scale doubles, as in torch's GradScaler."""


class LossScale:
    """A power of two by which losses are multiplied so that small gradients survive fp16; 1 in other precisions."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.value = FIRST if active else 1.0
        self.finite_steps = 0

    def update(self, finite: bool) -> None:
        """Halve it after a gradient that is not finite, double it after many that are."""
        if not self.active:
            return
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 1.0)
        elif self.finite_steps == GROWS_AFTER:
            self.value, self.finite_steps = min(self.value * 2, HIGHEST), 0

    @property
    def exhausted(self) -> bool:
        """Whether an overflow can't be the scale's fault."""
        return self.value <= 1.0

    def state(self) -> dict[str, float]:
        """As JSON."""
        return {"value": self.value, "finite_steps": self.finite_steps}

    def load(self, state: dict[str, float] | None) -> None:
        """Continue from a checkpoint; one in another precision has none, and the scale begins anew."""
        if self.active and state is not None:
            self.value, self.finite_steps = state["value"], int(state["finite_steps"])
