"""A hand-written reader that knows the generator: about what can be known of a label from a record, at best.

It is told the parameters through which findings show (the PR interval, ...) with an error that grows with the record's
noise, and their distributions with and without a finding; its score is the probability of the finding by Bayes. It
needs no training. Each parameter is judged by itself: what findings tell of each other through age and disease is left
out, so that it is a reference near the ceiling and not a bound.
"""

# N records, K findings

from __future__ import annotations

import numpy as np

from src.simulation.findings import (
    F_WAVES,
    FINDINGS,
    IRREGULARITY,
    P_SIZE,
    PRESENCE,
    RATE_ERROR,
    RATES,
    RHYTHMS,
    SPREADS,
    Floats,
    Records,
    Spread,
)

BEAT_ERROR = 0.15
"""Standard deviation of the count of ectopic beats."""
EXCLUDES = {
    "AVB1": ("AF",),
    "PAC": ("AF",),
    "RBBB": ("LBBB",),
    "STEMI_ANT": ("LBBB",),
    "STEMI_INF": ("LBBB", "STEMI_ANT"),
    "TINV": ("LBBB", "STEMI_ANT", "STEMI_INF"),
}
"""Findings that are never there together with these, which are judged before them."""
RHYTHM_SHARES = {"SR": 0.36, "SBRAD": 0.20, "STACH": 0.20, "AF": 0.24}


def oracle_scores(records: Records) -> Floats:
    """The probability of each finding, [N, K] in the order of FINDINGS."""
    found = _rhythms(records)
    for name, spread in SPREADS.items():
        ratio_N = _log_ratio(_measured(records, name, records.shown[name], spread.error), spread, records.noise)
        found[name] = _sigmoid(PRESENCE[name][0] + ratio_N)
    for name, counts_N in records.beats.items():
        found[name] = _sigmoid(4 * (_measured(records, name, counts_N.astype(np.float64), BEAT_ERROR) - 1))
    for name, others in EXCLUDES.items():
        for other in others:
            found[name] *= 1 - found[other]
    return np.stack([found[name] for name in FINDINGS], axis=1)


def _measured(records: Records, name: str, true_N: Floats, error: float) -> Floats:
    return true_N + error * records.noise * records.of_record.normal(f"oracle of {name}", 1)[:, 0]


def _rhythms(records: Records) -> dict[str, Floats]:
    """The rhythm's four probabilities by rate, irregularity, P wave and f-waves, [N] each."""
    rate_N = _measured(records, "rate", records.rate, RATE_ERROR)
    atrial = (
        ("irregularity", np.log(records.irregularity), IRREGULARITY),
        ("P", records.p_size, P_SIZE),
        ("f-waves", np.log(records.f_size), F_WAVES),
    )
    fibrillates_N = sum(
        _log_ratio(_measured(records, name, true_N, spread.error), spread, records.noise)
        for name, true_N, spread in atrial
    )
    weight = {}
    for name in RHYTHMS:
        mean, sd = RATES[name]
        weight[name] = np.log(RHYTHM_SHARES[name]) + _log_density(
            rate_N, mean, np.hypot(sd, RATE_ERROR * records.noise)
        )
    weight["AF"] = weight["AF"] + fibrillates_N
    total_N = np.logaddexp.reduce([weight[name] for name in RHYTHMS], axis=0)
    return {name: np.exp(weight[name] - total_N) for name in RHYTHMS}


def _log_ratio(measured_N: Floats, spread: Spread, noise_N: Floats) -> Floats:
    """Log likelihood ratio of a finding; the measurement's error widens both distributions."""
    (mean0, sd0), (mean1, sd1) = spread.without, spread.present
    error_N = spread.error * noise_N
    return _log_density(measured_N, mean1, np.hypot(sd1, error_N)) - _log_density(
        measured_N, mean0, np.hypot(sd0, error_N)
    )


def _log_density(value_N: Floats, mean: float, sd_N: Floats) -> Floats:
    return -0.5 * ((value_N - mean) / sd_N) ** 2 - np.log(sd_N)


def _sigmoid(value_N: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(value_N, -50, 50)))
