"""A report tells its record's findings, all of them and no other."""

import re

import numpy as np

from src.simulation.findings import FINDINGS, SPREADS, draw_records
from src.simulation.reports import PHRASES, SEVERITIES, severity, write_reports

TELLS = {
    "SR": r"^(sinus rhythm at|regular sinus rhythm|normal sinus rhythm)",
    "SBRAD": r"bradycardia",
    "STACH": r"tachycardia",
    "AF": r"fibrillation",
    "PAC": r"atrial beats|supraventricular extrasystoles|PAC",
    "PVC": r"ventricular premature|(?<!supra)ventricular extrasystoles|PVC",
    "AVB1": r"AV block|prolongation of the PR",
    "RBBB": r"right bundle|RBBB",
    "LBBB": r"left bundle|LBBB",
    "STEMI_ANT": r"anterior (ST|injury)|V2 to V4",
    "STEMI_INF": r"inferior (ST|injury)|aVF",
    "LVH": r"left ventricular hypertrophy|LVH",
    "TINV": r"T-wave inversion|inverted T|T negative",
}
DENIES = {
    r"no ectopic|no extrasystoles": ("PAC", "PVC"),
    r"no bundle|QRS not prolonged": ("RBBB", "LBBB"),
    r"no ST elevation|no acute ST": ("STEMI_ANT", "STEMI_INF"),
    r"PR interval normal|AV conduction undisturbed": ("AVB1",),
    r"no sign of hypertrophy|voltage within": ("LVH",),
    r"no T-wave inversion|T waves upright": ("TINV",),
}
RECORDS = draw_records(5, 0, 800)
REPORTS = write_reports(RECORDS)


def sentences(report):
    return [sentence for sentence in re.split(r"\.(?: |$)", report) if sentence]


def told(report):
    """Findings that a report states."""
    plain = [own for own in sentences(report) if not any(re.search(word, own, re.I) for word in DENIES)]
    return {name for name, word in TELLS.items() if any(re.search(word, own, re.I) for own in plain)}


def test_a_report_states_exactly_the_findings():
    for row, report in enumerate(REPORTS):
        assert told(report) == {name for name in FINDINGS if RECORDS.has(name)[row]}, report


def test_a_denial_is_true():
    seen = set()
    for row, report in enumerate(REPORTS):
        for word, findings in DENIES.items():
            if re.search(word, report, re.I):
                seen.add(word)
                assert not any(RECORDS.has(name)[row] for name in findings), report
                assert not any(RECORDS.beats[name][row] for name in findings if name in RECORDS.beats), report
    assert seen == set(DENIES)


def test_every_phrase_and_every_severity_is_used():
    everything = " ".join(REPORTS).lower()
    for finding, phrases in PHRASES.items():
        for phrase in phrases:
            pieces = [piece for piece in re.split(r"\{\w+\}", phrase.lower()) if len(piece) > 3]
            assert all(piece in everything for piece in pieces), finding
    assert all(word in everything for word in SEVERITIES)


def test_severity_follows_the_parameter():
    for finding in SPREADS:
        rows = np.flatnonzero(RECORDS.has(finding))
        away = np.abs(RECORDS.shown[finding][rows] - SPREADS[finding].without[0])
        grade = [SEVERITIES.index(severity(RECORDS, row, finding)) for row in rows]
        middle = [np.median(away[np.array(grade) == number]) for number in range(3)]
        assert middle == sorted(middle), finding


def test_reports_of_a_finding_differ():
    assert len(set(REPORTS)) > 0.6 * len(REPORTS)
