"""The short form of `python -m tools.trial alarm`, and what the other trials compute from finished runs."""

import csv
import re
from argparse import Namespace

import numpy as np
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tools import trial, trial_collapse, trial_encoders, trial_objectives, trial_pictures, trial_text
from tools.trial_alarm import COLLAPSING, HEALTHY, markdown, outcomes_of

STEPS = 100
SHARE = 0.5


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_the_alarm_fires_where_a_representation_collapses_and_only_there(tmp_path):
    found = list(outcomes_of(tmp_path, {"as shipped": HEALTHY["as shipped"], **COLLAPSING}, [0], STEPS))
    told = markdown(found)
    for outcome in found:
        assert (outcome.fired is not None) == outcome.fell(SHARE), told
        assert outcome.fell(SHARE) == (outcome.name in COLLAPSING), told


SHORT = ["optimization.steps=2", "optimization.warmup_steps=null", "evaluation.samples=100"]


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
def test_ptbxl500_scores_every_record_once_by_an_encoder_that_has_not_seen_its_patient(
    tmp_path, medssl_data, monkeypatch
):
    monkeypatch.setattr(trial_encoders, "FOLDS", 2)
    monkeypatch.setattr(trial_encoders, "SHUFFLES", 2)
    words = Namespace(output=tmp_path, data=medssl_data, devices=["cpu"], set=SHORT, set_probe=["scores.draws=50"])
    table = trial_encoders.ptbxl500(words)
    lines = [
        line
        for fold in range(2)
        for line in csv.DictReader((tmp_path / f"fold-{fold}/probe/predictions/fold/pretrained.0.csv").open())
    ]
    assert len({line["id"] for line in lines}) == len(lines) == 500
    assert sum(float(line["true NORM"]) for line in lines) == 297
    for fold in range(2):
        rows = list(csv.DictReader((tmp_path / f"fold-{fold}/records.csv").open()))
        patients = {split: {row["patient"] for row in rows if row["split"] == split} for split in ("train", "test")}
        assert not patients["train"] & patients["test"] and len(patients["test"]) > 200
    pooled = roc_auc_score([float(line["true NORM"]) for line in lines], [float(line["NORM"]) for line in lines])
    assert f"| pretrained | {pooled:.4f} [" in table
    floors = [float(value) for value in re.findall(r"\d\.\d{4}", table.split("\n")[-2])]
    assert len(floors) == 3 and abs(floors[0] - np.mean(floors[1:])) < 1e-4 and min(floors) > 0.75
    assert (tmp_path / "table.md").read_text() == table
    assert trial_encoders.ptbxl500(words) == table, "a finished trial is read, not run again"
    words.set_probe = ["scores.draws=60"]
    with pytest.raises(ValueError, match="scores.draws = 50, not 60"):
        trial_encoders.ptbxl500(words)


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.slow  # two more pre-trainings and probes, by the code of the one above
@pytest.mark.timeout(600)
def test_ptbxl500_pre_trained_on_simulated_ecgs_sees_none_of_its_records_before_the_probe(
    tmp_path, medssl_data, monkeypatch
):
    monkeypatch.setattr(trial_encoders, "FOLDS", 2)
    monkeypatch.setattr(trial_encoders, "SHUFFLES", 1)
    monkeypatch.setattr(trial_encoders, "COHORT_PATIENTS", 60)
    words = Namespace(output=tmp_path, data=medssl_data, devices=["cpu"], set=SHORT, set_probe=["scores.draws=50"])
    table = trial_encoders.ptbxl500_simulated(words)
    for fold in range(2):
        trained = yaml.safe_load((tmp_path / f"fold-{fold}/pretrain/config.yaml").read_text())
        assert trained["data"]["root"] == str(tmp_path / "cohort-shards") and trained["seed"] == fold
        assert (tmp_path / f"fold-{fold}/probe/predictions/fold/pretrained.0.csv").is_file()
    assert "pre-trained on 60 simulated patients" in table and "| pretrained - random_init |" in table
    assert trial_encoders.ptbxl500_simulated(words) == table, "a finished trial is read, not run again"


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.slow  # four probes of 21,580 beats
@pytest.mark.timeout(900)
def test_several_objectives_stand_in_one_table_beside_the_random_weights_that_they_share(
    tmp_path, medssl_data, monkeypatch
):
    monkeypatch.setattr(trial_objectives, "SEEDS", 2)
    short = [*SHORT, "optimization.epochs=null", "optimization.warmup_epochs=null"]
    objectives = ["jepa", "byol"]
    words = Namespace(output=tmp_path, data=medssl_data, devices=["cpu"], set=short, set_probe=["scores.draws=50"])
    words.objectives = objectives
    table = trial_objectives.compare_mitdb(words)
    assert table == (tmp_path / "table.md").read_text() and "Not the same" not in table
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][2:]
    others = ["random_init", "raw"]
    assert sorted(rows) == sorted(
        [*objectives, *others, *(f"{name} - {other}" for name in objectives for other in others)]
    )
    for objective in objectives:
        files = [tmp_path / objective / f"probe/predictions/DS2/pretrained.{seed}.csv" for seed in range(2)]
        scores = []
        for path in files:
            lines = list(csv.DictReader(path.open()))
            truth = [max("NSV", key=lambda label: float(line[f"true {label}"])) for line in lines]
            guessed = [max("NSV", key=lambda label: float(line[label])) for line in lines]
            scores.append(balanced_accuracy_score(truth, guessed))
        assert f"| {objective} | {np.mean(scores):.4f} [" in table, "the mean over seeds"
    assert trial_objectives.compare_mitdb(words) == table, "a finished trial is read, not run again"


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
def test_ptbxl500_of_another_objective_is_pooled_out_of_the_same_folds(tmp_path, medssl_data, monkeypatch):
    monkeypatch.setattr(trial_encoders, "FOLDS", 2)
    monkeypatch.setattr(trial_encoders, "SHUFFLES", 1)
    words = ["--data", str(medssl_data), "--devices", "cpu", "--set", *SHORT, "--set-probe", "scores.draws=50"]
    assert trial.main(["ptbxl500", "--output", str(tmp_path), "--objectives", "simclr", *words]) == 0
    table = (tmp_path / "table.md").read_text()
    parts = [tmp_path / f"simclr/fold-{fold}/probe/predictions/fold/pretrained.0.csv" for fold in range(2)]
    lines = [line for part in parts for line in csv.DictReader(part.open())]
    assert len({line["id"] for line in lines}) == 500
    pooled = roc_auc_score([float(line["true NORM"]) for line in lines], [float(line["NORM"]) for line in lines])
    assert f"| simclr | {pooled:.4f} [" in table and "| simclr - random_init |" in table
    assert "\nRaw floor (amplitudes, out of fold)" in table and "| pretrained" not in table


