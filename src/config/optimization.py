"""The `optimization` section, typed: how long and how fast an experiment learns."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.section import Probability, Section, Share


class NetworkRates(Section):
    """How one network of the objective learns, beside the others."""

    lr: NonNegativeFloat = 1.0
    """Times the learning rate of every step."""
    weight_decay: NonNegativeFloat = 1.0
    """Times the weight decay of every step."""


class OptimizationConfig(Section):
    """AdamW; a linear warm-up of the learning rate, then its schedule; a cosine of the weight decay."""

    epochs: PositiveInt | None = None
    """Passes over the split; either this or steps."""
    steps: PositiveInt | None = None
    """Optimizer steps; either this or epochs."""
    lr: PositiveFloat
    """Peak learning rate, reached at the end of the warm-up; never scaled by the batch."""
    start_lr: NonNegativeFloat = 0.0
    """Learning rate of step 0 when there is a warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Of the learning rate after the warm-up: along half a cosine or a line to final_lr, or as it is."""
    final_lr: NonNegativeFloat = 0.0
    """Learning rate of the last step; not used by constant."""
    warmup_epochs: NonNegativeFloat | None = None
    """Length of the warm-up in epochs; at most one of this and warmup_steps, none is no warm-up."""
    warmup_steps: NonNegativeInt | None = None
    weight_decay: NonNegativeFloat = 0.05
    """Of matrices; biases, norms, tokens and other 1-D parameters have none."""
    final_weight_decay: NonNegativeFloat | None = None
    """Weight decay of the last step, reached along a cosine without warm-up; null keeps it constant."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    clip: PositiveFloat | None = None
    """Largest global gradient norm; null does not clip."""
    max_skipped: PositiveInt = 10
    """So many steps in a row with a gradient that is not finite stop the run."""
    layer_decay: Share = 1.0
    """Of each encoder's n stages (stem, blocks) the i-th, from 1, learns at this to the power n + 1 - i times the
    learning rate, so that the stem learns slowest; what has no stages, as a head, learns at the whole of it."""
    networks: dict[str, NetworkRates] = {}
    """Networks of the objective (student, predictor, ...) that learn or decay at other rates than the rest."""

    @model_validator(mode="after")
    def _no_end_of_a_constant(self) -> Self:
        if self.schedule == "constant" and self.final_lr:
            raise ValueError("optimization.schedule constant never reaches a final_lr: leave final_lr out")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of optimization.epochs and optimization.steps must be set")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("at most one of optimization.warmup_epochs and optimization.warmup_steps can be set")
        too_long = (self.steps is not None and (self.warmup_steps or 0) >= self.steps) or (
            self.epochs is not None and (self.warmup_epochs or 0) >= self.epochs
        )
        if too_long:
            raise ValueError("optimization.warmup_* must be shorter than the run")
        return self
