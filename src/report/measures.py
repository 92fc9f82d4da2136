"""What the numbers of a page are called, what they mean and what to look for."""

from __future__ import annotations

import math
from typing import NamedTuple


class Measure(NamedTuple):
    """A number that is drawn over steps."""

    title: str
    meaning: str
    low: float | None = None
    """What the axis reaches down to, so that a small wobble looks small."""
    high: float | None = None
    """What it reaches up to."""


OF_TEXTS = "Greedy texts of the validation records; dashed is the most frequent training report, given to everybody."

HEALTH = {
    "rankme": Measure(
        "Effective rank (RankMe)",
        "How many directions the features of the records use: the exponential of the entropy of their singular values "
        "(RankMe, Garrido et al. 2023). Look for a value that rises or stays well above half of the random encoder's; "
        "a fall towards 1 is collapse. Compare only runs of equal width and equally many records.",
        low=0.0,
    ),
    "feature_std": Measure(
        "Spread of the features",
        "Standard deviation of a feature over the records, mean of all dimensions. It has the scale of the features, "
        "so look at its course, not its height: a fall towards 0 means that all records look alike.",
        low=0.0,
    ),
    "dead_dimensions": Measure(
        "Dead dimensions",
        "Share of the dimensions that hardly vary: their spread is below 1 % of the mean spread. Look for 0; "
        "a share that grows is collapse of some dimensions.",
        low=0.0,
        high=0.1,
    ),
    "between_samples": Measure(
        "Variance between records",
        "Share of the variance of the target tokens that lies between records rather than between positions. "
        "Near 0 the encoder has learned positions alone; look for a value that does not drift to 0.",
        low=0.0,
        high=1.0,
    ),
    "loss": Measure(
        "Loss beside that of the mean",
        "The training loss (solid) and what predicting the mean of all records at each position would cost (dotted). "
        "A loss that reaches the dotted line tells that the predictor knows nothing of the record; where both fall "
        "together the targets have become easy, which is no learning.",
        low=0.0,
    ),
    "knn_auroc": Measure(
        "Nearest neighbours",
        "Macro AUROC of a vote of nearest neighbours in feature space, on patients of the validation split. "
        "0.5 is chance; look for a value above the random encoder's.",
        low=0.5,
    ),
    "probe_auroc": Measure(
        "Linear probe",
        "Macro AUROC of a linear classifier on the frozen features, on patients of the validation split. "
        "0.5 is chance; an encoder that is worth its training ends above the random one.",
        low=0.5,
    ),
    "auroc": Measure("AUROC", "Mean over the labels of which both kinds are among the validation records.", low=0.5),
    "cross_entropy": Measure(
        "Cross-entropy",
        "Of the validation records, without weights and smoothing. One that rises again overfits.",
    ),
    "loss_per_token": Measure("Loss of a token", "Of the validation reports. One that rises again overfits.", low=0.0),
    "bleu": Measure("BLEU", f"{OF_TEXTS} 0 to 100.", low=0.0),
    "rouge_1": Measure("ROUGE-1", OF_TEXTS, low=0.0),
    "rouge_2": Measure("ROUGE-2", OF_TEXTS, low=0.0),
    "rouge_l": Measure("ROUGE-L", OF_TEXTS, low=0.0),
    "exact": Measure("Exact texts", f"Share that is right to the letter. {OF_TEXTS}", low=0.0),
    **{
        f"retrieval/{way}/{metric}": Measure(f"{title}: {told}", "", low=0.0)
        for way, title in (("ecg_to_text", "Report of an ECG"), ("text_to_ecg", "ECG of a report"))
        for metric, told in (
            *((f"recall_any@{k}", f"right among {k}") for k in (1, 5, 10)),
            ("median_rank", "median rank"),
            ("map", "MAP"),
        )
    },
}
"""In the order of the page; `mean_loss` is drawn with `loss`."""
MEAN_LOSS = "mean_loss"
COUNTS = frozenset({"labels", "skipped", "best_step", "retrieval/ecgs", "retrieval/texts"})
"""What stands in the table and is not drawn."""

CURVES = {
    "loss": Measure("Loss", ""),
    "learning rate": Measure("Learning rate", "", low=0.0),
    "weight_decay": Measure("Weight decay", "", low=0.0),
    "momentum": Measure("Momentum of the teacher", ""),
    "grad_norm": Measure("Gradient norm, before clipping", "", low=0.0),
    "temperature": Measure("Temperature, learned", ""),
    "duplicate_text_rate": Measure("Equal reports in a batch", "", low=0.0, high=1.0),
    "skipped_steps": Measure("Steps skipped so far", "", low=0.0),
    "samples_per_second": Measure("Samples per second", "", low=0.0),
    "data_wait": Measure("Share of the time spent waiting for data", "", low=0.0),
}
"""Panels of metrics.jsonl, in the order of the page; whatever else is in it follows."""


class Score(NamedTuple):
    """A metric of a probe, or of texts."""

    title: str
    better: str


SCORES = {
    "auroc": Score("AUROC", "higher"),
    "average_precision": Score("average precision", "higher"),
    "f1": Score("F1", "higher"),
    "balanced_accuracy": Score("balanced accuracy", "higher"),
    "r2": Score("R\N{SUPERSCRIPT TWO}", "higher"),
    "pearson": Score("Pearson r", "higher"),
    "mae": Score("mean absolute error", "lower"),
    "rmse": Score("root mean square error", "lower"),
    "brier": Score("Brier score", "lower"),
    "calibration_error": Score("calibration error", "lower"),
    "accuracy": Score("accuracy", "higher"),
    "bleu": Score("BLEU", "higher"),
    "rouge_1": Score("ROUGE-1", "higher"),
    "rouge_2": Score("ROUGE-2", "higher"),
    "rouge_l": Score("ROUGE-L", "higher"),
    "exact": Score("share of exact texts", "higher"),
}
"""In the order of the tables' columns; other metrics follow by name."""
HEADLINE = 6
"""So many of them fit a page's width; all stand behind a click."""

CHANCE = {"auroc": 0.5, "r2": 0.0, "pearson": 0.0}
"""What knowing nothing scores."""


def score_title(metric: str) -> str:
    """A metric's name for people."""
    return SCORES[metric].title if metric in SCORES else metric.replace("_", " ")


def in_order(metrics: set[str]) -> list[str]:
    """Known metrics first."""
    known = list(SCORES)
    return sorted(metrics, key=lambda name: (known.index(name) if name in known else len(known), name))


def significant(value: float) -> str:
    """Three significant digits; a dash for what is not a number."""
    return "\N{EN DASH}" if not math.isfinite(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
