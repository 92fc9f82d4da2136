"""A CSV with arrays, through the command line: every column ends where it belongs, and nobody can be recognised."""

import csv
import io
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.data.builders.sources import Columns, Listing, Source, list_table, read_table, split_by_patient
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from tools.build_shards import main

LEADS = ("I", "II", "V1")
FLAGS = ("--leads", *LEADS, "--source-leads", *LEADS, "--source-rate", "100", "--workers", "1")
REPORT = 'Sinusrhythmus, Lagetyp "überdreht"\nQRS schmal; ST-Hebung > 0,2 mV in V2–V4\n→ Ischämie, größer als früher'


def ecg(number=0, samples=50):
    """Whole microvolts, [leads, samples]."""
    return np.random.default_rng(number).integers(-2000, 2000, (len(LEADS), samples)).astype(np.int16)


def table(folder, rows, **form):
    """table.csv of dicts; whatever the csv module does by default unless said otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **form)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def archive(folder, count=6, **columns):
    """Records e0.npy, e1.npy, ... of patients p0, p0, p1, p1, ... in mV, and their table with further columns."""
    rows = []
    for number in range(count):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"e{number}.npy", ecg(number) / 1000)
        more = {name: values[number] for name, values in columns.items()}
        rows.append({"path": f"e{number}.npy", "patient": f"p{number // 2}", **more})
    return table(folder, rows)


def words(folder, *flags, output=None, patients=("--patient-column", "patient")):
    here = ("--input", folder, "--table", folder / "table.csv", "--output", output or f"{folder}-shards")
    return [str(word) for word in ("ecg", *here, *FLAGS, *patients, *flags)]


def build(folder, *flags, **where):
    command = words(folder, *flags, **where)
    assert main(command) == 0
    return Path(command[command.index("--output") + 1])


def refusal(capsys, folder, *flags, **where):
    """The sentence with which a build ends."""
    assert main(words(folder, *flags, **where)) == 1
    return capsys.readouterr().err.splitlines()[-1]


def samples(shards):
    """{the record's name as its owner knows it: sample}."""
    index, _ = load_index(shards)
    name_of = {row["key"]: row["record"] for row in private(shards, "pseudonyms.csv")}
    found = {}
    for split in index.splits:
        reader = ECGShards(shards, split, index.leads)
        found.update((name_of[sample["key"]], sample) for sample in reader.read(np.arange(len(reader))))
    return found


def splits(shards):
    """{the record's name: its split}."""
    index, _ = load_index(shards)
    name_of = {row["key"]: row["record"] for row in private(shards, "pseudonyms.csv")}
    readers = {split: ECGShards(shards, split, index.leads) for split in index.splits}
    return {name_of[key]: split for split, own in readers.items() for key in own.keys(np.arange(len(own)))}


def private(shards, name):
    with Path(f"{shards}.private", name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rejected(shards):
    return {row["record"]: row["reason"] for row in private(shards, "rejected.csv")}


class TestArrays:
    """What an .npy may hold."""

    @pytest.mark.parametrize("turned", [False, True])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_leads_may_be_rows_or_columns(self, tmp_path, turned, order):
        folder = archive(tmp_path / "in", 1)
        array = np.asarray(ecg(5) / 1000, order=order)
        np.save(folder / "e0.npy", array.T if turned else array)
        assert np.array_equal(samples(build(folder))["e0.npy"]["ecg"], (ecg(5) / 1000).astype(np.float32))

    @pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<i8", "<f4", "<f8", ">f8"])
    def test_microvolts_of_any_type_are_the_same_millivolts(self, tmp_path, dtype):
        folder = archive(tmp_path / "in", 1)
        np.save(folder / "e0.npy", ecg(5).astype(dtype))
        found = samples(build(folder, "--per-millivolt", "1000"))["e0.npy"]
        assert np.array_equal(found["ecg"], (ecg(5) / 1000).astype(np.float32))

    def test_int16_microvolts_are_stored_as_they_are(self, tmp_path):
        folder = archive(tmp_path / "in", 1)
        np.save(folder / "e0.npy", ecg(5))
        shards = build(folder, "--per-millivolt", "1000")
        with tarfile.open(shards / "train-000000.tar") as tar:
            (name,) = [name for name in tar.getnames() if name.endswith(".npy")]
            array = np.load(io.BytesIO(tar.extractfile(name).read()))
        assert array.dtype == np.int16
        assert np.array_equal(array, ecg(5))
        assert samples(shards)["e0.npy"]["meta"]["scale"] == [0.001] * 3

    def test_one_file_may_hold_all_records_with_a_row_of_the_table_each(self, tmp_path):
        folder = table(tmp_path / "in", [{"patient": f"p{n}", "age": 40 + n} for n in range(5)])
        np.save(folder / "all.npy", np.stack([ecg(n) for n in range(5)]))
        command = words(folder, "--per-millivolt", "1000", "--meta-columns", "age", output=tmp_path / "out")
        command[command.index("--input") + 1] = str(folder / "all.npy")
        assert main(command) == 0
        found = samples(tmp_path / "out")
        assert len(found) == 5
        for sample in found.values():
            number = int(sample["meta"]["age"]) - 40
            assert np.array_equal(sample["ecg"], (ecg(number) / 1000).astype(np.float32))

    @pytest.mark.parametrize("records", [4, 6])
    def test_a_file_with_more_or_fewer_records_than_the_table_has_rows_is_refused(self, tmp_path, capsys, records):
        folder = table(tmp_path / "in", [{"patient": f"p{n}"} for n in range(5)])
        np.save(folder / "all.npy", np.stack([ecg(n) for n in range(records)]))
        command = words(folder, "--per-millivolt", "1000", output=tmp_path / "out")
        command[command.index("--input") + 1] = str(folder / "all.npy")
        assert main(command) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "5" in error
        assert str(records) in error
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.zeros((4, 50)), r"its array is [4, 50], with 3 leads (I II V1) expected is [3, samples]"),
            (np.zeros(50), "its array is [50]"),
            (np.zeros((1, 3, 50)), "its array is [1, 3, 50]"),
            (np.zeros((3, 50), bool), "its array is of type bool"),
            (np.zeros((3, 50), complex), "its array is of type complex128"),
            (np.full((3, 50), "a"), "its array is of type <U1"),
        ],
    )
    def test_another_array_is_rejected(self, tmp_path, array, reason):
        folder = archive(tmp_path / "in")
        np.save(folder / "e1.npy", array)
        shards = build(folder)
        assert reason in rejected(shards)["e1.npy"]
        assert len(samples(shards)) == 5

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no array",
            b"\x93NUMPY",
            b"\x93NUMPY\x01\x00\x76\x00{'descr'<i2', 'shape': (3, , }" + b" " * 88 + b"\n",
            b"PK\x03\x04 but no archive",
        ],
        ids=["empty", "text", "magic", "header", "zip"],
    )
    def test_a_damaged_file_is_rejected(self, tmp_path, content):
        folder = archive(tmp_path / "in")
        (folder / "e1.npy").write_bytes(content)
        assert list(rejected(build(folder))) == ["e1.npy"]

    def test_a_truncated_file_is_rejected(self, tmp_path):
        folder = archive(tmp_path / "in")
        (folder / "e1.npy").write_bytes((folder / "e1.npy").read_bytes()[:-1])
        assert list(rejected(build(folder))) == ["e1.npy"]

    def test_a_missing_file_is_rejected(self, tmp_path):
        folder = archive(tmp_path / "in")
        (folder / "e1.npy").unlink()
        assert rejected(build(folder)) == {"e1.npy": "there is no e1.npy"}

    def test_a_folder_in_place_of_a_file_is_rejected(self, tmp_path):
        folder = archive(tmp_path / "in")
        (folder / "e1.npy").unlink()
        (folder / "e1.npy").mkdir()
        assert list(rejected(build(folder))) == ["e1.npy"]

    @pytest.mark.parametrize("path", ["e0.npy/x.npy", "x" * 300 + ".npy"], ids=["below a file", "too long"])
    def test_a_path_that_can_not_be_is_rejected_and_the_rest_is_built(self, tmp_path, path):
        folder = archive(tmp_path / "in")
        (folder / "table.csv").write_text((folder / "table.csv").read_text().replace("e1.npy", path))
        shards = build(folder)
        assert list(rejected(shards)) == [path]
        assert len(samples(shards)) == 5

    def test_an_archive_of_arrays_is_rejected(self, tmp_path):
        folder = archive(tmp_path / "in")
        np.savez(folder / "more.npz", ecg(0))
        (folder / "more.npz").rename(folder / "e1.npy")
        assert "e1.npy is an archive" in rejected(build(folder))["e1.npy"]

    @pytest.mark.parametrize("bare", [False, True])
    def test_a_pickle_is_refused_and_not_opened(self, tmp_path, bare):
        class Trap:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "sprung"),))

        folder = archive(tmp_path / "in")
        if bare:
            (folder / "e1.npy").write_bytes(pickle.dumps(Trap()))
        else:
            np.save(folder / "e1.npy", np.array([Trap()] * 3, object), allow_pickle=True)
        shards = build(folder)
        assert not (tmp_path / "sprung").exists()
        assert "can't be read as a .npy of numbers" in rejected(shards)["e1.npy"]