def some_predictions(scale, patients="abcd"):
    truth_NK = np.array([[1.0], [0.0], [1.0], [0.0]])
    drawn = np.random.default_rng(0).uniform(size=(4, 1))
    rows = {"pretrained": [scale * drawn], "random_init": [drawn if scale == 1 else drawn**2], "raw": [1 - drawn]}
    return trial_objectives.Predicted(rows, truth_NK, list(patients), ["NORM"])


def test_random_weights_that_differ_are_told_apart():
    found = {"jepa": some_predictions(1.0), "simclr": some_predictions(0.5)}
    table, note = trial_objectives.compared(found, "multilabel", 20)
    assert "random_init" in note and "raw" not in note
    assert list(table["scores"]) == ["jepa", "simclr", "random_init of jepa", "random_init of simclr", "raw"]
    assert list(table["differences"]) == [
        "jepa - random_init of jepa",
        "simclr - random_init of simclr",
        "jepa - raw",
        "simclr - raw",
    ]


def test_probes_of_other_records_are_no_table():
    found = {"jepa": some_predictions(1.0), "simclr": some_predictions(1.0, "abce")}
    with pytest.raises(ValueError, match="the probe of simclr is of other records"):
        trial_objectives.compared(found, "multilabel", 20)


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
def test_byol_is_trained_with_its_predictor_and_without(tmp_path, medssl_data, monkeypatch):
    monkeypatch.setattr(trial_collapse, "SEEDS", 1)
    words = ["--data", str(medssl_data), "--devices", "cpu", "--set", *SHORT]
    assert trial.main(["collapse", "--output", str(tmp_path), *words]) == 0
    table = (tmp_path / "table.md").read_text()
    kinds = {}
    for name in ("predictor", "none"):
        config = yaml.safe_load((tmp_path / name / "seed-0/config.yaml").read_text())
        kinds[name] = config["model"]["predictor"]["kind"]
    assert kinds == {"predictor": "mlp", "none": "none"}
    for row in ("| with predictor |", "| without predictor |", "| random weights |"):
        assert row in table
    columns = table.splitlines()[2].count("|")
    assert all(line.count("|") == columns for line in table.splitlines()[2:7])
    found = trial_collapse.projected(tmp_path / "none/seed-0", tmp_path / "shards")
    assert -1 <= found[trial_collapse.COSINE] <= 1
    assert f"{found[trial_collapse.COSINE]:.3g} to" in table


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
def test_meclip_tells_retrieval_and_the_probe_of_each_way_with_duplicates(tmp_path, medssl_data, monkeypatch):
    for tool in (trial_text, trial_encoders):
        monkeypatch.setattr(tool, "FOLDS", 2)
    monkeypatch.setattr(trial_text, "MODES", ("ignore", "exclude"))
    words = Namespace(output=tmp_path, data=medssl_data, devices=["cpu"], set=SHORT, set_probe=["scores.draws=50"])
    table = trial_text.meclip(words)
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows[:5] == ["| ecg_to_text", "| ---", "| ignore", "| exclude", "| constant answer"], table
    assert rows.count("| exclude - ignore") == 2 and rows.count("| pretrained - random_init") == 2, table
    counts = [int(count) for count in re.findall(r"(\d+) ECGs and", table)]
    assert sum(counts) == 499, "one of the 500 has no report"
    constant = next(line for line in table.splitlines() if line.startswith("| constant answer"))
    assert constant.startswith("| constant answer | 0.263 ["), "131 of 499 are one text, the most frequent of each fold"
    for fold in range(2):
        reports = [line["report"] for line in csv.DictReader((tmp_path / f"fold-{fold}/records.csv").open())]
        assert len(reports) == 500
    assert trial_text.meclip(words) == table, "a finished trial is read, not run again"


