"""The table of a comparison: seeds averaged per draw, differences paired, groups counted, nothing invented."""

import json
import math

import numpy as np
import pytest

from src.metrics.bootstrap import patient_draws
from src.metrics.classification import macro, score_classes, score_labels, score_pooled, two_classes
from src.metrics.regression import score_numbers
from src.metrics.table import score_table
from tests.metrics import worlds

LABELS = ("rare", "second", "third", "half")
CUTS_SK = [np.full(4, 0.4), np.full(4, 0.5)]
METRICS = {"auroc", "average_precision", "brier", "calibration_error"}
CALLED = {"f1", "balanced_accuracy", "precision", "recall", "specificity", "accuracy"}


def world():
    """Truth and three sets of predictions for it."""
    probability_NK, truth_NK = worlds.multilabel()
    noise_3NK = np.random.default_rng(9).random((3, *truth_NK.shape))
    return truth_NK, [np.clip(0.7 * probability_NK + 0.3 * noise_NK, 0, 1) for noise_NK in noise_3NK]


def table(**changes):
    truth_NK, predictions = world()
    arguments = {
        "task": "multilabel",
        "truth": truth_NK,
        "rows": {"ours": predictions[:2], "random": predictions[1:]},
        "patients": worlds.patients(),
        "labels": LABELS,
        "thresholds": {"ours": CUTS_SK},
        "pairs": [("ours", "random"), ("ours", "ours")],
        "draws": 200,
    }
    return score_table(**(arguments | changes))


def cells(node):
    """Every cell below a row of scores."""
    if "value" in node:
        yield node
    else:
        for below in node.values():
            yield from cells(below)


def test_counts_and_keys():
    found, (truth_NK, _) = table(), world()
    assert list(found) == ["records", "patients", "known", "positives", "skipped", "scores", "differences"]
    assert found["records"] == 150 and found["patients"] == len(set(worlds.patients())) and found["skipped"] == {}
    assert list(found["positives"].values()) == list((truth_NK == 1).sum(0))
    assert list(found["known"].values()) == list((~np.isnan(truth_NK)).sum(0))
    assert set(found["scores"]["ours"]["macro"]) == METRICS | CALLED
    assert set(found["scores"]["random"]["labels"]["rare"]) == METRICS
    assert set(found["differences"]["ours - random"]["macro"]) == METRICS
    assert set(found["scores"]["ours"]["micro"]) == {"auroc", "average_precision", "f1", "precision", "recall"}
    for cell in cells(found["scores"]):
        assert list(cell) == ["value", "low", "high", "draws", "seeds"]


def test_seeds_are_averaged_draw_by_draw():
    truth_NK, predictions = world()
    draws_DN, defined_K = patient_draws(worlds.patients(), 200, seed=0), two_classes(truth_NK)
    cell = table()["scores"]["ours"]["macro"]["auroc"]
    points, draws = [], []
    for probability_NK in predictions[:2]:
        points.append(macro(score_labels(probability_NK, truth_NK)["auroc"], defined_K)[0])
        draws.append([])
        for count_N in draws_DN:
            repeated = np.repeat(probability_NK, count_N, axis=0), np.repeat(truth_NK, count_N, axis=0)
            draws[-1].append(macro(score_labels(*repeated)["auroc"], defined_K)[0])
    low, high = np.quantile(np.mean(draws, axis=0), (0.025, 0.975))
    assert cell["seeds"] == pytest.approx(points, abs=1e-12)
    assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((np.mean(points), low, high), abs=1e-12)


def test_difference_is_paired_by_draw():
    truth_NK, predictions = world()
    draws_DN = patient_draws(worlds.patients(), 200, seed=0)
    cell = table()["differences"]["ours - random"]["labels"]["half"]["auroc"]
    values_SD = [score_labels(values_NK, truth_NK, None, draws_DN)["auroc"][:, 3] for values_NK in predictions]
    paired_D = np.mean(values_SD[:2], axis=0) - np.mean(values_SD[1:], axis=0)
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(np.quantile(paired_D, (0.025, 0.975))), abs=1e-12)
    rows = table()["scores"]
    values = [rows[name]["labels"]["half"]["auroc"]["value"] for name in ("ours", "random")]
    assert cell["value"] == pytest.approx(values[0] - values[1], abs=1e-15)


def test_difference_of_a_row_with_itself_is_exactly_nothing():
    for cell in cells(table()["differences"]["ours - ours"]):
        assert (cell["value"], cell["low"], cell["high"]) in ((0, 0, 0), (0, None, None))
        assert cell["seeds"] == [0, 0]