class TestLabels:
    """Numbers, classes and what nobody knows."""

    def test_a_label_that_is_not_given_is_nan(self, tmp_path):
        folder = archive(tmp_path / "in", af=["1", "0", "", "nan", "NA", "true"], age=["0.5", "2", "", "-3", "1", "0"])
        found = samples(build(folder, "--label-columns", "af", "age"))
        labels = np.stack([found[f"e{n}.npy"]["labels"] for n in range(6)])
        nan = np.nan
        assert np.array_equal(labels.T, [[1, 0, nan, nan, nan, 1], [0.5, 2, nan, -3, 1, 0]], equal_nan=True)
        index, _ = load_index(Path(f"{folder}-shards"))
        assert (index.labels.names, index.labels.kind) == (("af", "age"), "multilabel")

    def test_a_class_is_one_of_several_and_unknown_where_it_is_not_given(self, tmp_path):
        folder = archive(tmp_path / "in", rhythm=["SR", "AF", " SR ", "VT", "", "AF"])
        shards = build(folder, "--class-column", "rhythm")
        index, _ = load_index(shards)
        assert (index.labels.names, index.labels.kind) == (("AF", "SR", "VT"), "multiclass")
        labels = np.stack([samples(shards)[f"e{n}.npy"]["labels"] for n in range(6)])
        expected = np.eye(3)[[1, 0, 1, 2, 0, 0]]
        expected[4] = np.nan
        assert np.array_equal(labels, expected, equal_nan=True)

    def test_a_class_that_pandas_wrote_as_missing_is_unknown(self, tmp_path):
        """As the label columns have it: nan is nothing, and no class."""
        folder = archive(tmp_path / "in", rhythm=["SR", "AF", "nan", "NA", "SR", "AF"])
        index, _ = load_index(build(folder, "--class-column", "rhythm"))
        assert index.labels.names == ("AF", "SR")

    def test_a_label_that_is_a_word_is_refused_with_its_row(self, tmp_path, capsys):
        folder = archive(tmp_path / "in", af=["1", "0", "maybe", "1", "0", "0"])
        error = refusal(capsys, folder, "--label-columns", "af")
        assert "row 3: the label af is 'maybe', expected is a number" in error
        assert "--class-column takes words" in error

    @pytest.mark.parametrize("value", ["1_0", "inf", "1e999"])
    def test_a_label_that_is_no_plain_number_is_refused(self, tmp_path, capsys, value):
        folder = archive(tmp_path / "in", af=["1", "0", value, "1", "0", "0"])
        assert "row 3" in refusal(capsys, folder, "--label-columns", "af")


