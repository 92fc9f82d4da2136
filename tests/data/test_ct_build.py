"""Volumes go into shards and come out as independent readers have them, from whichever place and by whichever flags."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest

from src.data.load_index import load_index
from src.data.shards import Shards
from tests.commands import alive, descendants, wait_until
from tests.data.archive import build, contents, rejected, write_csv
from tests.data.volumes import chest, write_nifti, write_npz, write_nrrd, write_series

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (6, 16, 20)


def xyz(seed=0, shape=SHAPE):
    """As NIfTI and NRRD store what lies in the patient as `chest(shape, seed)` does: LPS."""
    return chest(shape, seed).transpose(2, 1, 0)


def ct(capsys, source, output, *words, units="hu"):
    """Build; returns what was printed."""
    code, out, err = build(
        capsys, "ct", "--input", source, "--units", units, "--output", output, "--workers", "1", *words
    )
    assert code == 0, err
    return out + err


def refuse(capsys, tmp_path, *words):
    code, _, err = build(capsys, "ct", "--output", tmp_path / "refused", "--workers", "1", *words)
    assert code == 1 and err.splitlines()[-1].startswith("error: ") and not (tmp_path / "refused").exists(), err
    return err.splitlines()[-1]


def samples(output, split="train"):
    """{key: sample}"""
    with Shards(output, split) as shards:
        return {sample["key"]: sample for sample in shards.read(np.arange(len(shards)))}


@pytest.fixture
def archive(tmp_path):
    """The same chest of four patients, a format each, and another of the second."""
    folder = tmp_path / "cts"
    write_nifti(folder / "anna" / "one.nii.gz", xyz())
    write_nrrd(folder / "bert" / "two.nrrd", xyz(1), np.diag([1.5, 1.5, 2.0]))
    write_nifti(folder / "bert" / "again.nii", xyz(2)[::-1], "RPS")
    write_series(folder / "carl" / "dicom", chest(SHAPE, 3), PatientID="MRN-7", PatientAge="071Y", PatientSex="F")
    write_npz(folder / "dora" / "four.npz", ct=chest(SHAPE, 4)[None])
    return folder


STATED = ("--source-orientation", "SPL", "--source-spacing", "2", "1.5", "1.5")


@pytest.mark.data
def test_real_volumes_are_what_independent_readers_give(medssl_data, tmp_path, capsys):
    source = medssl_data / "ct"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    told = ct(capsys, source, tmp_path / "out", "--no-patients", "--keep-ids", "--workers", "1")
    found, out = samples(tmp_path / "out"), rejected(tmp_path / "out")
    assert len(found) == 7 and len(out) == 5 and all("it is a label map" in why for why in out.values())
    assert "train: 7 samples" in told and "SPL" in told
    for path in sorted(source.rglob("*.n*")):
        name = str(path.relative_to(source))
        if name in out:
            continue
        sample = found[name.replace("/", "-").replace(".", "-")]
        if path.suffix == ".nrrd":
            values, header = nrrd.read(str(path))
            assert header["space"] == "left-posterior-superior"
            expected, spacing = values.transpose(2, 1, 0), np.diag(header["space directions"])[::-1]
        else:
            image = nibabel.as_closest_canonical(nibabel.load(path))
            expected = np.asanyarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
            spacing = image.header.get_zooms()[::-1]
        assert sample["ct"].dtype == np.int16 and np.array_equal(sample["ct"][0], expected), name
        assert np.allclose(sample["meta"]["spacing"], spacing, atol=1e-5) and sample["meta"]["stored"] == "exact"
        assert sample["meta"]["source_shape"] == list(expected.shape) and sample["meta"]["orientation"] == "SPL"


def test_every_format_comes_out_alike(archive, tmp_path, capsys):
    ct(capsys, archive, tmp_path / "out", "--patient-folders", "--keep-ids", *STATED, "--compress")
    found = samples(tmp_path / "out")
    names = ["anna-one-nii-gz", "bert-two-nrrd", "bert-again-nii", "carl-dicom", "dora-four-npz"]
    assert sorted(found) == sorted(names)
    for seed, name in enumerate(names):
        assert np.array_equal(found[name]["ct"][0], chest(SHAPE, seed)), name
        assert found[name]["meta"]["patient_id"] == name.split("-")[0]
    assert found["carl-dicom"]["meta"]["age"] == 71 and found["carl-dicom"]["meta"]["sex"] == 1
    assert found["carl-dicom"]["meta"]["spacing"] == [2.5, 1.2, 0.8]
    index, _ = load_index(tmp_path / "out")
    assert index.patients == {"train": 4} and index.orientation == "SPL" and index.shapes == (SHAPE, SHAPE)


def test_numpy_and_tarfile_alone_read_a_shard(archive, tmp_path, capsys):
    ct(capsys, archive, tmp_path / "out", "--no-patients", "--keep-ids", *STATED)
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        names = [name for name in tar.getnames() if name.startswith("dora")]
        assert names == ["dora-four-npz.ct.npz", "dora-four-npz.json"]
        with np.load(io.BytesIO(tar.extractfile(names[0]).read())) as file:
            assert (
                file.files == ["ct"] and file["ct"].dtype == np.int16 and np.array_equal(file["ct"][0], chest(SHAPE, 4))
            )


def test_stored_values_intervals_and_fractions(tmp_path, capsys):
    hu = chest(SHAPE).astype(np.int32)
    write_npz(tmp_path / "a" / "x.npz", ct=(hu + 1024).astype(np.uint16))
    ct(capsys, tmp_path / "a", tmp_path / "1", "--no-patients", *STATED, "--intercept", "-1024", units="rescale")
    (sample,) = samples(tmp_path / "1").values()
    assert np.array_equal(sample["ct"][0], hu) and sample["meta"]["units"] == "rescale"
    unit = np.clip((hu + 1000) / 2000, 0, 1).astype(np.float32)
    write_npz(tmp_path / "b" / "x.npz", ct=unit)
    words = ("--no-patients", *STATED, "--interval-hu", "-1000", "1000")
    ct(capsys, tmp_path / "b", tmp_path / "2", *words, units="unit_interval")
    (sample,) = samples(tmp_path / "2").values()
    assert np.array_equal(sample["ct"][0], np.clip(hu, -1000, 1000)) and sample["meta"]["stored"] == "rounded"
    ct(capsys, tmp_path / "b", tmp_path / "3", *words, "--keep-float", units="unit_interval")
    (sample,) = samples(tmp_path / "3").values()
    assert sample["ct"].dtype == np.float32 and np.abs(sample["ct"][0] - np.clip(hu, -1000, 1000)).max() < 1e-3


def test_all_volumes_have_the_channels_that_are_asked_for(tmp_path, capsys):
    for seed in (0, 1):
        write_npz(tmp_path / "in" / f"two{seed}.npz", ct=np.stack([chest(SHAPE, seed), chest(SHAPE, seed + 2)]))
    write_npz(tmp_path / "in" / "one.npz", ct=chest(SHAPE, 4))
    ct(capsys, tmp_path / "in", tmp_path / "1", "--no-patients", *STATED)
    assert rejected(tmp_path / "1") == dict.fromkeys(
        ("two0.npz", "two1.npz"), "it has 2 channels, not 1: --channels says how many all have"
    )
    ct(capsys, tmp_path / "in", tmp_path / "2", "--no-patients", "--keep-ids", *STATED, "--channels", "2")
    found = samples(tmp_path / "2")
    assert sorted(found) == ["two0-npz", "two1-npz"]
    assert np.array_equal(found["two1-npz"]["ct"], np.stack([chest(SHAPE, 1), chest(SHAPE, 3)]))
    index, _ = load_index(tmp_path / "2")
    assert index.channels == 2 and len(index.statistics.mean) == 4


def test_wrong_units_stop_with_what_fits(archive, tmp_path, capsys):
    words = ("--input", archive, "--no-patients", "--units", "rescale", "--slope", "1", "--intercept", "-1024")
    shutil.rmtree(archive / "carl")
    shutil.rmtree(archive / "dora")
    assert "it looks like HU already, --units hu" in refuse(capsys, tmp_path, *words)
    assert "--units is missing" in refuse(capsys, tmp_path, "--input", archive, "--no-patients")
    found = refuse(capsys, tmp_path, "--input", archive, "--no-patients", "--units", "HU")
    assert "hu" in found and "unit_interval" in found


class TestSettings:
    def test_a_yaml_says_what_flags_say(self, archive, tmp_path, capsys):
        yaml = tmp_path / "ct.yaml"
        yaml.write_text(
            "units: hu\nsource_orientation: SPL\nsource_spacing: [2, 1.5, 1.5]\norientation: RAS\n"
            "spacing: [2, 2, 2]\nsize: [16, 12, 8]\npad_value: -1000\nwindows: [lung, 'liver=60,160']\ncompress: true\n"
        )
        words = ("--no-patients", "--keep-ids", "--input", archive)
        code, _, err = build(capsys, "ct", *words, "--settings", yaml, "--output", tmp_path / "1")
        assert code == 0, err
        flags = ("--orientation", "RAS", "--spacing", "2", "2", "2", "--size", "16", "12", "8", "--pad-value", "-1000")
        more = ("--windows", "lung", "liver=60,160", "--compress")
        ct(capsys, archive, tmp_path / "2", *words[:2], *STATED, *flags, *more)
        assert contents(tmp_path / "1") == contents(tmp_path / "2")
        index, _ = load_index(tmp_path / "1")
        assert index.orientation == "RAS" and index.spacing == ((2, 2, 2), (2, 2, 2)) and index.shapes[0] == (16, 12, 8)
        assert [(window.name, window.center, window.width) for window in index.windows] == [
            ("lung", -600, 1500),
            ("liver", 60, 160),
        ]
        assert index.source["pad_value"] == -1000 and index.source["units"] == "hu"
        more = ("--settings", yaml, "--orientation", "keep", "--output", tmp_path / "3")
        code, _, err = build(capsys, "ct", *words, *more)
        assert code == 0, err
        index, _ = load_index(tmp_path / "3")
        assert index.orientation is None and index.orientations == {"LPS": 2, "RPS": 1, "SPL": 2}, "flags go first"

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("units: hu\nspaceing: [1, 1, 1]\n", "unknown key spaceing; did you mean spacing?"),
            ("units: HU\n", "units must be hu, unit_interval or rescale"),
            ("units: hu\nspacing: [1, 1]\n", "spacing must be"),
            ("units: hu\nspacing: [1, 0, 1]\n", "spacing"),
            ("units: hu\norientation: SPX\n", "three letters of different axes"),
            ("units: hu\nwindows: [lungs]\n", "NAME=CENTER,WIDTH"),
            ("units: hu\nwindows: []\n", "must name a window at least"),
            ("units: hu\nwindows: [lung, lung]\n", "got two called lung"),
            ("units: hu\nspacing: [1, 0.001, 1]\n", "spacing"),
            ("units: hu\nsize: [1, 8, 8]\n", "size"),
            ("units: hu\ncrop: never\n", "do nothing without size"),
            ("units: hu\nslope: 2.0\n", "do nothing for units hu"),
            ("units: hu\ninterval: [0, 1]\n", "do nothing for units hu"),
            ("units: unit_interval\n", "needs interval_hu"),
            ("units: unit_interval\ninterval: [1, 0]\n", "LOW < HIGH"),
            ("units: rescale\nslope: 0\n", "slope 0"),
            ("spacing: [1, 1, 1]\n", "units is missing"),
            ("units: hu\nunits: hu\n", "the key units is given twice"),
            ("units: !!python/object/apply:os.system ['true']\n", "tags"),
            ("- hu\n", "holds no lines"),
            ("units: [\n", "settings.yaml"),
        ],
    )
    def test_what_is_wrong_with_it_is_told(self, archive, tmp_path, capsys, text, wanted):
        (tmp_path / "settings.yaml").write_text(text)
        err = refuse(capsys, tmp_path, "--input", archive, "--no-patients", "--settings", tmp_path / "settings.yaml")
        assert wanted in err

    def test_flags_are_told_by_their_names(self, archive, tmp_path, capsys):
        words = ("--input", archive, "--no-patients", "--units", "hu")
        assert "--orientation" in refuse(capsys, tmp_path, *words, "--orientation", "SPX")
        assert "--settings" in refuse(capsys, tmp_path, *words, "--settings", tmp_path / "gone.yaml")
        assert "--by-name does nothing for a folder" in refuse(capsys, tmp_path, *words, "--by-name")
        assert "--path-column does nothing for a folder" in refuse(capsys, tmp_path, *words, "--path-column", "x")


class TestTable:
    def rows(self, archive):
        return [
            {"img_path": "anna/one.nii.gz", "who": "1", "split": "train", "findings": "No nodule.", "nodule": "0"},
            {"img_path": "bert/two.nrrd", "who": "2", "split": "val", "findings": "", "nodule": ""},
            {"img_path": "carl/dicom", "who": "3", "split": "inference", "findings": "Nodule, 5 mm.", "nodule": "1"},
        ]

    def test_its_columns_have_customary_names(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "list.csv", self.rows(archive))
        words = ("--table", table, "--patient-column", "who", "--label-columns", "nodule", "--keep-ids")
        told = ct(capsys, archive, tmp_path / "out", *words)
        assert "the column findings goes along as the text" in told and "the column split names the splits" in told
        (one,), (two,), (three,) = (
            samples(tmp_path / "out", split).values() for split in ("train", "val", "inference")
        )
        assert (one["text"], two["text"], three["text"]) == ("No nodule.", None, "Nodule, 5 mm.")
        assert one["labels"].tolist() == [0] and np.isnan(two["labels"]).all() and three["labels"].tolist() == [1]
        assert np.array_equal(three["ct"][0], chest(SHAPE, 3)) and three["meta"]["patient_id"] == "3"

    def test_paths_of_another_machine_and_names_alone(self, archive, tmp_path, capsys):
        rows = [{"img_path": "/mnt/cts/anna/one.nii.gz"}, {"img_path": "/mnt/cts/bert/two.nrrd"}]
        table = write_csv(tmp_path / "a.csv", rows)
        ct(capsys, archive, tmp_path / "1", "--table", table, "--root", "/mnt/cts", "--no-patients")
        rows = [{"img_path": "one.nii.gz"}, {"img_path": "two.nrrd"}]
        table = write_csv(tmp_path / "b.csv", rows)
        ct(capsys, archive, tmp_path / "2", "--table", table, "--by-name", "--no-patients")
        for output in ("1", "2"):
            assert len(samples(tmp_path / output)) == 2
        shutil.copy(archive / "anna" / "one.nii.gz", archive / "bert" / "one.nii.gz")
        words = ("--input", archive, "--table", table, "--by-name", "--no-patients", "--units", "hu")
        assert "2 files below" in refuse(capsys, tmp_path, *words)

    def test_rows_that_lead_nowhere(self, archive, tmp_path, capsys):
        write_series(archive / "carl" / "two" / "a", chest(SHAPE), uid="1.2.3")
        write_series(archive / "carl" / "two" / "b", chest(SHAPE), uid="1.2.4")
        (archive / "empty").mkdir()
        (archive / "note.txt").write_text("no volume")
        slice_ = sorted((archive / "carl" / "dicom").iterdir())[0].name
        reasons = {
            "anna/gone.nii.gz": "there is no gone.nii.gz",
            "carl/two": "its folder holds 2 series (of 6, 6 slices)",
            "empty": "its folder holds no slice of a CT",
            "note.txt": "ends like no volume",
            f"carl/dicom/{slice_}": "it is one DICOM slice: name the folder of its series",
            "anna/gone": "ends like none of",
        }
        table = write_csv(tmp_path / "t.csv", [{"img_path": path} for path in ["anna/one.nii.gz", *reasons]])
        ct(capsys, archive, tmp_path / "out", "--table", table, "--no-patients")
        found = rejected(tmp_path / "out")
        assert set(found) == set(reasons) and all(wanted in found[path] for path, wanted in reasons.items()), found
        for path in ("/etc/passwd", "../x.nii", "anna/../../x.nii", ""):
            table = write_csv(tmp_path / "t.csv", [{"img_path": path}])
            words = ("--input", archive, "--table", table, "--no-patients", "--units", "hu")
            assert "must lead to a record below" in refuse(capsys, tmp_path, *words)

    def test_each_volume_has_its_own_slope_and_intercept(self, tmp_path, capsys):
        hu = chest(SHAPE).astype(np.int32)
        for name, (slope, intercept) in {"a": (1, -1024), "b": (2, -2048)}.items():
            stored = ((hu // 2 * 2 - intercept) // slope).astype(np.int16)
            write_nifti(tmp_path / "in" / f"{name}.nii.gz", stored.transpose(2, 1, 0))
        rows = [
            {"img_path": "a.nii.gz", "RescaleSlope": "1", "RescaleIntercept": "-1024"},
            {"img_path": "b.nii.gz", "RescaleSlope": "2", "RescaleIntercept": "-2048"},
        ]
        words = (
            "--no-patients",
            "--keep-ids",
            "--slope-column",
            "RescaleSlope",
            "--intercept-column",
            "RescaleIntercept",
        )
        table = write_csv(tmp_path / "t.csv", rows)
        ct(capsys, tmp_path / "in", tmp_path / "out", "--table", table, *words, units="rescale")
        found = samples(tmp_path / "out")
        assert len(found) == 2
        for sample in found.values():
            assert np.array_equal(sample["ct"][0], hu // 2 * 2)
        rows[1]["RescaleSlope"] = ""
        table = write_csv(tmp_path / "t.csv", rows)
        ct(capsys, tmp_path / "in", tmp_path / "less", "--table", table, *words, units="rescale")
        assert rejected(tmp_path / "less") == {"b.nii.gz": "the table has no number for it in the column RescaleSlope"}

    def test_what_would_do_nothing_is_refused(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "t.csv", [{"img_path": "anna/one.nii.gz", "s": "1", "oblique": "steep"}])
        words = ("--input", archive, "--table", table, "--no-patients")
        for name in ("slope", "intercept"):
            err = refuse(capsys, tmp_path, *words, "--units", "rescale", f"--{name}", "7", f"--{name}-column", "s")
            assert f"--{name} and --{name}-column both say" in err
        assert "--array nosuch does nothing" in refuse(capsys, tmp_path, *words, "--units", "hu", "--array", "nosuch")
        err = refuse(capsys, tmp_path, *words, "--units", "hu", "--meta-columns", "oblique")
        assert "a name that every sample has already" in err
        words = ("--input", archive / "carl", "--no-patients", "--units", "hu")
        assert "do nothing for DICOM series" in refuse(capsys, tmp_path, *words, "--source-spacing", "9", "9", "9")

    def test_missing_columns_and_repeated_rows(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "t.csv", [{"image_path": "anna/one.nii.gz"}])
        words = ("--input", archive, "--table", table, "--no-patients", "--units", "hu")
        assert "has no column img_path: did you mean image_path?" in refuse(capsys, tmp_path, *words)
        write_csv(table, [{"img_path": "anna/one.nii.gz"}] * 2)
        assert "rows 1 and 2 are both of the record" in refuse(capsys, tmp_path, *words)

    def test_a_dry_run_tells_row_by_row(self, archive, tmp_path, capsys):
        rows = [{"img_path": "anna/one.nii.gz"}, {"img_path": "anna/gone.nii"}, {"img_path": "../x.nii"}]
        table = write_csv(tmp_path / "t.csv", rows)
        words = ("ct", "--input", archive, "--table", table, "--no-patients", "--units", "hu", "--dry-run")
        code, out, err = build(capsys, *words)
        told = out.splitlines()
        assert code == 1 and [line.split(":")[0] for line in told] == ["row 2", "row 3"] and "2 things are wrong" in err
        write_csv(table, rows[:1])
        code, out, _ = build(capsys, *words)
        assert code == 0 and out == "nothing is wrong with the 1 records; nothing was written\n"


class TestPatients:
    def test_dicom_names_its_patients_and_the_shards_do_not(self, archive, tmp_path, capsys):
        ct(capsys, archive / "carl", tmp_path / "out")
        (sample,) = samples(tmp_path / "out").values()
        assert sample["meta"]["patient_id"] and "MRN" not in json.dumps(sample["meta"])
        words = ("--input", archive / "carl", "--units", "hu", "--keep-ids")
        assert "--keep-ids would put the patients of DICOM files" in refuse(capsys, tmp_path, *words)

    def test_a_blank_cell_is_nobody_whatever_dicom_says(self, archive, tmp_path, capsys):
        write_series(archive / "emil" / "dicom", chest(SHAPE, 5), uid="1.2.5", PatientID="MRN-8")
        rows = [{"img_path": "carl/dicom", "who": "P1"}, {"img_path": "emil/dicom", "who": ""}]
        table = write_csv(tmp_path / "t.csv", rows)
        ct(capsys, archive, tmp_path / "out", "--table", table, "--patient-column", "who", "--keep-ids")
        (sample,) = samples(tmp_path / "out").values()
        assert sample["meta"]["patient_id"] == "P1"
        assert rejected(tmp_path / "out") == {"emil/dicom": "it has no patient"}

    def test_series_of_two_patients_are_rejected(self, tmp_path, capsys):
        def other(number, slice_):
            slice_.PatientID = "MRN-1" if number > 3 else "MRN-2"
            return slice_

        write_series(tmp_path / "in" / "mixed", chest(SHAPE), change=other)
        write_series(tmp_path / "in" / "good", chest(SHAPE, 1), uid="1.2.5", PatientID="MRN-2")
        why = {"mixed": "the headers of its slices name 2 patients: keep them apart"}
        ct(capsys, tmp_path / "in", tmp_path / "1")
        assert len(samples(tmp_path / "1")) == 1 and rejected(tmp_path / "1") == why
        table = write_csv(tmp_path / "t.csv", [{"img_path": name, "who": name} for name in ("mixed", "good")])
        ct(capsys, tmp_path / "in", tmp_path / "2", "--table", table, "--patient-column", "who")
        assert len(samples(tmp_path / "2")) == 1 and rejected(tmp_path / "2") == why

    def test_slices_right_in_the_input_are_nobodys(self, tmp_path, capsys):
        write_series(tmp_path / "in", chest(SHAPE), PatientID="MRN-2")
        words = ("--input", tmp_path / "in", "--units", "hu", "--patient-folders")
        assert "has a patient: say whose they are" in refuse(capsys, tmp_path, *words)
        for path in write_series(tmp_path / "other", chest(SHAPE, 2), uid="1.2.8", PatientID="MRN-2"):
            path.rename(tmp_path / "in" / f"Z{path.name}")
        assert "has a patient: say whose they are" in refuse(capsys, tmp_path, *words)
        ct(capsys, tmp_path / "in", tmp_path / "out", "--no-patients", "--keep-ids")
        assert sorted(samples(tmp_path / "out")) == ["series-1", "series-2"]

    def test_a_pattern_finds_them_in_names(self, tmp_path, capsys):
        for name in ("train_1_a_1", "train_1_b_2", "train_2_a_1", "other"):
            write_nifti(tmp_path / "in" / f"{name}.nii.gz", xyz(len(name) + ord(name[-3])))
        words = ("--patient-pattern", r"^(train_\d+)_", "--keep-ids")
        ct(capsys, tmp_path / "in", tmp_path / "out", *words)
        patients = {key: sample["meta"]["patient_id"] for key, sample in samples(tmp_path / "out").items()}
        assert patients == {
            "train_1_a_1-nii-gz": "train_1",
            "train_1_b_2-nii-gz": "train_1",
            "train_2_a_1-nii-gz": "train_2",
        }
        assert rejected(tmp_path / "out") == {"other.nii.gz": "it has no patient"}
        words = ("--input", tmp_path / "in", "--units", "hu", "--patient-pattern")
        assert "is no regular expression" in refuse(capsys, tmp_path, *words, "(")
        assert "needs parentheses" in refuse(capsys, tmp_path, *words, "train")
        err = refuse(capsys, tmp_path, *words, "(t)", "--patient-folders")
        assert "both say whose the volumes are" in err
        assert "has a patient: say whose they are with" in refuse(capsys, tmp_path, *words[:-1])

    def test_one_in_two_splits_is_refused(self, archive, tmp_path, capsys):
        rows = [
            {"img_path": "anna/one.nii.gz", "who": "1", "split": "train"},
            {"img_path": "bert/two.nrrd", "who": "1", "split": "test"},
        ]
        table = write_csv(tmp_path / "t.csv", rows)
        words = ("--input", archive, "--table", table, "--units", "hu", "--patient-column", "who")
        assert "are of one patient: keep each patient in one split" in refuse(capsys, tmp_path, *words)

    def test_several_series_in_a_folder_are_volumes_of_their_own(self, tmp_path, capsys):
        folder = tmp_path / "in" / "x"
        write_series(folder, chest(SHAPE, 1), uid="1.2.9")
        for path in write_series(tmp_path / "other", chest(SHAPE, 2), uid="1.2.8"):
            path.rename(folder / f"Z{path.name}")
        (folder / "notes.txt").write_text("not DICOM")
        scout = write_series(tmp_path / "scout", chest(SHAPE, 2), uid="1.2.7", ImageType=["DERIVED", "LOCALIZER"])[0]
        scout.rename(folder / "scout")
        ct(capsys, tmp_path / "in", tmp_path / "out", "--no-patients", "--keep-ids")
        found = samples(tmp_path / "out")
        assert np.array_equal(found["x-series-1"]["ct"][0], chest(SHAPE, 1))
        assert np.array_equal(found["x-series-2"]["ct"][0], chest(SHAPE, 2)) and len(found) == 2
        assert rejected(tmp_path / "out") == {"x/scout": "it is a localizer, no volume"}


class TestSeries:
    @pytest.mark.parametrize("listed", [False, True])
    @pytest.mark.parametrize("spoilt", ["cut", "gone"])
    def test_slices_that_cannot_be_read_reject_theirs(self, tmp_path, capsys, listed, spoilt):
        write_series(tmp_path / "in" / "good", chest(SHAPE, 1), uid="1.2.5")
        paths = write_series(tmp_path / "in" / "short", chest(SHAPE))
        for path in sorted(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])[4:]:
            start = path.read_bytes()[:200]
            path.unlink()
            if spoilt == "cut":
                path.write_bytes(start)
            else:
                path.symlink_to(tmp_path / "nowhere" / path.name)
        table = write_csv(tmp_path / "t.csv", [{"img_path": "good"}, {"img_path": "short"}])
        ct(capsys, tmp_path / "in", tmp_path / "out", "--no-patients", *(("--table", table) if listed else ()))
        assert len(samples(tmp_path / "out")) == 1
        assert "2 files beside its slices may be of it and can't be read" in rejected(tmp_path / "out")["short"]

    def test_one_over_two_folders_is_rejected(self, tmp_path, capsys):
        paths = write_series(tmp_path / "in" / "DIR0", chest(SHAPE))
        write_series(tmp_path / "in" / "good", chest(SHAPE, 1), uid="1.2.5")
        (tmp_path / "in" / "DIR1").mkdir()
        for path in sorted(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])[3:]:
            path.rename(tmp_path / "in" / "DIR1" / path.name)
        table = write_csv(tmp_path / "t.csv", [{"img_path": name} for name in ("DIR0", "DIR1", "good")])
        for output, more in (("1", ()), ("2", ("--table", table))):
            ct(capsys, tmp_path / "in", tmp_path / output, "--no-patients", *more)
            why = "slices of its series lie in DIR0 and in DIR1: put them into one folder"
            assert rejected(tmp_path / output) == {"DIR0": why, "DIR1": why}
            assert len(samples(tmp_path / output)) == 1

    def test_files_that_are_not_read_are_counted(self, tmp_path, capsys):
        folder = tmp_path / "in"
        write_nifti(folder / "a.nii.gz", xyz())
        shutil.copy(folder / "a.nii.gz", folder / "c.nii.gz.gpg")
        (folder / "b.mha").write_text("ObjectType = Image")
        for path in write_series(folder / "s", chest(SHAPE)):
            path.write_bytes(path.read_bytes()[132:])
        told = ct(capsys, folder, tmp_path / "out", "--no-patients")
        assert "taken for no volume and were not read: 1 .gpg, 1 .mha, 6 without a suffix" in told


class TestTexts:
    @pytest.mark.parametrize("lost", ["B/ct.nii.gz", "B/ct", "B/series-1"])
    def test_a_path_is_of_no_other_folders_volume(self, tmp_path, capsys, lost):
        write_nifti(tmp_path / "in" / "A" / "ct.nii.gz", xyz())
        write_nifti(tmp_path / "in" / "C" / "ct.nii", xyz(1))
        for number in (1, 2):
            for path in write_series(tmp_path / str(number), chest(SHAPE, number), uid=f"1.2.{number}"):
                (tmp_path / "in" / "D").mkdir(exist_ok=True)
                path.rename(tmp_path / "in" / "D" / f"{number}{path.name}")
        (tmp_path / "texts.json").write_text(json.dumps({"A/ct.nii.gz": "", lost: "Of B.", "C/ct": "Of C."}))
        words = ("--no-patients", "--keep-ids", "--texts", tmp_path / "texts.json")
        told = ct(capsys, tmp_path / "in", tmp_path / "out", *words)
        texts = {key: sample["text"] for key, sample in samples(tmp_path / "out").items()}
        assert texts == {"A-ct-nii-gz": None, "C-ct-nii": "Of C.", "D-series-1": None, "D-series-2": None}
        assert f"1 texts are of no volume, the first that of {lost}" in told

    def test_texts_of_a_json_go_by_name(self, archive, tmp_path, capsys):
        texts = {"one": "First.", "two.nrrd": "Second.", "carl/dicom": "Third.", "nobody": "Lost.", "four.npz": " "}
        for form in ("object", "list"):
            content = (
                texts if form == "object" else [{"img_path": name, "findings": text} for name, text in texts.items()]
            )
            (tmp_path / "texts.json").write_text(json.dumps(content))
            words = ("--no-patients", "--keep-ids", *STATED, "--texts", tmp_path / "texts.json")
            told = ct(capsys, archive, tmp_path / form, *words)
            assert "1 texts are of no volume, the first that of nobody" in told and "2 volumes have no text" in told
            found = {key: sample["text"] for key, sample in samples(tmp_path / form).items()}
            assert found == {
                "anna-one-nii-gz": "First.",
                "bert-two-nrrd": "Second.",
                "carl-dicom": "Third.",
                "bert-again-nii": None,
                "dora-four-npz": None,
            }
        content = [{"VolumeName": "one.nii.gz", "Findings_EN": "Named otherwise."}]
        (tmp_path / "texts.json").write_text(json.dumps(content))
        ct(capsys, archive, tmp_path / "named", *words, "--path-column", "VolumeName", "--text-column", "Findings_EN")
        assert samples(tmp_path / "named")["anna-one-nii-gz"]["text"] == "Named otherwise."

    @pytest.mark.parametrize(
        ("content", "wanted"),
        [
            ('{"one": "a", "one": "b"}', "the key one comes twice"),
            ('[{"img_path": "one", "findings": "a"}, {"img_path": "one", "findings": "b"}]', "two texts of one"),
            ('{"one": 5}', "the text of one is int"),
            ('{"nobody": "a"}', "none of 1 texts is of one of"),
            ('{"same": "a"}', "could be that of"),
            ('{"one": "a", "anna/one.nii.gz": "b"}', "are both of"),
            ('{"one": "", "anna/one.nii.gz": "b"}', "are both of"),
            ('[{"name": "one"}]', "entry 1 has no img_path and findings"),
            ('"words"', "neither an object"),
            ("{", "is no JSON"),
            ("[" * 100_000, "texts.json"),
        ],
    )
    def test_what_is_wrong_with_it_is_told(self, archive, tmp_path, capsys, content, wanted):
        for folder in ("anna", "bert"):
            write_nifti(archive / folder / "same.nii", xyz())
        (tmp_path / "texts.json").write_text(content)
        words = ("--input", archive, "--no-patients", "--units", "hu", "--texts", tmp_path / "texts.json")
        assert wanted in refuse(capsys, tmp_path, *words)


def test_bad_volumes_are_rejected_and_the_others_taken(archive, tmp_path, capsys):
    hu = xyz().astype(np.float32)
    spoilt = hu.copy()
    spoilt[3, 4, 5] = np.nan
    stored = (hu + 1024).astype(np.int16)
    (archive / "bad").mkdir()
    (archive / "bad" / "empty.nii.gz").write_bytes(b"")
    (archive / "bad" / "text.nii").write_text("no volume at all" * 50)
    (archive / "bad" / "slice.dcm").write_text("no DICOM")
    write_nifti(archive / "bad" / "nan.nii", spoilt)
    write_nifti(archive / "bad" / "one.slice.nii", xyz()[:, :, :1])
    write_nifti(archive / "bad" / "stored.nii", stored)
    write_nifti(archive / "bad" / "flat.nii", np.full((4, 4, 4), -1000, np.int16))
    write_npz(archive / "bad" / "none.npz", ct=np.zeros((1, 0, 8, 8), np.int16))
    write_npz(archive / "bad" / "words.npz", ct=np.array(["a"]))
    (archive / "bad" / "folder.nii").mkdir()
    reasons = {
        "empty.nii.gz": "it is empty",
        "text.nii": "does not begin with a NIfTI header",
        "slice.dcm": "it is no DICOM file",
        "nan.nii": "it holds 1 values that are NaN or infinite",
        "one.slice.nii": "a single slice is no volume",
        "stored.nii": "--units rescale with --slope 1 --intercept -1024",
        "flat.nii": "it holds the value -1000 throughout",
        "none.npz": "has the shape [1, 0, 8, 8]",
        "words.npz": "expected are numbers",
        "folder.nii": "",
    }
    told = ct(capsys, archive, tmp_path / "out", "--no-patients", *STATED)
    found = {Path(name).name: why for name, why in rejected(tmp_path / "out").items()}
    assert found.keys() == reasons.keys() and "10 records were left out" in told
    for name, wanted in reasons.items():
        assert wanted in found[name], (name, found[name])
    assert len(samples(tmp_path / "out")) == 5


def test_keys_that_would_be_one_are_refused(tmp_path, capsys):
    write_nifti(tmp_path / "in" / "a.b.nii", xyz())
    write_nifti(tmp_path / "in" / "a-b.nii", xyz(1))
    words = ("--input", tmp_path / "in", "--no-patients", "--units", "hu")
    assert "would both have the key a-b-nii" in refuse(capsys, tmp_path, *words, "--keep-ids")
    ct(capsys, tmp_path / "in", tmp_path / "out", "--no-patients")
    assert len(samples(tmp_path / "out")) == 2


def test_places_that_hold_nothing(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("nothing")
    words = ("--units", "hu", "--no-patients", "--input")
    assert "holds no volume" in refuse(capsys, tmp_path, *words, tmp_path / "in")
    assert "is no folder" in refuse(capsys, tmp_path, *words, tmp_path / "gone")
    assert "is no folder" in refuse(capsys, tmp_path, *words, tmp_path / "in" / "a.txt")


def test_copies_are_counted(archive, tmp_path, capsys):
    shutil.copy(archive / "anna" / "one.nii.gz", archive / "bert" / "copy.nii.gz")
    told = ct(capsys, archive, tmp_path / "out", "--no-patients", *STATED)
    assert "duplicates: 1 samples hold the very content of another" in told


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Twenty volumes of ten patients in four formats."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(20):
        patient, volume = folder / f"p{number // 2}", chest((8, 40, 40), number)
        name = f"v{number % 2}"
        if number % 4 == 0:
            write_nifti(patient / f"{name}.nii.gz", volume.transpose(2, 1, 0))
        elif number % 4 == 1:
            write_nrrd(patient / f"{name}.nrrd", volume.transpose(2, 1, 0), np.eye(3))
        elif number % 4 == 2:
            write_series(patient / name, volume, uid=f"1.2.{number}")
        else:
            write_npz(patient / f"{name}.npz", ct=volume[None])
    return [
        *("ct", "--input", str(folder), "--units", "hu", "--patient-folders", "--keep-ids"),
        *("--source-orientation", "SPL", "--source-spacing", "1", "1", "1", "--spacing", "1.5", "1.3", "1.1"),
        *("--size", "6", "32", "32", "--fractions", "train=0.7", "val=0.3", "--samples-per-shard", "2"),
    ]


def start(words, output, *more):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "tools.build_shards", *words, "--output", str(output), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_builds_are_the_same_bytes_after_kills_and_with_any_number_of_processes(words, tmp_path):
    once = tmp_path / "once"
    done = start(words, once, "--workers", "1")
    assert done.wait(60) == 0, done.communicate()
    wanted = contents(once)
    assert len([name for name in wanted if name.endswith(".tar")]) >= 10
    assert start(words, tmp_path / "twice", "--workers", "3").wait(60) == 0
    assert contents(tmp_path / "twice") == wanted
    output, partial = tmp_path / "killed", tmp_path / ".killed.partial"
    for tars, workers in ((1, "1"), (4, "2"), (7, "1")):
        process = start(words, output, "--workers", workers)
        wait_until(lambda tars=tars: len(list(partial.glob("*.tar"))) >= tars, 60, "tars")
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda children=children: not alive(children), 10, "reading processes end with their parent")
        assert not output.exists()
    kept = {tar.name: tar.stat().st_ino for tar in partial.glob("*.tar")}
    assert start(words, output, "--workers", "1").wait(60) == 0
    assert contents(output) == wanted
    again = {tar.name: tar.stat().st_ino for tar in output.glob("*.tar")}
    assert sum(again[name] == inode for name, inode in kept.items()) >= 6, "whole tars are not written again"
