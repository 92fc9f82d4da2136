"""PTB-XL through the command line: labels, reports, patients and folds are what pandas finds in the two tables."""

import ast

import numpy as np
import pandas as pd
import pytest

from src.data.builders.ptbxl import FOLDS, SETS, SUPERCLASSES, list_ptbxl
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from tools.build_shards import main

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
OWN = {"superclass": "diagnostic_class", "subclass": "diagnostic_subclass"}


@pytest.fixture(scope="module")
def root(medssl_data):
    path = medssl_data / "ecg" / "ptbxl500"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="module")
def records(root):
    """ptbxl_database.csv by ecg_id."""
    table = pd.read_csv(root / "ptbxl_database.csv", index_col="ecg_id", keep_default_na=False, dtype=str)
    return table.assign(codes=table.scp_codes.map(ast.literal_eval))


@pytest.fixture(scope="module")
def statements(root):
    """scp_statements.csv by statement."""
    return pd.read_csv(root / "scp_statements.csv", index_col=0)


def build(root, output, *flags):
    assert main(["ecg", "--input", str(root), "--output", str(output), "--sampling-rate", "100", *flags]) == 0
    return output


@pytest.fixture(scope="module")
def shards(root, tmp_path_factory):
    """All records at 100 Hz with every set of labels."""
    output = tmp_path_factory.mktemp("shards") / "shards"
    return build(root, output, "--workers", "1", "--labels", *SETS)


@pytest.fixture(scope="module")
def samples(shards):
    """{split: samples}."""
    found = {}
    for split in load_index(shards)[0].splits:
        reader = ECGShards(shards, split, LEADS)
        found[split] = reader.read(np.arange(len(reader)))
    return found


@pytest.fixture(scope="module")
def every(samples):
    """{ecg_id as the table has it: sample}."""
    return {str(int(s["key"].removeprefix("ptbxl-"))): s for own in samples.values() for s in own}


def expected_labels(records, statements, sets):
    """A column of 0 and 1 for each label, by pandas: a record has it if it has one of the label's statements."""
    given = records.codes.map(list).explode()
    has = pd.crosstab(given.index, given).reindex(records.index, fill_value=0).gt(0)
    columns = {}
    for name in sets:
        chosen = statements.index if name in ("all", *OWN) else statements.index[statements[name] == 1]
        label_of = statements[OWN[name]].dropna() if name in OWN else pd.Series(chosen, chosen)
        prefix = f"{name}/" if name in OWN and len(sets) > 1 else ""
        for label, codes in label_of.groupby(label_of).groups.items():
            columns[prefix + label] = has.reindex(columns=list(codes), fill_value=False).any(axis=1)
    return pd.DataFrame(columns).astype(float)


def told_labels(listing):
    keys = [str(int(source.key.removeprefix("ptbxl-"))) for source in listing.sources]
    return pd.DataFrame([source.labels for source in listing.sources], keys, listing.labels.names)