class TestColumns:
    """Reports, and what else is told of a record."""

    def test_a_report_comes_out_letter_by_letter(self, tmp_path):
        folder = archive(tmp_path / "in", report=[REPORT, "", "   ", "心电图正常", "a\tb", "x" * 100_000])
        found = samples(build(folder, "--text-column", "report"))
        texts = [found[f"e{n}.npy"]["text"] for n in range(6)]
        assert texts == [REPORT, None, None, "心电图正常", "a\tb", "x" * 100_000]

    def test_without_a_column_there_is_no_report(self, tmp_path):
        assert {sample["text"] for sample in samples(build(archive(tmp_path / "in"))).values()} == {None}

    def test_meta_columns_are_numbers_words_or_absent(self, tmp_path):
        folder = archive(tmp_path / "in", age=[61, "", "nan", 0, 1.5, 90], device=["a b", "Gerät", "", "x", "y", "z"])
        found = samples(build(folder, "--meta-columns", "age", "device"))
        assert [found[f"e{n}.npy"]["meta"].get("age") for n in range(6)] == [61.0, None, None, 0.0, 1.5, 90.0]
        devices = [found[f"e{n}.npy"]["meta"].get("device") for n in range(6)]
        assert devices == ["a b", "Gerät", None, "x", "y", "z"]

    @pytest.mark.parametrize("name", ["id", "patient_id", "labels", "scale", "lead_keep", "leads", "sampling_rate"])
    def test_a_meta_column_may_not_take_a_name_that_samples_have(self, tmp_path, capsys, name):
        folder = archive(tmp_path / "in", **{name: range(6)})
        assert f"--meta-columns {name} is a name that every sample has" in refusal(
            capsys, folder, "--meta-columns", name
        )

    def test_a_missing_column_is_told_with_the_nearest(self, tmp_path, capsys):
        folder = archive(tmp_path / "in", Report=["x"] * 6)
        assert "no column report: did you mean Report?" in refusal(capsys, folder, "--text-column", "report")
        assert "no column zzz: it has path, patient, Report" in refusal(capsys, folder, "--text-column", "zzz")

    def test_two_columns_of_one_name_are_refused(self, tmp_path):
        (tmp_path / "table.csv").write_text("path,age,age\na,1,2\n")
        with pytest.raises(ValueError, match="has two column age"):
            read_table(tmp_path / "table.csv", ("path", "age"))


