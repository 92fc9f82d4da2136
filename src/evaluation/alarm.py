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
    0.006.
    """
    found = []
    rank, random_rank = record.get("rankme"), record.get("random_init/rankme")
    if rank is not None and random_rank is not None and not rank >= share * random_rank:
        found.append(
            f"the effective rank of the features is {rank:.1f}, below {share:.0%} of the random encoder's "
            f"{random_rank:.1f}"
        )
    probe, random_probe = record.get("probe_auroc"), record.get("random_init/probe_auroc")
    measured = probe is not None and random_probe is not None and random_probe >= CHANCE + LEAST_EXCESS
    if measured and not probe >= CHANCE + share * (random_probe - CHANCE):
        found.append(
            f"the probe's AUROC is {probe:.3f}, its distance from {CHANCE} below {share:.0%} of that of the random "
            f"encoder's {random_probe:.3f}"
        )
    loss, random_loss = record.get("mean_loss"), record.get("random_init/mean_loss")
    if loss is not None and random_loss is not None and not loss >= share * random_loss:
        found.append(
            f"predicting the mean of the features would have a loss of {loss:.4f}, below {share:.0%} of the random "
            f"encoder's {random_loss:.4f}"
        )
    reasons = "; ".join(found)
    return [f"the representation is collapsing: {reasons}{f'; {advice}' if advice else ''}"] if found else []
