"""Each finding shows in the signal, by a simple measurement that knows nothing of how the signal was made."""

import numpy as np
import pytest

from src.simulation.dynamics import render
from src.simulation.findings import FINDINGS, RHYTHMS, draw_records
from tests.simulation.measure import auroc, measure

PATIENTS, RATE = 160, 200
CLEARLY = 0.7
"""AUROC of one crude measurement in records with overlap and noise."""


@pytest.fixture(scope="module")
def cohort():
    """Records of usual noise, and what is measured in them."""
    records = draw_records(1, 0, PATIENTS)
    quiet = records.noise < 2
    ecgs = render(records, RATE, 10.0)[quiet]
    found = [measure(ecg_CT, RATE) for ecg_CT in ecgs]
    measured = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {name: records.has(name)[quiet] for name in FINDINGS}, measured


# finding, measurement (larger with the finding), those that are left out
SHOWS = [
    ("AF", "irregularity", ("PAC", "PVC")),
    ("STACH", "rate", ("SBRAD", "AF")),
    ("PAC", "earliest", ("AF", "PVC")),
    ("PVC", "oddest", ()),
    ("AVB1", "pr", ("AF", "STACH")),
    ("RBBB", "terminal V1", ()),
    ("RBBB", "qrs", ("LBBB",)),
    ("LBBB", "qrs", ("RBBB",)),
    ("STEMI_ANT", "st anterior", ("LBBB",)),
    ("STEMI_INF", "st inferior", ("LBBB",)),
    ("LVH", "voltage", ()),
    ("TINV", "t", ("LBBB", "LVH")),
]


@pytest.mark.parametrize(("finding", "measurement", "without"), SHOWS)
def test_a_finding_shows(cohort, finding, measurement, without):
    has, measured = cohort
    kept = ~np.any([has[name] for name in without], axis=0) if without else np.ones_like(has[finding])
    assert auroc(has[finding][kept], measured[measurement][kept]) > CLEARLY


def test_bradycardia_is_slow_and_tachycardia_fast(cohort):
    has, measured = cohort
    middle = [np.median(measured["rate"][has[name]]) for name in ("SBRAD", "SR", "STACH")]
    assert middle[0] < 60 < middle[1] < 95 < middle[2]
    assert auroc(has["SBRAD"][~has["AF"]], -measured["rate"][~has["AF"]]) > 0.9


def test_left_bundle_branch_block_ends_to_the_left_and_right_to_the_right(cohort):
    has, measured = cohort
    usual = ~has["LBBB"] & ~has["RBBB"]
    for lead, later, other in (("terminal V6", "LBBB", "RBBB"), ("terminal V1", "RBBB", "LBBB")):
        middle = [np.median(measured[lead][flags]) for flags in (has[other], usual, has[later])]
        assert middle[0] < middle[1] < middle[2], lead


def test_rhythms_exclude_each_other_and_every_finding_is_neither_rare_nor_usual():
    records = draw_records(0, 0, 3000)
    labels_NK = records.labels_NK
    assert (labels_NK[:, : len(RHYTHMS)].sum(axis=1) == 1).all()
    shares = labels_NK.mean(axis=0)
    assert ((shares > 0.05) & (shares < 0.40)).all(), dict(zip(FINDINGS, shares, strict=True))
    assert not (records.has("AF") & (records.has("AVB1") | records.has("PAC"))).any()
    assert not (records.has("RBBB") & records.has("LBBB")).any()


def test_disease_grows_with_age():
    records = draw_records(0, 0, 3000)
    old = records.age > 70
    for finding in ("AF", "LVH", "LBBB", "RBBB", "AVB1"):
        assert records.has(finding)[old].mean() > records.has(finding)[~old].mean(), finding


def test_a_block_stays_with_its_patient_and_rhythm_may_change():
    records = draw_records(0, 0, 500)
    same = (records.patient[1:, None] == records.patient[None, :-1]).diagonal()
    for finding in ("RBBB", "LBBB", "LVH"):
        has = records.has(finding)
        assert (has[1:] == has[:-1])[same].all()
    rhythm = records.labels_NK[:, : len(RHYTHMS)].argmax(axis=1)
    assert 0.2 < (rhythm[1:] != rhythm[:-1])[same].mean() < 0.8


def test_fibrillation_has_no_p_wave_in_the_averaged_beat(cohort):
    has, measured = cohort
    kept = has["AF"] | has["SR"]
    assert auroc(has["SR"][kept], measured["p"][kept]) > 0.75