class TestForms:
    """CSV as spreadsheets and laboratories write it."""

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_any_of_three_delimiters_a_mark_at_the_start_and_either_line_end(self, tmp_path, delimiter, encoding, end):
        rows = [{"path": "e0", "report": REPORT, "age": "1"}, {"path": "e1", "report": 'a;b,c\td"e"', "age": ""}]
        table(tmp_path, rows, delimiter=delimiter, encoding=encoding, lineterminator=end)
        assert read_table(tmp_path / "table.csv", ("path", "report", "age")) == rows

    def test_a_row_of_another_length_is_named_by_its_line(self, tmp_path):
        """Lines of the file, so that an editor finds it, though the report before has three."""
        (tmp_path / "table.csv").write_text('path,report\na,"one\ntwo\nthree"\nb,x,y\n')
        with pytest.raises(ValueError, match=r"table.csv, line 5: 3 values for 2 columns"):
            read_table(tmp_path / "table.csv", ("path",))

    def test_a_quote_that_is_never_closed_is_named(self, tmp_path):
        (tmp_path / "table.csv").write_text('path,report\na,"one\nb,two\n')
        with pytest.raises(ValueError, match="table.csv, line 3"):
            read_table(tmp_path / "table.csv", ("path",))

    def test_an_empty_line_is_no_row(self, tmp_path):
        (tmp_path / "table.csv").write_text("path,report\na,x\n\nb,y\n\n")
        assert [row["path"] for row in read_table(tmp_path / "table.csv", ("path",))] == ["a", "b"]

    @pytest.mark.parametrize("content", ["", "path,patient\n"])
    def test_a_table_without_rows_is_refused(self, tmp_path, capsys, content):
        folder = archive(tmp_path / "in")
        (folder / "table.csv").write_text(content)
        assert str(folder / "table.csv") in refusal(capsys, folder)

    def test_another_encoding_is_told(self, tmp_path, capsys):
        folder = archive(tmp_path / "in")
        (folder / "table.csv").write_bytes("path,patient,report\ne0.npy,p,Ischämie\n".encode("latin-1"))
        assert "is not UTF-8" in refusal(capsys, folder)

    def test_a_table_that_is_not_there_is_told(self, tmp_path, capsys):
        folder = archive(tmp_path / "in")
        (folder / "table.csv").unlink()
        assert "table.csv is not there: name the CSV with the records" in refusal(capsys, folder)


class TestPaths:
    """Records lie below --input, each once."""

    @pytest.mark.parametrize("path", ["../e1.npy", "a/../../e1.npy", "/etc/passwd", "", "  "])
    def test_a_path_out_of_the_folder_is_refused(self, tmp_path, path):
        table(tmp_path, [{"path": "e0.npy", "x": "1"}, {"path": path, "x": "1"}])
        with pytest.raises(ValueError, match="must lead to a record below"):
            list_table(tmp_path / "table.csv", tmp_path, Columns("path"))

    @pytest.mark.parametrize("second", ["a/e0", "a/e0.hea", "a/e0.dat", "./a/e0", "a//e0 "])
    def test_two_rows_of_one_record_are_refused_and_named(self, tmp_path, second):
        rows = [{"path": path, "x": "1"} for path in ("a/e0", "b", second)]
        table(tmp_path, rows)
        with pytest.raises(ValueError, match="rows 1 and 3 are both of the record a/e0: keep one of them"):
            list_table(tmp_path / "table.csv", tmp_path, Columns("path"))


