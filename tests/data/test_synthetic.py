"""Made-up ECGs: always the same, plausible, patients apart, and never over something else."""

import multiprocessing

import numpy as np
import pytest
from scipy.signal import find_peaks

from src.config.data import STANDARD_LEADS, SyntheticConfig
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from src.data.synthetic import FAST, make_synthetic


def both_splits(root, leads=STANDARD_LEADS):
    splits = load_index(root)[0].splits
    readers = [ECGShards(root, split, leads) for split in splits]
    return [reader.read(np.arange(len(reader))) for reader in readers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "shards"
    make_synthetic(root, SyntheticConfig(samples=60, length=1000, sampling_rate=100.0), STANDARD_LEADS)
    return root


def test_the_same_config_makes_the_same_bytes(folder, tmp_path):
    make_synthetic(tmp_path / "again", SyntheticConfig(samples=60, length=1000), STANDARD_LEADS)
    assert load_index(tmp_path / "again")[1] == load_index(folder)[1]


def test_a_fifth_of_the_patients_is_for_validation_and_none_is_in_both(folder):
    train, val = both_splits(folder)
    assert len(train) == 48
    assert len(val) == 12
    patients = [{sample["meta"]["patient_id"] for sample in split} for split in (train, val)]
    assert not patients[0] & patients[1]
    assert len(patients[0] | patients[1]) == 30


def test_leads_agree_as_einthoven_and_goldberger_have_it(folder):
    for sample in sum(both_splits(folder), []):
        I, II, III, aVR, aVL, aVF = sample["ecg"][:6]  # noqa: E741
        assert np.allclose(I + III, II, atol=0.15)  # six standard deviations of the noise of three leads
        assert np.allclose(aVR + aVL + aVF, 0, atol=0.3)


def test_beats_come_at_the_heart_rate_that_the_meta_tells_and_the_label_follows(folder):
    labels = set()
    for sample in sum(both_splits(folder), []):
        lead = sample["ecg"][1]
        peaks, _ = find_peaks(lead, height=0.6 * lead.max(), distance=20)
        found = 60.0 * 100.0 / np.diff(peaks).mean()
        assert found == pytest.approx(sample["meta"]["heart_rate"], rel=0.1)
        assert sample["labels"].tolist() == [float(sample["meta"]["heart_rate"] >= FAST)]
        labels.update(sample["labels"].tolist())
    assert labels == {0.0, 1.0}


def test_amplitudes_are_those_of_an_ecg(folder):
    ecg = np.stack([sample["ecg"] for sample in sum(both_splits(folder), [])])
    assert np.isfinite(ecg).all()
    assert 0.5 < np.median(ecg[:, 1].max(-1)) < 2.5
    assert np.abs(ecg).max() < 6
    assert (ecg.std(-1) > 0.02).all()


def test_seeds_patients_and_records_differ(tmp_path, folder):
    make_synthetic(tmp_path / "s", SyntheticConfig(samples=60, length=1000, seed=1), STANDARD_LEADS)
    ecg = [s["ecg"].tobytes() for root in (folder, tmp_path / "s") for s in sum(both_splits(root), [])]
    assert len(set(ecg)) == 120


def test_ecgs_of_different_lengths_are_beginnings_of_the_others(tmp_path, folder):
    made = SyntheticConfig(samples=60, length=1000, shortest=300)
    make_synthetic(tmp_path / "s", made, STANDARD_LEADS)
    found, whole = sum(both_splits(tmp_path / "s"), []), sum(both_splits(folder), [])
    lengths = [sample["ecg"].shape[1] for sample in found]
    assert min(lengths) >= 300 and max(lengths) <= 1000 and len(set(lengths)) > 40 and 550 < np.mean(lengths) < 750
    for sample, other, length in zip(found, whole, lengths, strict=True):
        assert sample["key"] == other["key"]
        np.testing.assert_array_equal(sample["ecg"], other["ecg"][:, :length])
    with pytest.raises(ValueError, match="holds other shards"):
        make_synthetic(tmp_path / "s", SyntheticConfig(samples=60, length=1000), STANDARD_LEADS)
    with pytest.raises(ValueError, match="shortest 20 is more than length 10: lower it"):
        SyntheticConfig(length=10, shortest=20)


def test_a_folder_made_before_is_left_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    make_synthetic(folder, SyntheticConfig(samples=60, length=1000), STANDARD_LEADS)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("config", "leads"),
    [
        (SyntheticConfig(samples=61, length=1000), STANDARD_LEADS),
        (SyntheticConfig(samples=60, length=1000, seed=1), STANDARD_LEADS),
        (SyntheticConfig(samples=60, length=1000), STANDARD_LEADS[:3]),
    ],
)
def test_other_shards_are_refused_and_left_alone(folder, config, leads):
    before = load_index(folder)[1]
    with pytest.raises(ValueError, match=r"holds other shards .* data\.root"):
        make_synthetic(folder, config, leads)
    assert load_index(folder)[1] == before


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        make_synthetic(tmp_path, SyntheticConfig(), ("I",))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_few_samples_leave_some_for_training(tmp_path, samples):
    make_synthetic(tmp_path / "s", SyntheticConfig(samples=samples, length=10), ("I", "chest patch"))
    found = both_splits(tmp_path / "s", ("I", "chest patch"))
    assert sum(len(split) for split in found) == samples
    assert "train" in load_index(tmp_path / "s")[0].splits


def make_and_report(root, barrier, answers):
    barrier.wait()
    try:
        make_synthetic(root, SyntheticConfig(samples=40, length=200), ("I", "II"))
        answers.put(load_index(root)[1])
    except Exception as error:
        answers.put(repr(error))


def test_processes_that_make_it_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=make_and_report, args=(tmp_path / "deep" / "shards", barrier, answers)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    found = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(timeout=60)
    assert found == {load_index(tmp_path / "deep" / "shards")[1]}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["shards"]
