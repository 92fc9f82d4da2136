"""Small test sets with ties, unknown labels, rare labels and patients of several records.

Legend: N records, K labels, D draws.
"""

import numpy as np

RECORDS, LABELS = 150, 4


def patients(records=RECORDS, seed=0):
    """Names of patients with one to many records, in no order, [N]."""
    return [f"p{number}" for number in np.random.default_rng(seed).integers(0, records // 2, records)]


def binary(records=RECORDS, seed=0, digits=1):
    """Probabilities with ties (rounded) and truth, [N] each."""
    generator = np.random.default_rng(seed)
    truth_N = (generator.random(records) < 0.3).astype(float)
    return np.round(np.clip(0.3 * truth_N + 0.7 * generator.random(records), 0, 1), digits), truth_N


def multilabel(records=RECORDS, labels=LABELS, seed=0):
    """Probabilities and truth with a tenth unknown, [N, K] each."""
    generator = np.random.default_rng(seed)
    truth_NK = (generator.random((records, labels)) < np.linspace(0.1, 0.5, labels)).astype(float)
    probability_NK = np.round(0.3 * truth_NK + 0.7 * generator.random((records, labels)), 2)
    truth_NK[generator.random((records, labels)) < 0.1] = np.nan
    return probability_NK, truth_NK


def multiclass(records=RECORDS, classes=LABELS, seed=0):
    """Probabilities [N, K] and classes [N], a tenth of them unknown (-1)."""
    generator = np.random.default_rng(seed)
    truth_N = generator.integers(0, classes, records)
    odds_NK = np.exp(generator.standard_normal((records, classes)) + 1.5 * np.eye(classes)[truth_N])
    truth_N[generator.random(records) < 0.1] = -1
    return odds_NK / odds_NK.sum(1, keepdims=True), truth_N


def real_weights(draws=7, records=RECORDS, seed=0):
    """Weights that are no counts, a fifth of them 0, [D, N]."""
    generator = np.random.default_rng(seed)
    return generator.random((draws, records)) * (generator.random((draws, records)) > 0.2)
