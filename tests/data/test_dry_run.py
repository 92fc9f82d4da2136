"""A table is tried without writing, its paths are taken from elsewhere, and signals that come twice are counted."""

import numpy as np
import pytest

from src.data.load_index import load_index
from tests.data import formats
from tests.data.archive import build, signal, write_arrays, write_csv, write_wfdb


def everything(folder):
    """{path: bytes} of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestDryRun:
    def test_a_sound_table_passes_and_nothing_is_written(self, tmp_path, capsys):
        words = write_arrays(tmp_path / "a", records=20)
        before = everything(tmp_path)
        for more in ((), ("--output", tmp_path / "out"), ("--output", tmp_path / "out", "--keep-ids")):
            code, out, _ = build(capsys, *words, "--dry-run", *more)
            assert code == 0 and out == "nothing is wrong with the 20 records; nothing was written\n"
        assert everything(tmp_path) == before and not list(tmp_path.glob("*out*"))

    def test_what_is_wrong_is_told_row_by_row(self, archive, tmp_path, capsys):
        write_wfdb(archive / "carl", "three", signal(3), rate=250)
        write_wfdb(archive / "carl", "four", np.full((400, 12), np.nan))
        rows = [
            {"path": "anna/one", "who": "a", "split": "train", "af": "1"},
            {"path": "anna/none", "who": "a", "split": "train", "af": "1"},
            {"path": "../etc/passwd", "who": "b", "split": "train", "af": "1"},
            {"path": "bert/two", "who": "a", "split": "test", "af": "0"},
            {"path": "carl/three", "who": "c", "split": "train", "af": "0"},
            {"path": "carl/four", "who": "c", "split": "train", "af": ""},
            {"path": "anna/one.hea", "who": "a", "split": "train", "af": "1"},
            {"path": "carl/five", "who": "c", "split": "train", "af": "perhaps"},
            {"path": "carl/six", "who": "", "split": "train", "af": "1"},
        ]
        table = write_csv(tmp_path / "list.csv", rows)
        before = everything(tmp_path)
        words = ("--patient-column", "who", "--split-column", "split", "--label-columns", "af", "--dry-run")
        code, out, err = build(capsys, "ecg", "--input", archive, "--table", table, *words)
        told = out.splitlines()
        assert code == 1 and "error: 8 things are wrong with" in err and everything(tmp_path) == before
        expected = {
            2: "anna/none: there is no none.hea",
            3: "must lead to a record below",
            4: "are of one patient",
            5: "it has 250 Hz and the folder 100 Hz",
            6: "no lead carries a signal",
            7: "rows 1 and 7 are both of the record anna/one",
            8: "the label af is 'perhaps'",
            9: "carl/six: it has no patient",
        }
        assert [line.split(":")[0] for line in told] == [f"row {row}" for row in expected]
        assert all(part in line for part, line in zip(expected.values(), told, strict=True))

    def test_a_table_that_can_not_be_read_is_one_sentence(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "list.csv", [{"path": "anna/one"}])
        words = ("--input", archive, "--table", table, "--patient-column", "who", "--dry-run")
        code, out, err = build(capsys, "ecg", *words)
        assert (code, out) == (1, "") and "has no column who" in err

    def test_a_table_in_which_every_row_is_wrong(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "list.csv", [{"path": "../a"}, {"path": "/b"}])
        words = ("--input", archive, "--table", table, "--no-patients", "--dry-run")
        code, out, err = build(capsys, "ecg", *words)
        assert code == 1 and [line[:5] for line in out.splitlines()] == ["row 1", "row 2"] and "error: " in err

    def test_folders_and_archives_are_tried_too(self, tmp_path, capsys):
        root = formats.write_code15(tmp_path / "in", [formats.ecg(n) / 1000 for n in range(4)], files=2)
        (root / "exams_part1.hdf5").unlink()
        code, out, _ = build(capsys, "ecg", "--input", root, "--dry-run")
        assert code == 1 and out.splitlines() == [
            f"exams_part1.hdf5 exam {exam}: there is no exams_part1.hdf5" for exam in (1001, 1003)
        ]

    @pytest.mark.parametrize("flags", [("--dry-run",), ()])
    def test_an_archive_of_which_nothing_can_be_read(self, tmp_path, capsys, flags):
        root = formats.write_code15(tmp_path / "in", [formats.ecg()] * 2)
        (root / "exams_part0.hdf5").write_bytes(b"nothing")
        code, out, err = build(capsys, "ecg", "--input", root, "--output", tmp_path / "out", *flags)
        assert code == 1 and not (tmp_path / "out").exists()
        assert len(out.splitlines()) == (2 if flags else 0)
        assert ("2 things are wrong" if flags else "none of 2 records can be used; the first: exams_part0") in err

    def test_it_does_nothing_for_beats(self, tmp_path, capsys):
        words = ("--input", tmp_path / "beats.npz", "--dry-run")
        assert "--dry-run does nothing for an .npz of beats" in build(capsys, "ecg", *words)[2]


class TestRoot:
    @pytest.mark.parametrize(
        ("prefix", "path"),
        [
            ("/mnt/ecgs", "/mnt/ecgs/anna/one.hea"),
            ("/mnt/ecgs/", "/mnt/ecgs/anna/one"),
            ("D:\\ecg", "D:\\ecg\\anna\\one"),
        ],
    )
    def test_absolute_paths_are_taken_from_the_input(self, archive, tmp_path, capsys, prefix, path):
        table = write_csv(tmp_path / "list.csv", [{"path": path}, {"path": "bert/two"}])
        words = ("--input", archive, "--table", table, "--no-patients", "--output", tmp_path / "out")
        if path.startswith("/"):
            assert "must lead to a record below" in build(capsys, "ecg", *words)[2]
        code, out, err = build(capsys, "ecg", *words, "--root", prefix, "--keep-ids")
        assert code == 0 and "train: 2 samples" in out, err

    @pytest.mark.parametrize("path", ["/mnt/ecgs2/anna/one", "/mnt/ecgs/../anna/one", "/mnt/ecgs", "/anna/one"])
    def test_what_is_elsewhere_is_refused(self, archive, tmp_path, capsys, path):
        table = write_csv(tmp_path / "list.csv", [{"path": "/mnt/ecgs/bert/two"}, {"path": path}])
        words = ("--input", archive, "--table", table, "--no-patients", "--output", tmp_path / "out")
        code, _, err = build(capsys, "ecg", *words, "--root", "/mnt/ecgs")
        assert code == 1 and "must lead to a record below" in err

    def test_for_an_array_of_many_it_does_nothing(self, tmp_path, capsys):
        words = write_arrays(tmp_path / "a", records=4)
        assert "--root /mnt does nothing for" in build(capsys, *words, "--root", "/mnt", "--dry-run")[2]

    def test_a_prefix_that_no_path_has_is_refused(self, archive, tmp_path, capsys):
        table = write_csv(tmp_path / "list.csv", [{"path": "anna/one"}])
        words = ("--input", archive, "--table", table, "--no-patients", "--output", tmp_path / "out")
        assert "--root /mnt does nothing for" in build(capsys, "ecg", *words, "--root", "/mnt")[2]


class TestDuplicates:
    def test_they_are_counted_in_the_summary_and_in_the_index(self, tmp_path, capsys):
        for patient, number in (("a", 1), ("b", 1), ("c", 2), ("d", 1), ("e", 3)):
            write_wfdb(tmp_path / "in" / patient, "one", signal(number))
        rows = [{"path": f"{name}/one", "who": name, "split": "val" if name in "be" else "train"} for name in "abcde"]
        table = write_csv(tmp_path / "list.csv", rows)
        words = ("--table", table, "--patient-column", "who", "--split-column", "split", "--samples-per-shard", "1")
        code, out, err = build(capsys, "ecg", "--input", tmp_path / "in", *words, "--output", tmp_path / "out")
        assert code == 0, err
        assert (
            "duplicates: 2 samples hold the very content of another; 1 such contents are in more than one split" in out
        )
        source = load_index(tmp_path / "out")[0].source
        assert (source["duplicates"], source["duplicates_across_splits"]) == (2, 1)

    def test_without_any_nothing_is_said(self, archive, tmp_path, capsys):
        words = ("ecg", "--input", archive, "--patient-folders", "--output", tmp_path / "out")
        code, out, _ = build(capsys, *words)
        assert code == 0 and "duplicates" not in out
        assert load_index(tmp_path / "out")[0].source["duplicates"] == 0