@pytest.mark.data
class TestLabels:
    """A statement at any likelihood counts."""

    @pytest.mark.parametrize(
        "sets", [*((name,) for name in SETS), ("superclass", "subclass"), ("subclass", "rhythm"), ("form", "rhythm")]
    )
    def test_labels_are_what_pandas_finds_in_the_two_tables(self, root, records, statements, sets):
        listing = list_ptbxl(root, 100.0, sets, FOLDS)
        expected, told = expected_labels(records, statements, sets), told_labels(listing)
        assert sorted(listing.labels.names) == sorted(expected.columns)
        assert listing.labels.kind == "multilabel"
        assert len(told) == 500
        pd.testing.assert_frame_equal(told, expected[told.columns].loc[told.index], check_names=False)

    def test_labels_in_the_shards_are_those_with_every_set_at_once(self, shards, every, records, statements):
        names = load_index(shards)[0].labels.names
        expected = expected_labels(records, statements, SETS)
        assert sorted(names) == sorted(expected.columns)
        for number, sample in every.items():
            assert np.array_equal(sample["labels"], expected.loc[number, list(names)])

    def test_superclasses_come_first_in_the_authors_order(self, root, shards):
        assert list_ptbxl(root, 100.0, ("superclass",), FOLDS).labels.names == SUPERCLASSES
        names = load_index(shards)[0].labels.names
        assert names[:5] == tuple(f"superclass/{name}" for name in SUPERCLASSES)

    def test_counts_of_the_superclasses_are_the_published_ones_of_this_part(self, shards, every):
        names = load_index(shards)[0].labels.names
        counts = dict(zip(names, sum(sample["labels"] for sample in every.values()), strict=True))
        expected = {"NORM": 297, "STTC": 96, "CD": 78, "MI": 73, "HYP": 40}
        assert {name: counts[f"superclass/{name}"] for name in expected} == expected

    @pytest.mark.parametrize(
        ("name", "count"),
        [("superclass", 5), ("subclass", 23), ("diagnostic", 44), ("form", 19), ("rhythm", 12), ("all", 71)],
    )
    def test_every_set_has_as_many_labels_as_strodthoff_et_al_count(self, root, name, count):
        assert len(list_ptbxl(root, 100.0, (name,), FOLDS).labels.names) == count

    def test_without_a_flag_labels_are_the_superclasses(self, root, tmp_path):
        shards = build(root, tmp_path / "out", "--workers", "1", "--folds", "val=10")
        assert load_index(shards)[0].labels.names == SUPERCLASSES


@pytest.mark.data
class TestRecords:
    """What else the table says of a record."""

    def test_every_record_is_there_once(self, every, samples, records):
        assert sum(map(len, samples.values())) == 500
        assert set(every) == set(records.index)

    def test_reports_are_the_tables_without_spaces_at_the_ends(self, every, records):
        for number, sample in every.items():
            assert sample["text"] == (records.report[number].strip() or None)

    def test_a_report_of_spaces_is_none(self, every, records):
        blank = records.index[(records.report.str.strip() == "") & (records.report != "")]
        assert len(blank) == 1
        assert every[blank[0]]["text"] is None

    def test_patients_ages_sexes_and_folds_are_the_tables(self, every, records):
        for number, sample in every.items():
            row, meta = records.loc[number], sample["meta"]
            assert meta["patient_id"] == str(int(float(row.patient_id)))
            assert meta.get("age") == (float(row.age) if row.age else None)
            assert meta["sex"] == float(row.sex)
            assert meta["fold"] == int(row.strat_fold)
            assert meta["id"] == sample["key"] == f"ptbxl-{int(number):05d}"

    def test_nothing_else_of_a_person_is_told(self, every):
        known = {"id", "patient_id", "fold", "age", "sex", "site", "device", "scale", "leads", "sampling_rate"}
        assert set().union(*(sample["meta"] for sample in every.values())) <= known | {"flat_leads", "gaps"}


