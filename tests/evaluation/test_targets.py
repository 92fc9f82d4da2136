"""What is predicted and of which records, from shards whose labels and metadata are known by heart."""

import math

import numpy as np
import pytest

from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.targets import column_target, label_target, read_cases

LEADS = ("I", "II")
NAMES = ("superclass/NORM", "superclass/MI", "NORM", "AFIB")


def shards(root, labels, metas=None, names=NAMES, kind="multilabel", split="train"):
    """A record for each list of labels, with its metadata."""
    metas = metas or [{} for _ in labels]
    signal = np.arange(80, dtype=np.float32).reshape(2, 40)
    records = [
        Record(split, f"ecg-{number}", signal, {"id": f"i{number}", "patient_id": f"p{number // 2}", **meta} | (
            {"labels": own} if names else {}))
        for number, (own, meta) in enumerate(zip(labels, metas, strict=True))
    ]  # fmt: skip
    write_shards(root, records, Description(LEADS, 100.0, Labels(names=names, kind=kind), {"made": "for a test"}))
    return ECGShards(root, split, LEADS)


@pytest.fixture
def four(tmp_path):
    return shards(tmp_path / "four", [[1, 0, 1, 0], [0, 1, 0, None], [None] * 4, [0, None, 0, 1]])


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, NAMES),
        (["*"], NAMES),
        (["superclass/*"], NAMES[:2]),
        (["*", "!superclass/*"], NAMES[2:]),
        (["!superclass/*"], NAMES[2:]),
        (["AFIB", "superclass/NORM"], ("superclass/NORM", "AFIB")),
        (["NORM"], ("NORM",)),
        (["*NORM", "!NORM"], ("superclass/NORM",)),
    ],
)
def test_patterns_choose_labels_in_the_order_of_the_index(four, patterns, names):
    target = label_target(four, patterns, None)
    assert target.names == names and target.task == "multilabel" and target.column is None


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["afib"], "has no label afib; there is superclass/NORM, superclass/MI, NORM, AFIB"),
        (["*", "!nothing/*"], r"has no label nothing/\*"),
        (["NORM", "!NORM"], "NORM, !NORM leaves no label"),
    ],
)
def test_a_pattern_that_fits_nothing_is_named(four, patterns, message):
    with pytest.raises(ValueError, match=message):
        label_target(four, patterns, None)


def test_shards_without_labels_are_told(tmp_path):
    with pytest.raises(ValueError, match="has no labels: build it with labels, or predict a target.column"):
        label_target(shards(tmp_path / "none", [[]], names=()), None, None)


def test_cases_are_the_records_of_which_some_label_is_known(four):
    cases = read_cases(four, label_target(four, ["superclass/*"], None), ())
    assert len(cases) == 3 and cases.samples_N.tolist() == [0, 1, 3]
    assert cases.keys == ["ecg-0", "ecg-1", "ecg-3"] and cases.ids == ["i0", "i1", "i3"]
    assert cases.patients_N.tolist() == ["p0", "p0", "p1"]
    np.testing.assert_array_equal(cases.truth_NK, [[1, 0], [0, 1], [0, math.nan]])
    np.testing.assert_array_equal(cases.targets("multilabel"), cases.truth_NK)


def test_records_whose_patient_nobody_knows_are_each_their_own(tmp_path):
    found = shards(tmp_path / "s", [[1], [0], [1]], [{"patient_id": None}] * 3, names=("a",))
    cases = read_cases(found, label_target(found, None, None), ())
    assert cases.patients_N.tolist() == ["ecg-0", "ecg-1", "ecg-2"]


def test_labels_are_found_by_name_in_a_test_set_of_another_order(four, tmp_path):
    target = label_target(four, ["superclass/*", "AFIB"], None)
    other = shards(tmp_path / "other", [[1, 0, 0], [0, 1, 1]], names=("AFIB", "superclass/MI", "superclass/NORM"))
    np.testing.assert_array_equal(read_cases(other, target, ()).truth_NK, [[0, 0, 1], [1, 1, 0]])


def test_a_label_that_the_second_test_set_lacks_is_named(four, tmp_path):
    other = shards(tmp_path / "other", [[1, 0]], names=("NORM", "superclass/NORM"))
    with pytest.raises(ValueError, match=f"{tmp_path / 'other'} has no label superclass/MI, which is to be predicted"):
        read_cases(other, label_target(four, None, None), ())


