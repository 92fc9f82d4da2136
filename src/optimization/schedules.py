"""Schedules as plain functions of the step: nothing to step, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable

from src.config.optimization import OptimizationConfig

Schedule = Callable[[int], float]


def count_steps(config: OptimizationConfig, batch_size: int, samples: int) -> int:
    """Optimizer steps of a run; with `epochs`, enough for so many times as many positions as there are samples.

    In the plain order each sample is then seen so many times; mixtures and balanced orders see some more often.
    """
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return math.ceil(config.epochs * samples / batch_size)


def warmup_steps(config: OptimizationConfig, batch_size: int, samples: int) -> int:
    """Steps of the learning rate's warm-up."""
    if config.warmup_epochs is not None:
        return round(config.warmup_epochs * samples / batch_size)
    return config.warmup_steps or 0


def linear(start: float, end: float, steps: int) -> Schedule:
    """From `start` at step 0 to `end` at step `steps - 1`, and constant after."""

    def at(step: int) -> float:
        return start + (end - start) * min(step / max(steps - 1, 1), 1.0)

    return at


def cosine(start: float, end: float, steps: int) -> Schedule:
    """Half a cosine from `start` at step 0 to `end` at step `steps - 1`, and constant after."""

    def at(step: int) -> float:
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(step / max(steps - 1, 1), 1.0)))

    return at


def after_warmup(start: float, warmup: int, rest: Schedule) -> Schedule:
    """Linear from `start` to the first value of `rest`, which step `warmup` has; then `rest`."""

    def at(step: int) -> float:
        if step < warmup:
            return start + (rest(0) - start) * step / warmup
        return rest(step - warmup)

    return at


def learning_rate(config: OptimizationConfig, warmup: int, steps: int) -> Schedule:
    """The learning rate of a config's run of `steps` steps."""
    if warmup >= steps:
        raise ValueError(f"optimization.warmup_*: a warm-up of {warmup} steps does not fit into a run of {steps}")
    end = config.lr if config.schedule == "constant" else config.final_lr
    fall = cosine if config.schedule == "cosine" else linear
    return after_warmup(config.start_lr, warmup, fall(config.lr, end, steps - warmup))


def weight_decay(config: OptimizationConfig, steps: int) -> Schedule:
    """The weight decay of a config's run of `steps` steps."""
    final = config.weight_decay if config.final_weight_decay is None else config.final_weight_decay
    return cosine(config.weight_decay, final, steps)
