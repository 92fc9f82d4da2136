"""Who the simulated patients are and what their ECGs show: labels, and the parameters through which they show.

A finding is a state, present or not. What it does to the signal is a continuous parameter (the PR interval, the level
of the ST segment, ...) whose distributions with and without the finding overlap, so that no label can be read off.
Everything is a pure function of (seed, patient, record).
"""

# N records, K findings

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.randomness import Streams

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]

FINDINGS = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AF": "atrial fibrillation",
    "PAC": "premature atrial beats",
    "PVC": "ventricular premature beats",
    "AVB1": "first-degree AV block",
    "RBBB": "right bundle branch block",
    "LBBB": "left bundle branch block",
    "STEMI_ANT": "anterior ST elevation",
    "STEMI_INF": "inferior ST elevation",
    "LVH": "left ventricular hypertrophy",
    "TINV": "T-wave inversion",
}
"""Column: what it stands for. The first four exclude each other and one of them always holds."""
RHYTHMS = ("SR", "SBRAD", "STACH", "AF")
MOST_RECORDS = 4
RECORDS_OF_PATIENT = (0.35, 0.70, 0.90, 1.0)
"""Cumulative shares of patients with 1, 2, 3 and 4 records."""
SPLITS = {"train": 0.60, "val": 0.75, "test": 1.0}
"""Cumulative shares of patients."""


@dataclass(frozen=True)
class Spread:
    """A parameter's normal distribution without a finding and with it."""

    without: tuple[float, float]
    """Mean and standard deviation."""
    present: tuple[float, float]
    error: float
    """Standard deviation of the oracle's measurement in a record of usual noise."""

    def draw(self, has_N: Flags, normal_N: Floats) -> Floats:
        """The parameter of records from standard normal numbers."""
        (mean0, sd0), (mean1, sd1) = self.without, self.present
        return np.where(has_N, mean1 + sd1 * normal_N, mean0 + sd0 * normal_N)


SPREADS = {
    "AVB1": Spread((160.0, 20.0), (224.0, 27.0), 4.0),  # PR interval, ms
    "RBBB": Spread((0.06, 0.19), (0.74, 0.31), 0.05),  # late rightward forces, 1: complete
    "LBBB": Spread((0.0, 0.18), (0.76, 0.33), 0.05),  # late leftward forces, 1: complete
    "STEMI_ANT": Spread((0.01, 0.045), (0.19, 0.080), 0.010),  # ST dipole, mV
    "STEMI_INF": Spread((0.0, 0.040), (0.16, 0.068), 0.010),  # ST dipole, mV
    "LVH": Spread((0.0, 0.17), (0.48, 0.20), 0.06),  # log of the size of QRS
    "TINV": Spread((1.0, 0.48), (-0.75, 0.74), 0.06),  # size of T, 1: usual, below 0: inverted
}
RATES = {"SR": (74.0, 9.0), "SBRAD": (55.0, 6.5), "STACH": (102.0, 9.5), "AF": (88.0, 19.0)}
"""Mean and standard deviation of the heart rate, beats a minute."""
RATE_ERROR = 1.0
IRREGULARITY = Spread((np.log(0.05), 0.43), (np.log(0.13), 0.43), 0.20)
"""Log of the coefficient of variation of RR without ectopic beats; with: AF."""
P_SIZE = Spread((0.95, 0.37), (0.20, 0.25), 0.15)
"""Size of the P wave, 1: usual; with: AF, where what is left is not fully disorganised."""
F_WAVES = Spread((np.log(0.009), 0.75), (np.log(0.034), 0.6), 0.25)
"""Log of the size of 4 to 9 Hz activity, mV; without AF it is tremor, which looks alike."""
UNREPORTED = {"PAC": 0.08, "PVC": 0.06}
"""Share of the records without the label that hold one such beat all the same."""
PRESENCE = {
    "PAC": (-1.85, 0.5),
    "PVC": (-1.90, 0.5),
    "AVB1": (-1.95, 0.6),
    "LBBB": (-2.55, 0.6),
    "RBBB": (-2.15, 0.5),
    "STEMI_ANT": (-2.2, 0.3),
    "STEMI_INF": (-2.1, 0.3),
    "LVH": (-1.85, 0.6),
    "TINV": (-1.35, 0.4),
}
"""Log odds at latent disease 0, and their slope."""