def test_without_the_records_it_is_told_in_one_sentence(tmp_path, capsys):
    assert trial.main(["mitdb", "--output", str(tmp_path / "out"), "--data", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'} is no folder: ")


@pytest.mark.distributed
@pytest.mark.data
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("run", "told"),
    [
        pytest.param("pneumonia", "pneumonia, 2 seeds", marks=pytest.mark.slow),
        pytest.param("organs", "organs, 2 seeds", marks=pytest.mark.slow),
        ("ultrasound", "11 patients in train"),
    ],
)
def test_trials_of_pictures_end_in_a_table(tmp_path, medssl_data, monkeypatch, run, told):
    monkeypatch.setattr(trial_pictures, "SEEDS", 2)
    short = [*SHORT, "optimization.epochs=null", "optimization.warmup_epochs=null", "data.batch_size=8"]
    short += ["evaluation.samples=8"]
    words = Namespace(output=tmp_path, data=medssl_data, devices=["cpu"], set=short, set_probe=["scores.draws=50"])
    table = getattr(trial_pictures, run)(words)
    assert told in table and table == (tmp_path / "table.md").read_text()
    rows = ["| 0 |", "| 1 |"] if run == "ultrasound" else ["| pretrained - random_init |", "| raw | 0."]
    assert all(row in table for row in rows), table