def test_a_split_without_any_known_label_is_told(tmp_path):
    with pytest.raises(ValueError, match="split train of .* has no record whose label is known"):
        found = shards(tmp_path / "s", [[None], [None]], names=("a",))
        read_cases(found, label_target(found, None, None), ())


def test_multiclass_labels_leave_out_records_of_none_of_the_classes(tmp_path):
    """As F beats beside N, S, V; and where one class is known and the others are not, that one is it."""
    labels = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [None, 1, 0], [0, 0, None], [1, 1, 0], [None, 1, None]]
    found = shards(tmp_path / "s", labels, names=("N", "V", "F"), kind="multiclass")
    target = label_target(found, ["N", "V"], None)
    assert target.task == "multiclass"
    cases = read_cases(found, target, ())
    assert cases.keys == ["ecg-0", "ecg-2", "ecg-3", "ecg-6"]
    assert cases.targets("multiclass").tolist() == [0, 1, 1, 1]
    assert np.isfinite(cases.truth_NK).all() and (cases.truth_NK.sum(1) == 1).all()


def column(root, values, **changes):
    return shards(root, [[1]] * len(values), [{"x": value} for value in values], names=("a",), **changes)


def test_a_column_of_numbers_is_a_regression_and_leaves_out_what_is_unknown(tmp_path):
    found = column(tmp_path / "s", [3, 4.5, None, -1, ""])
    target = column_target(found, "x", None)
    assert (target.task, target.names, target.column) == ("regression", ("x",), "x")
    cases = read_cases(found, target, ())
    assert cases.keys == ["ecg-0", "ecg-1", "ecg-3"]
    np.testing.assert_array_equal(cases.targets("regression"), [[3.0], [4.5], [-1.0]])


@pytest.mark.parametrize(
    ("values", "names", "classes"),
    [
        (["m", "f", None, "m"], ("f", "m"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([1, "b", 1], ("1", "b"), [0, 1, 0]),
    ],
)
def test_a_column_of_words_has_classes(tmp_path, values, names, classes):
    found = column(tmp_path / "s", values)
    target = column_target(found, "x", None)
    assert (target.task, target.names) == ("multiclass", names)
    assert read_cases(found, target, ()).targets("multiclass").tolist() == classes


def test_numbers_are_classes_if_asked_for(tmp_path):
    found = column(tmp_path / "s", [0.0, 1, 1.0, None])
    target = column_target(found, "x", "multiclass")
    assert target.names == ("0", "1")
    assert read_cases(found, target, ()).targets("multiclass").tolist() == [0, 1, 1]


def test_classes_that_training_has_not_seen_are_left_out_of_a_test_set(tmp_path):
    target = column_target(column(tmp_path / "s", ["a", "b"]), "x", None)
    other = column(tmp_path / "t", ["b", "c", "a"], split="test")
    cases = read_cases(other, target, ())
    assert cases.keys == ["ecg-0", "ecg-2"] and cases.targets("multiclass").tolist() == [1, 0]
    with pytest.raises(ValueError, match="has no record whose x is known"):
        read_cases(column(tmp_path / "u", ["c"], split="test"), target, ())


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([None, None], None, r"target\.column: no record of split train in .* has x in its json"),
        (["m", "f"], "regression", "x holds words such as 'm': set target.task to multiclass"),
        (["m", "m"], None, "x has 1 different values; classes are 2 to 100"),
        ([str(number) for number in range(101)], None, "x has 101 different values"),
    ],
)
def test_a_column_that_does_not_fit_is_told(tmp_path, values, task, message):
    with pytest.raises(ValueError, match=message):
        column_target(column(tmp_path / "s", values), "x", task)


def test_columns_to_group_by_come_along_with_none_where_there_is_none(tmp_path):
    metas = [{"sex": 1, "age": 3.5}, {"sex": ""}, {"age": 0}]
    found = shards(tmp_path / "s", [[1], [None], [0]], metas, names=("a",))
    cases = read_cases(found, label_target(found, None, None), ("age", "sex", "site"))
    assert cases.columns == {"age": [3.5, 0], "sex": [1, None], "site": [None, None]}
