"""Labels told from sentences about them, without any record that has them: zero-shot classification.

Of each label's sentences the vectors are averaged and brought to length 1 again (Radford et al. 2021, section 3.1.4).
A record's score is its cosine to the positive vector less that to the negative one: the log-odds of a softmax over the
two, up to the temperature, which changes no rank. No threshold is told, since no record has chosen one.
"""

# N records, K labels, F features of the joint space

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.prompts import Prompts
from src.evaluation.results import cell_text
from src.metrics.table import score_table

Features = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Features]
TOLD = ("auroc", "average_precision")


def label_directions(prompts: Prompts, embed: Embed, languages: tuple[str, ...] | None = None) -> Features:
    """For each label the vector [K, F] whose inner product with a record's is the score.

    Raises:
        ValueError: a label has no sentence in these languages.
    """
    found = []
    for name, label in prompts.labels.items():
        direction_F = _prototype(embed(prompts.sentences(label.positive, languages, name)))
        if label.negative is not None:
            direction_F = direction_F - _prototype(embed(prompts.sentences(label.negative, languages, name)))
        found.append(direction_F)
    return np.stack(found)


def _prototype(features_PF: Features) -> Features:
    mean_F = features_PF.mean(0)
    prototype: Features = mean_F / np.linalg.norm(mean_F)
    return prototype


def score_zero_shot(
    ecg_NF: Features,
    directions_KF: Features,
    truth_NK: NDArray[np.floating],
    names: Sequence[str],
    patients_N: Sequence[object] | NDArray[Any],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """A table like that of `score_table`, of the row `zero_shot`: AUROC and average precision of each label, and macro.

    Truth is 0, 1 or NaN for unknown; a label of which one class alone is there is skipped and said so.
    """
    # the scores' table takes probabilities; any rising map keeps every rank
    odds_NK = (ecg_NF.astype(np.float64) @ directions_KF.T.astype(np.float64)) / 4.0 + 0.5
    rows = {"zero_shot": [odds_NK]}
    table = score_table("multilabel", truth_NK, rows, patients_N, labels=names, draws=draws, seed=seed)
    scores = table["scores"]["zero_shot"]
    by_label = {name: _told(cells) for name, cells in scores["labels"].items()}
    return table | {"scores": {"zero_shot": {"macro": _told(scores["macro"]), "labels": by_label}}}


def _told(cells: dict[str, Any]) -> dict[str, Any]:
    """Without what is of probabilities, which these scores are not."""
    return {name: cells[name] for name in TOLD}


def markdown(table: dict[str, Any]) -> str:
    """Macro and label by label, with intervals and how many records are positive."""
    scores = table["scores"]["zero_shot"]
    lines = [f"| label | positive | {' | '.join(TOLD)} |", f"| --- | ---: | {' | '.join('---:' for _ in TOLD)} |"]
    lines.append(f"| macro | | {' | '.join(cell_text(scores['macro'][metric]) for metric in TOLD)} |")
    for name, cells in scores["labels"].items():
        told = " | ".join(cell_text(cells[metric]) for metric in TOLD)
        lines.append(f"| {name} | {table['positives'][name]} | {told} |")
    lines += [f"\n{name} is skipped: {reason}" for name, reason in table["skipped"].items()]
    return "\n".join(lines)
