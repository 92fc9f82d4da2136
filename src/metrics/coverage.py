"""How often the intervals hold the truth: simulated tests whose population value is known.

Scores of negatives are N(0, 1), of positives N(separation, 1) (the binormal model), so AUROC is Phi(separation /
sqrt 2) and what is at a threshold is made of values of Phi; the rest is one integral. Records of a patient are alike in
label and in score, and so are the two models and the labels of a record; none of this moves a population value.

Legend: P patients, N records, K labels, S points of the score's axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from src.metrics.bootstrap import Array, interval, patient_draws
from src.metrics.calibration import BINS
from src.metrics.classification import auroc, macro, score_labels
from src.metrics.truth import two_classes

PREVALENCE_K = np.array([0.3, 0.1, 0.2, 0.5])
SEPARATION_K = np.array([1.2, 1.6, 0.8, 1.0])
"""Of the model; the other one, which it is compared with, is `WEAKER` as good."""
WEAKER = 0.8
THRESHOLD_K = SEPARATION_K / 2
ALIKE_TRUTH, ALIKE_SCORE, ALIKE_MODELS, ALIKE_LABELS = 0.5, 0.5, 0.7, 0.3  # correlations of latent normals
TEMPERATURE = 2.0  # log-odds are doubled, so that calibration has an error to estimate


class Sample(NamedTuple):
    """One simulated test set."""

    patients_N: NDArray[np.intp]
    truth_NK: Array
    scores: tuple[Array, Array]
    """Of the model and of the weaker one, [N, K]."""


@dataclass(frozen=True)
class Coverage:
    """How often intervals held the population value."""

    held: int
    given: int
    """Data sets in which there was an interval."""
    datasets: int

    @property
    def share(self) -> float:
        """Of the intervals that were given."""
        return self.held / self.given if self.given else math.nan

    @property
    def error(self) -> float:
        """Standard error of `share` from the finite number of data sets."""
        return math.sqrt(self.share * (1 - self.share) / self.given) if self.given else math.nan


def simulate(patients: int, generator: np.random.Generator) -> Sample:
    """Patients with one to three records each."""
    patients_N = np.repeat(np.arange(patients), generator.integers(1, 4, patients))
    shape = (len(patients_N), len(PREVALENCE_K))

    def alike(share: float) -> Array:
        """Standard normals [N, K] that correlate within a patient, and as ALIKE_LABELS within a record."""
        own_PK = _mix(generator.standard_normal((patients, 1)), generator.standard_normal((patients, shape[1])))
        each_NK = _mix(generator.standard_normal((shape[0], 1)), generator.standard_normal(shape))
        return math.sqrt(share) * own_PK[patients_N] + math.sqrt(1 - share) * each_NK

    truth_NK = (alike(ALIKE_TRUTH) < ndtri(PREVALENCE_K)).astype(np.float64)
    noise_NK = alike(ALIKE_SCORE)
    other_NK = math.sqrt(ALIKE_MODELS) * noise_NK + math.sqrt(1 - ALIKE_MODELS) * alike(ALIKE_SCORE)
    shift_NK = SEPARATION_K * truth_NK
    return Sample(patients_N, truth_NK, (noise_NK + shift_NK, other_NK + WEAKER * shift_NK))


def _mix(shared: Array, own: Array) -> Array:
    return math.sqrt(ALIKE_LABELS) * shared + math.sqrt(1 - ALIKE_LABELS) * own


def probabilities(scores_NK: Array) -> Array:
    """Overconfident probabilities: the log-odds of the binormal model times TEMPERATURE."""
    prior_K = np.log(PREVALENCE_K / (1 - PREVALENCE_K))
    return expit(TEMPERATURE * (prior_K + SEPARATION_K * (scores_NK - SEPARATION_K / 2)))


def population() -> dict[str, float]:
    """The values that `estimates` estimates, by formula or by an integral over the score."""
    auroc_K, weaker_K = ndtr(SEPARATION_K / math.sqrt(2)), ndtr(WEAKER * SEPARATION_K / math.sqrt(2))
    prevalence, separation, threshold = PREVALENCE_K[0], SEPARATION_K[0], THRESHOLD_K[0]
    found, false = ndtr(separation - threshold), ndtr(-threshold)
    scores_S = np.linspace(-10, 12, 2_200_001)
    positive_S = prevalence * _density(scores_S - separation)
    negative_S = (1 - prevalence) * _density(scores_S)
    above_S = prevalence * ndtr(separation - scores_S)
    precision_S = above_S / (above_S + (1 - prevalence) * ndtr(-scores_S))
    step = scores_S[1] - scores_S[0]
    probability_S = probabilities(scores_S[:, None])[:, 0]
    gap_S = (probability_S - 1) * positive_S + probability_S * negative_S
    bin_S = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability_S)
    return {
        "AUROC": float(auroc_K[0]),
        "macro AUROC of 4 labels": float(auroc_K.mean()),
        "difference in AUROC, paired": float(auroc_K[0] - weaker_K[0]),
        "difference in macro AUROC, paired": float((auroc_K - weaker_K).mean()),
        "average precision": float((precision_S * positive_S).sum() * step / prevalence),
        "balanced accuracy": float((found + 1 - false) / 2),
        "F1": float(2 * prevalence * found / (prevalence * found + (1 - prevalence) * false + prevalence)),
        "Brier score": float(((probability_S - 1) ** 2 * positive_S + probability_S**2 * negative_S).sum() * step),
        "calibration error": float(np.abs(np.bincount(bin_S, gap_S)).sum() * step),
    }


def _density(values: Array) -> Array:
    return np.exp(-(values**2) / 2) / math.sqrt(2 * math.pi)


def estimates(sample: Sample, weights_DN: NDArray[np.uint8] | None) -> dict[str, Array]:
    """The same by the names of `population`, [D]; those of one label are of the first."""
    truth_NK, (scores_NK, weaker_NK) = sample.truth_NK, sample.scores
    model = score_labels(probabilities(scores_NK), truth_NK, probabilities(THRESHOLD_K), weights_DN)
    pairs = zip(weaker_NK.T, truth_NK.T, strict=True)
    weaker_DK = np.stack([auroc(weaker_N, truth_N, weights_DN) for weaker_N, truth_N in pairs], axis=1)
    auroc_DK, gain_DK, defined_K = model["auroc"], model["auroc"] - weaker_DK, two_classes(truth_NK)
    return {
        "AUROC": auroc_DK[:, 0],
        "macro AUROC of 4 labels": macro(auroc_DK, defined_K),
        "difference in AUROC, paired": gain_DK[:, 0],
        "difference in macro AUROC, paired": macro(gain_DK, defined_K),
        "average precision": model["average_precision"][:, 0],
        "balanced accuracy": model["balanced_accuracy"][:, 0],
        "F1": model["f1"][:, 0],
        "Brier score": model["brier"][:, 0],
        "calibration error": model["calibration_error"][:, 0],
    }


def coverage(
    patients: int,
    datasets: int,
    draws: int,
    seed: int = 0,
    estimate: Callable[[Sample, NDArray[np.uint8] | None], dict[str, Array]] = estimates,
) -> dict[str, Coverage]:
    """How often the 95 % interval of each estimate holds its population value, over simulated data sets."""
    truth = population()
    held, given = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for sample, weights_DN in _datasets(patients, datasets, draws, seed):
        once, over = estimate(sample, None), estimate(sample, weights_DN)
        for name in over:
            found = interval(float(once[name][0]), over[name])
            if found.low is not None and found.high is not None:
                given[name] += 1
                held[name] += found.low <= truth[name] <= found.high
    return {name: Coverage(held[name], given[name], datasets) for name in truth}


def _datasets(patients: int, datasets: int, draws: int, seed: int) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
    for index in range(datasets):
        sample = simulate(patients, np.random.default_rng((seed, patients, index)))
        yield sample, patient_draws(sample.patients_N, draws, seed=index)