@dataclass(frozen=True)
class Records:
    """What is drawn of N records, [N] each unless the name says more."""

    patient: Numbers
    number: Numbers
    """Of the record within its patient, from 0."""
    of_patient: Streams
    of_record: Streams
    age: Numbers
    """Years."""
    female: Flags
    split: NDArray[np.str_]
    labels_NK: Flags
    """In the order of FINDINGS."""
    rate: Floats
    """Beats a minute, ectopic ones aside."""
    irregularity: Floats
    """Coefficient of variation of RR."""
    p_size: Floats
    f_size: Floats
    """Of f-waves, or what looks like them, mV."""
    shown: dict[str, Floats]
    """The parameters of SPREADS."""
    beats: dict[str, Numbers]
    """PAC and PVC: how many ectopic beats."""
    noise: Floats
    """Its size, 1: usual."""

    def __len__(self) -> int:
        return len(self.patient)

    def has(self, finding: str) -> Flags:
        """The label of a finding."""
        return self.labels_NK[:, list(FINDINGS).index(finding)]


def draw_records(seed: int, first: int, last: int) -> Records:
    """The records of patients first .. last - 1, in order; those of a patient are the same in any such range."""
    patient, number = _roster(seed, first, last)
    of_patient, of_record = _of_patients(seed, patient), _of_records(seed, patient, number)
    age, female = _age(of_patient), of_patient.uniform("sex", 1)[:, 0] < 0.48
    has = _findings(of_patient, of_record, age)
    return Records(
        patient=patient,
        number=number,
        of_patient=of_patient,
        of_record=of_record,
        age=age,
        female=female,
        split=_split(of_patient),
        labels_NK=np.stack([has[name] for name in FINDINGS], axis=1),
        rate=_rate(has, of_patient, of_record, female),
        irregularity=np.exp(IRREGULARITY.draw(has["AF"], _normal(of_patient, of_record, "irregularity", 0.3))),
        p_size=P_SIZE.draw(has["AF"], _normal(of_patient, of_record, "p", 0.5)),
        f_size=np.exp(F_WAVES.draw(has["AF"], _normal(of_patient, of_record, "f-waves", 0.5))),
        shown={name: own.draw(has[name], _normal(of_patient, of_record, name, 0.7)) for name, own in SPREADS.items()},
        beats={name: _ectopic(has[name], has["AF"] & (name == "PAC"), of_record, name) for name in UNREPORTED},
        noise=_noise(of_record),
    )


def _roster(seed: int, first: int, last: int) -> tuple[Numbers, Numbers]:
    patients = np.arange(first, last)
    drawn = _of_patients(seed, patients).uniform("records", 1)[:, 0]
    counts = np.searchsorted(RECORDS_OF_PATIENT, drawn, side="right") + 1
    numbers = np.concatenate([np.arange(count) for count in counts])
    return np.repeat(patients, counts), numbers.astype(np.int64)


def _of_patients(seed: int, patient_N: Numbers) -> Streams:
    return Streams.of_samples(seed, np.zeros_like(patient_N), patient_N).fork("simulated patient")


def _of_records(seed: int, patient_N: Numbers, number_N: Numbers) -> Streams:
    addresses_N = patient_N * MOST_RECORDS + number_N
    return Streams.of_samples(seed, np.zeros_like(patient_N), addresses_N).fork("simulated record")


def _normal(of_patient: Streams, of_record: Streams, name: str, share: float) -> Floats:
    """Standard normal; `share` of the variance is the patient's and stays from record to record."""
    name = f"{name} varies"
    return np.sqrt(share) * of_patient.normal(name, 1)[:, 0] + np.sqrt(1 - share) * of_record.normal(name, 1)[:, 0]