@pytest.mark.data
class TestSplits:
    """The authors' folds."""

    def test_the_folds_make_the_splits(self, samples, records):
        folds = records.strat_fold.astype(int)
        sizes = {"train": (folds <= 8).sum(), "val": (folds == 9).sum(), "test": (folds == 10).sum()}
        assert {split: len(own) for split, own in samples.items()} == sizes == {"train": 353, "val": 81, "test": 66}
        for split, allowed in (("train", range(1, 9)), ("val", [9]), ("test", [10])):
            assert {sample["meta"]["fold"] for sample in samples[split]} == set(allowed)

    def test_no_patient_is_in_two_splits(self, shards, samples):
        patients = {split: {sample["meta"]["patient_id"] for sample in own} for split, own in samples.items()}
        assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 466
        assert load_index(shards)[0].patients == {split: len(own) for split, own in patients.items()}

    def test_folds_can_be_chosen_and_others_are_left_out(self, root, records, tmp_path):
        shards = build(root, tmp_path / "out", "--workers", "1", "--folds", "val=4,6", "mine=3")
        folds = records.strat_fold.astype(int)
        index, _ = load_index(shards)
        assert index.samples("val") == folds.isin([4, 6]).sum()
        assert index.samples("mine") == (folds == 3).sum()
        assert set(index.splits) == {"val", "mine"}

    @pytest.mark.parametrize(
        ("folds", "sentence"),
        [
            (["train=1-8", "val=8"], "a fold is in two splits"),
            (["train=one"], "must be SPLIT=FIRST-LAST or SPLIT=FOLD,FOLD"),
            (["train"], "must be SPLIT=FIRST-LAST or SPLIT=FOLD,FOLD"),
            (["train=8-1"], "train"),
            (["train=1-4", "train=5-8"], "train"),
        ],
        ids=["overlap", "word", "no folds", "backwards", "named twice"],
    )
    def test_folds_that_make_no_sense_are_refused(self, root, tmp_path, capsys, folds, sentence):
        words = ["ecg", "--input", str(root), "--output", str(tmp_path / "out"), "--sampling-rate", "100"]
        assert main([*words, "--shortest", "1e9", "--workers", "1", "--folds", *folds]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "--folds" in error
        assert sentence in error

    def test_the_rate_has_to_be_chosen(self, root, tmp_path, capsys):
        assert main(["ecg", "--input", str(root), "--output", str(tmp_path / "out")]) == 1
        assert "choose --sampling-rate 100 or 500" in capsys.readouterr().err


class TestTables:
    """Tables that are not quite the published ones."""

    def write(self, folder, **changes):
        row = dict.fromkeys(("report", "age", "sex"), "")
        row |= {"ecg_id": "7", "patient_id": "12.0", "strat_fold": "3", "scp_codes": "{'NORM': 0.0}"}
        row |= {"filename_lr": "a/7_lr", "filename_hr": "a/7_hr", **changes}
        pd.DataFrame([row]).to_csv(folder / "ptbxl_database.csv", index=False)
        group = {"diagnostic": ["1.0", ""], "form": ["", "1.0"], "rhythm": ["", ""]}
        group |= {"diagnostic_class": ["NORM", ""], "diagnostic_subclass": ["NORM", ""]}
        pd.DataFrame(group, ["NORM", "ABQRS"]).to_csv(folder / "scp_statements.csv")
        return folder

    @pytest.mark.parametrize("codes", ["{'NORM': 100.0}", "{'NORM': 0.0}", "{'ABQRS': 50.0, 'NORM': 15.0}"])
    def test_a_likelihood_of_zero_is_unknown_and_counts(self, tmp_path, codes):
        listing = list_ptbxl(self.write(tmp_path, scp_codes=codes), 100.0, ("superclass",), FOLDS)
        assert [source.labels for source in listing.sources] == [(1.0,)]

    @pytest.mark.parametrize(("rate", "path"), [(100.0, "a/7_lr"), (500.0, "a/7_hr"), (250.0, "a/7_hr")])
    def test_another_rate_is_made_from_500_hz(self, tmp_path, rate, path):
        (source,) = list_ptbxl(self.write(tmp_path), rate, ("superclass",), FOLDS).sources
        assert source.path == tmp_path / path

    @pytest.mark.parametrize(
        ("column", "value"),
        [("scp_codes", "NORM"), ("scp_codes", "['NORM']"), ("scp_codes", "__import__('os')"), ("strat_fold", "x")],
    )
    def test_a_row_that_can_not_be_read_is_named(self, tmp_path, column, value):
        with pytest.raises(ValueError, match="the row of ecg_id 7 can't be read"):
            list_ptbxl(self.write(tmp_path, **{column: value}), 100.0, ("superclass",), FOLDS)

    def test_a_missing_column_is_named(self, tmp_path):
        self.write(tmp_path)
        table = pd.read_csv(tmp_path / "ptbxl_database.csv").rename(columns={"strat_fold": "strat_folds"})
        table.to_csv(tmp_path / "ptbxl_database.csv", index=False)
        with pytest.raises(ValueError, match="no column strat_fold: did you mean strat_folds"):
            list_ptbxl(tmp_path, 100.0, ("superclass",), FOLDS)
