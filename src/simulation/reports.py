"""What a reader would write of a record: a sentence for each finding, and for what was looked for and not found.

A sentence about something that is absent is written only where it is absent; a finding is never left out.
"""

# N records, K findings, A sentences on what is absent

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.simulation.findings import FINDINGS, RHYTHMS, SPREADS, Numbers, Records

PHRASES = {
    "SR": ("Sinus rhythm at {rate}/min.", "Regular sinus rhythm, rate {rate}.", "Normal sinus rhythm, {rate} bpm."),
    "SBRAD": (
        "Sinus bradycardia at {rate}/min.",
        "Sinus rhythm, slow: bradycardia of {rate} bpm.",
        "Bradycardia, sinus.",
    ),
    "STACH": (
        "Sinus tachycardia at {rate}/min.",
        "Sinus rhythm, fast: tachycardia of {rate} bpm.",
        "Tachycardia, sinus.",
    ),
    "AF": (
        "Atrial fibrillation, ventricular rate {rate}/min.",
        "Irregularly irregular rhythm without P waves: atrial fibrillation.",
        "Atrial fibrillation, mean rate {rate} bpm.",
    ),
    "PAC": ("Premature atrial beats: {count}.", "Supraventricular extrasystoles ({count}).", "PAC: {count}."),
    "PVC": ("Ventricular premature beats: {count}.", "Ventricular extrasystoles ({count}).", "PVC: {count}."),
    "AVB1": (
        "{severity} first-degree AV block.",
        "{severity} prolongation of the PR interval.",
        "AV block I, {severity}.",
    ),
    "RBBB": (
        "{severity} right bundle branch block.",
        "RBBB, {severity}, with a late R' in V1.",
        "{severity} right-sided conduction delay: RBBB.",
    ),
    "LBBB": (
        "{severity} left bundle branch block.",
        "LBBB, {severity}, with a broad notched R in V6.",
        "{severity} left-sided conduction delay: LBBB.",
    ),
    "STEMI_ANT": (
        "{severity} anterior ST elevation.",
        "{severity} ST elevation in V2 to V4, suspect anterior infarction.",
        "Anterior injury current, {severity}.",
    ),
    "STEMI_INF": (
        "{severity} inferior ST elevation.",
        "{severity} ST elevation in II, III and aVF, suspect inferior infarction.",
        "Inferior injury current, {severity}.",
    ),
    "LVH": (
        "{severity} left ventricular hypertrophy.",
        "LVH by voltage, {severity}.",
        "High voltage, {severity} left ventricular hypertrophy.",
    ),
    "TINV": ("{severity} T-wave inversion.", "Inverted T waves, {severity}.", "T negative, {severity}."),
}
ABSENT = {
    ("PAC", "PVC"): ("No ectopic beats.", "No extrasystoles."),
    ("RBBB", "LBBB"): ("No bundle branch block.", "QRS not prolonged."),
    ("STEMI_ANT", "STEMI_INF", "LBBB"): ("No ST elevation.", "No acute ST changes."),
    ("AVB1", "AF"): ("PR interval normal.", "AV conduction undisturbed."),
    ("LVH",): ("No sign of hypertrophy.", "Voltage within limits."),
    ("TINV", "LBBB", "LVH"): ("No T-wave inversion.", "T waves upright."),
}
"""What may be written where none of these holds; in LBBB, T is not upright nor ST level, though that is no finding."""
SEVERITIES = ("mild", "moderate", "marked")
MENTIONED = 0.4
"""Chance that something absent is told."""
COUNTS = ("none", "one", "two", "three")


def write_reports(records: Records) -> list[str]:
    """A report for each record, from its findings, their severity and its own random numbers."""
    phrase_NK = records.of_record.integers("phrase", 3, len(FINDINGS))
    told_NA = records.of_record.uniform("told absent", len(ABSENT)) < MENTIONED
    other_NA = records.of_record.integers("phrase of absence", 2, len(ABSENT))
    return [
        " ".join(
            [*_present(records, row, phrase_NK[row].tolist()), *_absent(records, row, told_NA[row], other_NA[row])]
        )
        for row in range(len(records))
    ]


def severity(records: Records, row: int, finding: str) -> str:
    """One of SEVERITIES: how far a record's parameter lies from those without the finding, against others with it."""
    (without, _), (mean, sd) = SPREADS[finding].without, SPREADS[finding].present
    beyond = (records.shown[finding][row] - mean) / sd * np.sign(mean - without)
    return SEVERITIES[int(np.searchsorted((-0.5, 0.8), beyond))]


def _present(records: Records, row: int, phrases: list[int]) -> list[str]:
    sentences = []
    for place, finding in enumerate(FINDINGS):
        if not records.labels_NK[row, place]:
            continue
        words = {"rate": f"{records.rate[row]:.0f}"}
        if finding in records.beats:
            words["count"] = COUNTS[records.beats[finding][row]]
        elif finding not in RHYTHMS:
            words["severity"] = severity(records, row, finding)
        sentence = PHRASES[finding][phrases[place]].format(**words)
        sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


def _absent(records: Records, row: int, told_A: NDArray[np.bool_], other_A: Numbers) -> list[str]:
    return [
        phrases[other]
        for (findings, phrases), told, other in zip(ABSENT.items(), told_A, other_A, strict=True)
        if told and not any(_shows(records, row, finding) for finding in findings)
    ]


def _shows(records: Records, row: int, finding: str) -> bool:
    """Whether a record has a finding, or an ectopic beat that was not reported."""
    beats = records.beats.get(finding)
    return bool(records.has(finding)[row]) or (beats is not None and bool(beats[row]))