class TestSplits:
    """A patient is in one split."""

    shares = {"train": 0.7, "val": 0.2, "test": 0.1}

    def many(self, seed=0):
        """4,000 records of 2,000 patients."""
        patients = [str(number % 2000) for number in range(4000)]
        sources = [Source(f"r{n}", Path(f"r{n}"), patient=patient) for n, patient in enumerate(patients)]
        order = np.random.default_rng(seed).permutation(4000)
        return Listing([sources[n] for n in order])

    def test_shares_are_about_right_and_no_patient_is_in_two(self):
        """2,000 patients: each share to within four standard deviations."""
        split_of = {s.patient: s.split for s in split_by_patient(self.many(), self.shares, 0).sources}
        assert all(split_of[s.patient] == s.split for s in split_by_patient(self.many(), self.shares, 0).sources)
        counts = Counter(split_of.values())
        for split, share in self.shares.items():
            assert abs(counts[split] - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5

    def test_the_order_of_the_rows_and_those_that_come_later_change_nothing(self):
        told = [{s.name: s.split for s in split_by_patient(self.many(seed), self.shares, 0).sources} for seed in (0, 1)]
        assert told[0] == told[1]
        first = Listing(self.many().sources[:1000])
        assert {s.name: s.split for s in split_by_patient(first, self.shares, 0).sources}.items() <= told[0].items()

    def test_another_seed_is_another_split(self):
        told = [{s.name: s.split for s in split_by_patient(self.many(), self.shares, seed).sources} for seed in (0, 1)]
        assert told[0] != told[1]

    def test_the_flag_splits_by_patient(self, tmp_path):
        folder = archive(tmp_path / "in", 40)
        found = splits(build(folder, "--fractions", "train=0.5", "val=0.5"))
        assert all(found[f"e{n}.npy"] == found[f"e{n + 1}.npy"] for n in range(0, 40, 2))
        assert set(found.values()) == {"train", "val"}

    @pytest.mark.parametrize(
        ("fractions", "sentence"),
        [
            (["train=0.5", "val=0.4"], "add up to 0.9: they must make 1"),
            (["train=1.5", "val=-0.5"], "the share of a split is a number above 0 and at most 1"),
            (["train=x"], "the share of a split is a number"),
            (["train"], "must be SPLIT=SHARE"),
            (["a-b=0.5", "train=0.5"], "the split a-b can't be part of a file name"),
        ],
    )
    def test_shares_that_make_no_whole_are_refused(self, tmp_path, capsys, fractions, sentence):
        assert sentence in refusal(capsys, archive(tmp_path / "in", 40), "--fractions", *fractions)

    def test_a_split_column_is_followed(self, tmp_path):
        own = ["train", "train", "val", "val", "night", "night"]
        found = splits(build(archive(tmp_path / "in", fold=own), "--split-column", "fold"))
        assert [found[f"e{n}.npy"] for n in range(6)] == own

    def test_a_patient_in_two_splits_of_the_column_is_refused(self, tmp_path, capsys):
        folder = archive(tmp_path / "in", fold=["train", "train", "val", "val", "val", "train"])
        error = refusal(capsys, folder, "--split-column", "fold")
        assert "e4.npy in val and e5.npy in train are of one patient: keep each patient in one split" in error

    def test_a_record_without_a_patient_is_rejected(self, tmp_path):
        folder = archive(tmp_path / "in")
        text = (folder / "table.csv").read_text()
        (folder / "table.csv").write_text(text.replace("e3.npy,p1", "e3.npy, "))
        shards = build(folder)
        assert rejected(shards) == {"e3.npy": "it has no patient"}
        assert set(samples(shards)) == {f"e{n}.npy" for n in (0, 1, 2, 4, 5)}

    @pytest.mark.parametrize("patients", [(), ("--patient-column", "patient")])
    def test_records_of_nobody_are_taken_only_if_asked_for(self, tmp_path, capsys, patients):
        folder = archive(tmp_path / "in")
        (folder / "table.csv").write_text("path,patient\n" + "".join(f"e{n}.npy,\n" for n in range(6)))
        assert "say whose they are with --patient-column" in refusal(capsys, folder, patients=patients)
        found = samples(build(folder, "--no-patients", patients=patients))
        assert len(found) == 6
        assert {sample["meta"].get("patient_id") for sample in found.values()} == {None}


class TestPseudonyms:
    """Who is who stays in the private folder."""

    def distinctive(self, folder):
        """Names of records and patients that nothing else would contain; returns the folder and those names."""
        names = [f"MUELLERSOHN{n}/recorded_{n}_ZQXJK" for n in range(4)]
        rows = [{"path": f"{name}.npy", "patient": f"GEBOREN-19611224-{n // 2}"} for n, name in enumerate(names)]
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True)
            np.save(folder / f"{name}.npy", ecg(number) / 1000)
        return table(folder, rows)

    def told(self, shards):
        """Every byte and name of a folder that may be passed on."""
        return b"\n".join(path.name.encode() + path.read_bytes() for path in sorted(shards.rglob("*")))

    secrets = (
        b"MUELLERSOHN",
        b"ZQXJK",
        b"recorded_",
        b"GEBOREN",
        b"19611224",
    )  # four digits were in a random key now and then

    @pytest.mark.parametrize("flags", [(), ("--fractions", "train=0.5", "val=0.5")])
    def test_neither_names_nor_patients_are_in_the_shards(self, tmp_path, flags):
        shards = build(self.distinctive(tmp_path / "in"), *flags)
        assert not [secret for secret in self.secrets if secret in self.told(shards)]
        known = Path(f"{shards}.private", "pseudonyms.csv").read_bytes()
        assert all(secret in known for secret in self.secrets)
        salt = Path(f"{shards}.private", "salt").read_bytes()
        assert salt not in self.told(shards)

    def test_the_private_folder_is_the_owners_alone(self, tmp_path):
        shards = build(self.distinctive(tmp_path / "in"))
        assert Path(f"{shards}.private").stat().st_mode & 0o077 == 0
        assert Path(f"{shards}.private", "salt").stat().st_mode & 0o077 == 0

    def test_records_of_a_patient_share_a_pseudonym_and_others_do_not(self, tmp_path):
        found = samples(build(archive(tmp_path / "in")))
        names = [found[f"e{n}.npy"]["meta"]["patient_id"] for n in range(6)]
        assert names[::2] == names[1::2]
        assert len(set(names)) == 3
        assert len({sample["key"] for sample in found.values()}) == 6

    def test_a_salt_gives_the_same_keys_again_and_another_gives_others(self, tmp_path):
        folder = self.distinctive(tmp_path / "in")
        first = build(folder, output=tmp_path / "first")
        (tmp_path / "same.private").mkdir()
        shutil.copy(tmp_path / "first.private" / "salt", tmp_path / "same.private")
        same, other = build(folder, output=tmp_path / "same"), build(folder, output=tmp_path / "other")
        keys = [{row["key"] for row in private(shards, "pseudonyms.csv")} for shards in (first, same, other)]
        patients = [{row["patient_id"] for row in private(shards, "pseudonyms.csv")} for shards in (first, same, other)]
        assert keys[0] == keys[1]
        assert patients[0] == patients[1]
        assert not keys[0] & keys[2]
        assert not patients[0] & patients[2]
        assert self.told(first) == self.told(same)

    def test_ids_that_are_pseudonyms_already_can_be_kept(self, tmp_path):
        found = samples(build(self.distinctive(tmp_path / "in"), "--keep-ids"))
        sample = found["MUELLERSOHN3/recorded_3_ZQXJK.npy"]
        assert sample["key"] == sample["meta"]["id"] == "MUELLERSOHN3-recorded_3_ZQXJK-npy"
        assert sample["meta"]["patient_id"] == "GEBOREN-19611224-1"

    def test_the_index_tells_no_place_and_no_name(self, tmp_path):
        shards = build(self.distinctive(tmp_path / "in"))
        told = json.loads((shards / "index.json").read_text())
        assert str(tmp_path) not in json.dumps(told)
        assert told["source"]["reader"] == "table"
