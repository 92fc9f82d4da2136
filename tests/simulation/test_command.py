"""The command writes an archive that the build takes, and never over anything."""

import csv
import json
import shlex

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from src.simulation.findings import FINDINGS
from tests.commands import succeed
from tools.build_shards import main as build
from tools.simulate import main as simulate


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return {row["record"]: row for row in csv.DictReader(file)}


def test_what_it_prints_builds_shards_with_signals_labels_and_reports(tmp_path, capsys):
    folder = tmp_path / "a world"
    assert simulate(["ecg", "--output", str(folder), "--patients", "30"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:4] == ["python", "-m", "tools.build_shards", "ecg"]
    assert build([*command[3:], "--workers", "1"]) == 0
    table, scores, signals = rows(folder / "records.csv"), rows(folder / "oracle.csv"), np.load(folder / "ecg.npy")
    assert signals.dtype == np.int16
    assert signals.shape == (len(table), 12, 1000)
    assert list(table) == list(scores)
    seen = {}
    for split in ("train", "val", "test"):
        with ECGShards(f"{folder}-shards", split, STANDARD_LEADS) as shards:
            assert shards.sampling_rate == 100
            assert shards.label_names == tuple(FINDINGS)
            for sample in shards.read(np.arange(len(shards))):
                seen[sample["meta"]["record"]] = (split, sample)
    assert seen.keys() == table.keys()
    for (name, row), signal_CT in zip(table.items(), signals, strict=True):
        split, sample = seen[name]
        assert (split, sample["text"], sample["meta"]["patient_id"]) == (row["split"], row["report"], row["patient"])
        assert sample["labels"].tolist() == [float(row[finding]) for finding in FINDINGS]
        assert np.array_equal(sample["ecg"], (signal_CT / 1000).astype(np.float32))
        assert all(0 <= float(scores[name][finding]) <= 1 for finding in FINDINGS)


def test_more_patients_leave_the_first_as_they_were(tmp_path, capsys):
    for patients in (5, 40):
        assert simulate(["ecg", "--output", str(tmp_path / str(patients)), "--patients", str(patients)]) == 0
    few, many = (np.load(tmp_path / str(patients) / "ecg.npy") for patients in (5, 40))
    assert np.array_equal(few, many[: len(few)])
    for name in ("records.csv", "oracle.csv"):
        few, many = ((tmp_path / patients / name).read_text() for patients in ("5", "40"))
        assert many.startswith(few)
    assert json.loads((tmp_path / "40" / "cohort.json").read_text())["patients"] == 40


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert simulate(["ecg", "--output", str(tmp_path / "mine"), "--patients", "2"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "never overwritten" in error
    assert "\n" not in error
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_an_empty_folder_is_filled(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert simulate(["ecg", "--output", str(tmp_path / "empty"), "--patients", "2"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--patients", "0"), "--patients 0 must be at least 1"),
        (("--patients", "x"), "invalid int value"),
        (("--seed", "-1"), "--seed -1 must be at least 0"),
        (("--sampling-rate", "10"), "--sampling-rate 10 must be 80 to 2000"),
        (("--sampling-rate", "nan"), "--sampling-rate nan must be"),
        (("--seconds", "1"), "--seconds 1 must be 5 to 60"),
        (("--colour", "red"), "unrecognized arguments"),
    ],
)
def test_a_wrong_flag_is_one_sentence(tmp_path, capsys, words, told):
    assert simulate(["ecg", "--output", str(tmp_path / "world"), *words]) == 1
    error = capsys.readouterr().err.strip()
    assert told in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_it_runs_from_the_command_line(tmp_path):
    words = ("ecg", "--output", str(tmp_path / "w"), "--patients", "2", "--sampling-rate", "250", "--seconds", "5")
    printed = succeed("-m", "tools.simulate", *words, script="-u")
    assert "--source-rate 250" in printed
    assert np.load(tmp_path / "w" / "ecg.npy").shape[1:] == (12, 1250)
