"""The signal is a function of (seed, patient, record), and its leads are those of electrodes on one body."""

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.simulation.dynamics import (
    DOWER_CD,
    draw_beats,
    field_of_electrodes,
    leads_of_electrodes,
    potentials,
    quantised,
    render,
)
from src.simulation.findings import MOST_RECORDS, draw_records
from src.simulation.oracle import oracle_scores
from src.simulation.reports import write_reports


def test_a_record_is_the_same_in_any_cohort():
    alone, among = draw_records(7, 3, 4), draw_records(7, 0, 9)
    rows = among.patient == 3
    assert rows.sum() == len(alone)
    assert np.array_equal(alone.labels_NK, among.labels_NK[rows])
    assert np.array_equal(quantised(render(alone, 100, 10)), quantised(render(among, 100, 10))[rows])
    assert np.allclose(oracle_scores(alone), oracle_scores(among)[rows], rtol=1e-12)
    assert write_reports(alone) == [report for report, own in zip(write_reports(among), rows, strict=True) if own]


def test_seeds_patients_and_records_differ():
    one, other = render(draw_records(0, 0, 6), 100, 5), render(draw_records(1, 0, 6), 100, 5)
    for first, second in ((one[0], other[0]), (one[0], one[1]), (one[0], one[-1])):
        assert np.abs(first - second).mean() > 0.02


def test_patients_have_one_to_four_records_and_one_split():
    records = draw_records(0, 0, 2000)
    patients, counts = np.unique(records.patient, return_counts=True)
    assert len(patients) == 2000
    assert set(counts) == set(range(1, MOST_RECORDS + 1))
    shares = {split: (records.split == split).mean() for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.60, "val": 0.15, "test": 0.25}, abs=0.03)
    own = {(patient, split) for patient, split in zip(records.patient, records.split, strict=True)}
    assert len(own) == 2000


def test_leads_keep_einthoven_and_goldberger_up_to_rounding():
    """In microvolts: sums of three rounded numbers, of which halves count half."""
    microvolts = quantised(render(draw_records(0, 0, 20), 100, 10)).swapaxes(0, 1).astype(int)
    ecg = dict(zip(STANDARD_LEADS, microvolts, strict=True))
    assert np.abs(ecg["II"] - ecg["I"] - ecg["III"]).max() <= 1
    assert np.abs(ecg["aVR"] + ecg["aVL"] + ecg["aVF"]).max() <= 1
    assert np.abs(ecg["aVR"] + (ecg["I"] + ecg["II"]) / 2).max() <= 1
    assert np.abs(ecg["aVL"] - (ecg["I"] - ecg["III"]) / 2).max() <= 1
    assert np.abs(ecg["aVF"] - (ecg["II"] + ecg["III"]) / 2).max() <= 1


def test_electrodes_give_dowers_leads():
    leads_CD = leads_of_electrodes() @ field_of_electrodes()
    assert np.allclose(leads_CD[[0, 1, *range(6, 12)]], DOWER_CD)
    assert np.allclose(field_of_electrodes()[:3].sum(axis=0), 0)


def test_rates_of_sampling_show_the_same_heart():
    """Every second sample of 200 Hz is the signal at 100 Hz, noise aside."""
    records = draw_records(3, 0, 12)
    beats = draw_beats(records, 10.0)
    slow, fast = (potentials(records, beats, rate, 10.0) for rate in (100.0, 200.0))
    assert np.abs(slow - fast[..., ::2]).max() < 0.02 * np.abs(slow).max()


def test_mains_hum_appears_where_the_rate_lets_it_through():
    records = draw_records(0, 0, 30)
    spectrum = np.abs(np.fft.rfft(render(records, 500, 10))).mean(axis=(0, 1))
    assert spectrum[500] > 3 * spectrum[480:495].mean()  # 0.1 Hz a bin


def test_heart_rate_varies_at_the_mayer_wave_and_at_respiration():
    """The RR spectrum has its power about 0.1 Hz and 0.25 Hz, two thirds of it in the second band."""
    records = draw_records(0, 0, 400)
    regular = np.flatnonzero(records.has("SR") & (records.beats["PAC"] + records.beats["PVC"] == 0))
    times = draw_beats(records, 60.0).times[regular]
    grid = np.arange(2.0, 58.0, 0.25)
    power = np.zeros(len(grid) // 2 + 1)
    for peaks in times:
        interval = np.interp(grid, peaks[1:], np.diff(peaks))
        power += np.abs(np.fft.rfft((interval - interval.mean()) * np.hanning(len(grid)))) ** 2
    rate = np.fft.rfftfreq(len(grid), 0.25)
    low, high = ((rate > start) & (rate < end) for start, end in ((0.05, 0.15), (0.17, 0.33)))
    assert power[low | high].sum() > 0.75 * power.sum()
    assert 0.4 < power[high].sum() / power[low | high].sum() < 0.8


def test_a_ventricular_beat_is_early_and_its_pause_makes_up_for_it():
    records = draw_records(0, 0, 400)
    beats = draw_beats(records, 10.0)
    intervals = np.diff(beats.times, axis=1) * records.rate[:, None] / 60
    regular = ~records.has("AF") & (records.irregularity < 0.05)
    rows, places = np.nonzero(beats.ventricular & regular[:, None])
    early, pause = intervals[rows, places - 1], intervals[rows, places]
    assert len(rows) > 20
    assert (early < 0.88).all()
    assert np.abs(early + pause - 2).max() < 0.35
    rows, places = np.nonzero(beats.early_atrial & regular[:, None])
    assert (intervals[rows, places - 1] < 0.88).all()
    assert np.median(intervals[rows, places]) < 1.2