def test_rows_of_different_numbers_of_seeds_are_compared_by_their_means():
    _, predictions = world()
    found = table(rows={"ours": predictions, "one": predictions[:1]}, thresholds={}, pairs=[("ours", "one")])
    values = [found["scores"][name]["macro"]["auroc"]["value"] for name in ("ours", "one")]
    cell = found["differences"]["ours - one"]["macro"]["auroc"]
    assert cell["seeds"] == [cell["value"]] == [pytest.approx(values[0] - values[1], abs=1e-15)]
    assert cell["low"] < cell["value"] < cell["high"]


def test_a_label_with_one_class_is_named_and_in_no_average():
    truth_NK, predictions = world()
    truth_NK[:, 0], truth_NK[:, 1] = np.nan, np.where(truth_NK[:, 1] == 1, np.nan, truth_NK[:, 1])
    found = table(truth=truth_NK)
    known = int((~np.isnan(truth_NK[:, 1])).sum())
    assert found["skipped"] == {"rare": "no known records", "second": f"no positives among {known} known records"}
    assert list(found["scores"]["ours"]["labels"]) == ["third", "half"]
    expected = np.mean([score_labels(values_NK, truth_NK)["auroc"][0, 2:].mean() for values_NK in predictions[:2]])
    assert found["scores"]["ours"]["macro"]["auroc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_has_a_value_and_no_interval():
    for cell in (table()["scores"]["ours"]["macro"]["calibration_error"],):
        assert cell["value"] > 0 and cell["low"] is None and cell["high"] is None


def test_groups_are_tables_of_their_records_on_the_same_draws():
    truth_NK, predictions = world()
    sex = np.array(["f", "m", "m"] * 50)
    found = table(groups={"sex": sex, "age": np.arange(150)}, edges={"age": [100]}, least_patients=40)
    assert list(found["groups"]["sex"]) == ["f", "m"] and list(found["groups"]["age"]) == ["< 100", ">= 100"]
    part, men_N = found["groups"]["sex"]["m"], sex == "m"
    assert part["records"] == 100 and part["patients"] == len(set(np.array(worlds.patients())[men_N]))
    draws_DN = patient_draws(worlds.patients(), 200, seed=0)[:, men_N]
    values_SD = [
        score_labels(values_NK[men_N], truth_NK[men_N], None, draws_DN)["auroc"][:, 3] for values_NK in predictions[:2]
    ]
    cell = part["scores"]["ours"]["labels"]["half"]["auroc"]
    expected = np.quantile(np.mean(values_SD, axis=0), (0.025, 0.975))
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(expected), abs=1e-12)
    small = found["groups"]["age"][">= 100"]
    assert small["records"] == 50 and small["patients"] < 40 and small["scores"] == small["differences"] == {}
    assert small["skipped"] == dict.fromkeys(LABELS, "fewer than 40 patients")


def test_multiclass_has_scores_of_each_class_and_of_all():
    probability_NK, truth_N = worlds.multiclass()
    truth_N[truth_N == 2] = -1
    found = table(task="multiclass", truth=truth_N, rows={"ours": [probability_NK]}, thresholds=None, pairs=[])
    classes, overall = score_classes(probability_NK, truth_N)
    assert found["skipped"] == {"third": f"no positives among {(truth_N >= 0).sum()} known records"}
    row = found["scores"]["ours"]
    for name, values_D in overall.items():
        assert row["macro"][name]["value"] == pytest.approx(values_D[0], abs=1e-12), name
    for name, values_DK in classes.items():
        assert row["macro"][name]["value"] == pytest.approx(np.nanmean(values_DK[0]), abs=1e-12), name
        assert row["labels"]["half"][name]["value"] == pytest.approx(values_DK[0, 3], abs=1e-12), name


@pytest.mark.parametrize("targets", [1, 2])
def test_regression_averages_what_has_no_unit(targets):
    generator = np.random.default_rng(0)
    truth_NK = generator.standard_normal((150, targets))
    predicted_NK = truth_NK + generator.standard_normal((150, targets))
    names = ("age", "ejection fraction")[:targets]
    rows = {"ours": [predicted_NK if targets == 2 else predicted_NK[:, 0]]}
    truth = truth_NK if targets == 2 else truth_NK[:, 0]
    found = table(task="regression", truth=truth, rows=rows, labels=names, thresholds=None, pairs=[("ours", "ours")])
    scores = score_numbers(predicted_NK, truth_NK)
    row = found["scores"]["ours"]
    assert set(row["macro"]) == ({"r2", "pearson"} if targets == 2 else set(scores))
    assert row["macro"]["r2"]["value"] == pytest.approx(scores["r2"].mean(), abs=1e-12)
    assert row["labels"]["age"]["mae"]["value"] == pytest.approx(scores["mae"][0, 0], abs=1e-12)
    assert found["positives"] == {} and found["known"]["age"] == 150


