"""Made-up samples as a small shards folder: for a first try, for tests, never for a result. These are the ECGs.

Each wave of a beat (P, Q, R, S, T) is a Gaussian along a direction of its own in space, and a lead is the projection on
a fixed vector (McSharry et al. 2003 in shape, with the lead geometry of a vectorcardiogram). A patient has a heart rate
and wave sizes, a record varies them, each beat varies a little more.
"""

# C leads, T samples of a lead, W waves, B beats

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.data import SyntheticConfig
from src.data.index import INDEX_NAME, Labels
from src.data.load_index import load_index
from src.data.synthetic_pictures import patient_and_split, pictures_source, write_pictures
from src.data.tars import FolderTaken
from src.data.write_shards import Description, Record, write_shards
from src.randomness import Streams

RECIPE = 1
"""Counts changes of what the same config makes."""
FAST = 100.0
"""Heart rate in beats a minute from which a record is labelled fast: tachycardia's definition."""
SLOW = 60.0
"""Below which it is bradycardia."""
REPORTS = (
    (("sinus bradycardia", "sinus rhythm, normal ECG", "sinus tachycardia"), "{rhythm}, rate {rate:.0f}/min"),
    (("Sinusbradykardie", "Sinusrhythmus, normales EKG", "Sinustachykardie"), "{rhythm}, Frequenz {rate:.0f}/min"),
)
"""Slow, normal and fast, and the sentence around them."""
SCALE = 0.001
"""mV per unit."""

WAVES = ("P", "Q", "R", "S", "T")
CENTRES_W = np.array([-0.17, -0.025, 0.0, 0.028, 0.25])
"""Seconds from the R peak; P and T move with the square root of the beat's length, as Bazett has it for QT."""
WIDTHS_W = np.array([0.022, 0.008, 0.011, 0.010, 0.045])
"""Standard deviations in seconds."""
DIRECTIONS_W3 = np.array(
    [[0.09, 0.11, 0.02], [-0.06, -0.06, 0.10], [0.75, 0.85, -0.35], [-0.20, -0.12, 0.40], [0.20, 0.20, 0.12]]
)
"""Peaks in mV along x (left), y (feet) and z (back)."""

LIMB_3 = {"I": (1.0, 0.0, 0.0), "II": (0.5, 0.87, 0.0), "III": (-0.5, 0.87, 0.0)}
AUGMENTED_3 = {"aVR": (-0.75, -0.43, 0.0), "aVL": (0.75, -0.43, 0.0), "aVF": (0.0, 0.87, 0.0)}
CHEST_3 = {
    "V1": (-0.35, 0.05, -1.0),
    "V2": (0.15, 0.05, -1.2),
    "V3": (0.55, 0.10, -1.0),
    "V4": (0.95, 0.20, -0.6),
    "V5": (1.05, 0.15, -0.1),
    "V6": (0.95, 0.10, 0.3),
}
PROJECTIONS_3 = {**LIMB_3, **AUGMENTED_3, **CHEST_3}


def make_synthetic(root: Path, config: SyntheticConfig, leads: Sequence[str], modality: str = "ecg") -> None:
    """Write the folder unless it is there already; several processes may do so at once, one of them wins.

    Images, videos and CT volumes are those of synthetic_pictures.py.

    Raises:
        ValueError: the folder holds something else.
    """
    source = _source(config, leads) if modality == "ecg" else pictures_source(config, modality)
    if (root / INDEX_NAME).exists():
        _accept(root, source)
        return
    try:
        if modality == "ecg":
            labels = Labels(names=("fast",), kind="multilabel")
            description = Description(tuple(leads), config.sampling_rate, labels, source)
            write_shards(root, _records(config, leads), description)
        else:
            write_pictures(root, config, modality)
    except FolderTaken:
        if not (root / INDEX_NAME).exists():
            raise
        _accept(root, source)


def _source(config: SyntheticConfig, leads: Sequence[str]) -> dict[str, Any]:
    unset = {"sides", *(key for key in ("shortest", "reports") if not getattr(config, key))}
    return {"synthetic": {**config.model_dump(mode="json", exclude=unset), "leads": list(leads), "recipe": RECIPE}}


