"""When a representation has collapsed, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANCE = 0.5
LEAST_EXCESS = 0.05
"""The probe says nothing where even the random encoder is no better than chance by this much."""


def alarms(record: Mapping[str, Any], share: float, advice: str) -> list[str]:
    """A sentence with each measure of a health record that fell below `share` of the random encoder's; usually none.

    Three measures decide, each of which sees what the others miss: the effective rank of the features (RankMe); the
    probe's macro AUROC above 0.5, since features of a high rank may be noise; and the loss of predicting the mean,
    since neither notices features that shrink to a constant and keep their shape. With a teacher that is the student
    (momentum 0) RankMe rose from 25.7 to 30.4 and the probe fell from 0.59 to 0.55, while that loss fell from 0.25 to
    0.006. But that loss falls in healthy runs as well, to 0.46 of the random encoder's in 2,400 steps while the probe
    rose from 0.64 to 0.74: it counts only where the probe is worse than the random encoder's, and without a probe from
    half the share on.
    """
    found = []
    if (ranks := _pair(record, "rankme")) and not ranks[0] >= share * ranks[1]:
        found.append(
            f"the effective rank of the features is {ranks[0]:.1f}, below {share:.0%} of the random encoder's "
            f"{ranks[1]:.1f}"
        )
    probes = _pair(record, "probe_auroc")
    if probes and not probes[1] >= CHANCE + LEAST_EXCESS:
        probes = None
    if probes and not probes[0] >= CHANCE + share * (probes[1] - CHANCE):
        found.append(
            f"the probe's AUROC is {probes[0]:.3f}, its distance from {CHANCE} below {share:.0%} of that of the random "
            f"encoder's {probes[1]:.3f}"
        )
    least = share if probes else share / 2
    worse = probes is None or not probes[0] >= probes[1]
    if worse and (losses := _pair(record, "mean_loss")) and not losses[0] >= least * losses[1]:
        found.append(
            f"predicting the mean of the features would have a loss of {losses[0]:.4f}, below {least:.0%} of the "
            f"random encoder's {losses[1]:.4f}"
        )
    reasons = "; ".join(found)
    return [f"the representation is collapsing: {reasons}{f'; {advice}' if advice else ''}"] if found else []


def _pair(record: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """A measure and the random encoder's, if both were taken."""
    value, at_random = record.get(name), record.get(f"random_init/{name}")
    return None if value is None or at_random is None else (value, at_random)