def test_pooled_scores_are_the_micro_row():
    truth_NK, predictions = world()
    expected = np.mean([score_pooled(values_NK, truth_NK)["auroc"][0] for values_NK in predictions[:2]])
    assert table()["scores"]["ours"]["micro"]["auroc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_json_has_null_and_never_nan():
    truth_NK, _ = world()
    truth_NK[:, 0] = np.where(np.arange(150) < 2, truth_NK[:, 0] * 0 + 1, 0)
    cuts = [np.array([2.0, np.nan, 0.5, 0.5])] * 2
    found = table(truth=truth_NK, thresholds={"ours": cuts}, groups={"sex": ["f", "m", None] * 50})
    rare = found["scores"]["ours"]["labels"]["rare"]
    assert rare["precision"] == {"value": None, "low": None, "high": None, "draws": 0, "seeds": [None, None]}
    assert rare["auroc"]["value"] is not None and rare["auroc"]["low"] is None and rare["auroc"]["draws"] < 180
    assert found["scores"]["ours"]["labels"]["second"]["f1"]["value"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(cell["value"] is None or math.isfinite(cell["value"]) for cell in cells(found["scores"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patients": ["a"] * 149}, "149 patients of 150"),
        ({"labels": ("a", "a", "b", "c")}, "labels a, a"),
        ({"labels": ("a", "b")}, "of 2 labels"),
        ({"rows": {"ours": [np.ones((150, 3))]}, "pairs": []}, "row ours"),
        ({"rows": {"ours": []}, "pairs": [], "thresholds": None}, "0 seeds"),
        ({"rows": {"ours": [np.full((150, 4), np.nan)] * 2}, "pairs": []}, "row ours, seed 0: .* NaN"),
        ({"thresholds": {"ours": CUTS_SK[:1]}}, "row ours: 1 seeds, 2 expected"),
        ({"pairs": [("ours", "theirs")]}, "no row is called theirs"),
        ({"groups": {"sex": ["f"]}}, "column sex"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        table(**changes)


def test_the_share_of_a_gap_is_taken_draw_by_draw():
    rng = np.random.default_rng(5)
    truth_NK = (rng.random((120, 2)) < 0.4).astype(float)
    rows = {
        name: [1 / (1 + np.exp(-(gain * truth_NK + rng.normal(size=truth_NK.shape))))]
        for name, gain in (("floor", 0.3), ("row", 1.0), ("ceiling", 3.0))
    }
    patients = [str(number // 2) for number in range(120)]
    table = score_table(
        "multilabel", truth_NK, rows, patients, labels=["a", "b"], gap=("row", "floor", "ceiling"), draws=200
    )
    weights_DN = np.concatenate([np.ones((1, 120)), patient_draws(patients, 200, 0)])
    macro_D = {name: score_labels(of[0], truth_NK, None, weights_DN)["auroc"].mean(1) for name, of in rows.items()}
    share_D = (macro_D["row"] - macro_D["floor"]) / (macro_D["ceiling"] - macro_D["floor"])
    closed = table["gap_closed"]
    assert (closed["row"], closed["floor"], closed["reference"], closed["metric"]) == (
        "row",
        "floor",
        "ceiling",
        "auroc",
    )
    np.testing.assert_allclose(
        [closed["value"], closed["low"], closed["high"]], [share_D[0], *np.quantile(share_D[1:], (0.025, 0.975))]
    )


def test_rare_labels_do_not_push_the_interval_away_from_the_score():
    """Draws without the one patient of a rare label must not become means over the common labels alone."""
    rng = np.random.default_rng(7)
    truth_NK = np.zeros((100, 6))
    truth_NK[:50, 0] = 1
    for label in range(1, 6):
        truth_NK[label, label] = 1
    probability_NK = rng.random((100, 6)) * 0.5 + 0.4 * truth_NK * (np.arange(6) == 0)
    patients = [str(number) for number in range(100)]
    macro = score_table("multilabel", truth_NK, {"row": [probability_NK]}, patients, labels=list("abcdef"))
    cell = macro["scores"]["row"]["macro"]["average_precision"]
    assert cell["low"] < cell["value"] < cell["high"]