def _accept(root: Path, source: dict[str, Any]) -> None:
    """Leave a folder as it is if it was made from the same config."""
    found = load_index(root)[0].source
    if found != source:
        raise ValueError(
            f"{root} holds other shards (source {found}) than data.synthetic would make ({source}):"
            " remove data.synthetic to train on them, or name another folder in data.root"
        )


def _records(config: SyntheticConfig, leads: Sequence[str]) -> Iterator[Record]:
    """Patients in order."""
    projections_C3 = np.array([_projection(lead) for lead in leads])
    for number in range(config.samples):
        patient, split = patient_and_split(config.samples, number)
        rate, dipole_3T = _dipole(config, patient, number)
        noise_CT = _stream(config, "record", number).normal("noise", len(leads), config.length)[0]
        signal_CT = (projections_C3 @ dipole_3T + 0.015 * noise_CT)[:, : _length(config, number)]
        yield Record(
            split=split,
            key=f"synthetic-{number:07d}",
            signal_CT=np.clip(np.rint(signal_CT / SCALE), -32768, 32767).astype(np.int16),
            meta={
                "id": f"{number:07d}",
                "patient_id": f"{patient:07d}",
                "heart_rate": rate,
                "labels": [int(rate >= FAST)],
                "scale": [SCALE] * len(leads),
            },
            text=_report(config, number, rate) if config.reports else None,
        )


def _report(config: SyntheticConfig, number: int, rate: float) -> str | None:
    """The rhythm and its rate to the next ten, in one of two languages; one record in sixteen has none."""
    drawn = _stream(config, "record", number)
    if not drawn.integers("silent", 16)[0]:
        return None
    rhythms, sentence = REPORTS[int(drawn.integers("language", len(REPORTS))[0])]
    return sentence.format(rhythm=rhythms[int((rate >= SLOW) + (rate >= FAST))], rate=round(rate, -1))


def _length(config: SyntheticConfig, number: int) -> int:
    """Samples of a lead of a record; a shorter one is the beginning of what it would be."""
    if config.shortest is None:
        return config.length
    lengths = config.length - config.shortest + 1
    return config.shortest + int(_stream(config, "record", number).integers("length", lengths)[0])


def _stream(config: SyntheticConfig, kind: str, number: int) -> Streams:
    return Streams.of_samples(config.seed, np.zeros(1, np.int64), np.array([number])).fork("synthetic").fork(kind)


def _projection(lead: str) -> NDArray[np.float64]:
    """The lead's vector; a lead without a place on the body gets one from its name."""
    if lead in PROJECTIONS_3:
        return np.array(PROJECTIONS_3[lead])
    return Streams.of_step(0, 0).fork(lead).normal("projection", 3)[0]


def _dipole(config: SyntheticConfig, patient: int, number: int) -> tuple[float, NDArray[np.float64]]:
    """Mean heart rate of a record and its dipole [3, T] in mV."""
    of_patient, of_record = _stream(config, "patient", patient), _stream(config, "record", number)
    rate = 50.0 + 90.0 * of_patient.uniform("rate", 1)[0, 0] + 4.0 * of_record.normal("rate", 1)[0, 0]
    sizes_W3 = DIRECTIONS_W3 * np.exp(0.25 * of_patient.normal("size", len(WAVES), 3)[0])
    seconds = config.length / config.sampling_rate
    beats = int(seconds * rate / 60.0 * 1.5) + 4
    lengths_B = 60.0 / rate * np.exp(0.04 * of_record.normal("interval", beats)[0])
    peaks_B = np.cumsum(lengths_B) - lengths_B[0] * (1.0 + of_record.uniform("phase", 1)[0, 0])
    times_T = np.arange(config.length) / config.sampling_rate
    waves_WT = np.zeros((len(WAVES), config.length))
    for peak, length in zip(peaks_B, lengths_B, strict=True):
        stretch_W = np.array([np.sqrt(length), 1.0, 1.0, 1.0, np.sqrt(length)])
        offset_WT = times_T - peak - (CENTRES_W * stretch_W)[:, None]
        waves_WT += np.exp(-0.5 * (offset_WT / (WIDTHS_W * stretch_W)[:, None]) ** 2)
    return round(float(rate), 2), sizes_W3.T @ waves_WT