def _age(of_patient: Streams) -> Numbers:
    return np.clip(np.rint(61.0 + 16.0 * of_patient.normal("age", 1)[:, 0]), 18, 95).astype(np.int64)


def _split(of_patient: Streams) -> NDArray[np.str_]:
    place = np.searchsorted(list(SPLITS.values()), of_patient.uniform("split", 1)[:, 0], side="right")
    return np.array(list(SPLITS))[place]


def _findings(of_patient: Streams, of_record: Streams, age_N: Numbers) -> dict[str, Flags]:
    """Rhythm, one of four; conduction and hypertrophy are the patient's, the rest comes and goes."""
    disease_N = 0.035 * (age_N - 60.0) + of_patient.normal("disease", 1)[:, 0]

    def present(name: str, streams: Streams) -> Flags:
        level, slope = PRESENCE[name]
        return streams.uniform(f"has {name}", 1)[:, 0] < 1 / (1 + np.exp(-level - slope * disease_N))

    has = _rhythm(of_patient, of_record, disease_N)
    has["LBBB"] = present("LBBB", of_patient)
    has["RBBB"] = present("RBBB", of_patient) & ~has["LBBB"]
    has["LVH"] = present("LVH", of_patient)
    has["AVB1"] = present("AVB1", of_patient) & ~has["AF"]
    has["STEMI_ANT"] = present("STEMI_ANT", of_record) & ~has["LBBB"]
    has["STEMI_INF"] = present("STEMI_INF", of_record) & ~has["LBBB"] & ~has["STEMI_ANT"]
    prone = present("TINV", of_patient) & ~has["LBBB"] & ~has["STEMI_ANT"] & ~has["STEMI_INF"]
    has["TINV"] = prone & (of_record.uniform("inverted now", 1)[:, 0] < 0.8)
    has["PAC"] = present("PAC", of_record) & ~has["AF"]
    has["PVC"] = present("PVC", of_record)
    return has


def _rhythm(of_patient: Streams, of_record: Streams, disease_N: Floats) -> dict[str, Flags]:
    prone = of_patient.uniform("prone to AF", 1)[:, 0] < 1 / (1 + np.exp(1.0 - 0.7 * disease_N))
    often = 0.5 + 0.5 * of_patient.uniform("how often in AF", 1)[:, 0]
    fibrillates = prone & (of_record.uniform("AF now", 1)[:, 0] < often)
    pace = _normal(of_patient, of_record, "pace", 0.5)
    slow, fast = ~fibrillates & (pace < -0.6), ~fibrillates & (pace > 0.6)
    return {"SR": ~fibrillates & ~slow & ~fast, "SBRAD": slow, "STACH": fast, "AF": fibrillates}


def _rate(has: dict[str, Flags], of_patient: Streams, of_record: Streams, female_N: Flags) -> Floats:
    normal_N = _normal(of_patient, of_record, "rate", 0.5)
    rate_N = sum(has[name] * (mean + sd * normal_N) for name, (mean, sd) in RATES.items())
    return np.clip(rate_N + np.where(female_N, 1.0, -1.0), 35.0, 170.0)


def _ectopic(has_N: Flags, never_N: Flags, of_record: Streams, name: str) -> Numbers:
    reported = 1 + np.floor(3.0 * of_record.uniform(f"count of {name}", 1)[:, 0] ** 2).astype(np.int64)
    unreported = (of_record.uniform(f"unreported {name}", 1)[:, 0] < UNREPORTED[name]) & ~never_N
    return np.where(has_N, reported, unreported.astype(np.int64))


def _noise(of_record: Streams) -> Floats:
    bad = of_record.uniform("bad record", 1)[:, 0] < 0.07
    return np.exp(0.45 * of_record.normal("noise varies", 1)[:, 0]) * np.where(bad, 3.5, 1.0)
