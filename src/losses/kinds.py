"""Names of the losses a config can choose; free of torch."""

from typing import Literal

RegressionKind = Literal["smooth_l1", "l1"]
"""Losses between predicted and target features."""

Duplicates = Literal["ignore", "exclude", "share"]
"""What a contrastive loss does with another sample that says the same: a negative as any other, neither, a positive."""

Transport = Literal["ring", "gather"]
"""How the other ranks' rows come to this one: one rank's at a time, or all at once."""
