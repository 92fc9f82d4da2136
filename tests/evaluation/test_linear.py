"""Linear heads against scikit-learn, and what they promise about unknown targets, patients and the choice of l2."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from src.evaluation.linear import choose_l2, fit_linear, patient_folds

L2 = (1e-1, 1e-3)


def features(records=300, width=12, seed=0):
    """Correlated dimensions of different scales around different means, as float32."""
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((records, width)) @ generator.standard_normal((width, width))
    return (mixed * generator.uniform(0.1, 10.0, width) + generator.normal(0.0, 20.0, width)).astype(np.float32)


def labels(features_NF, count=4, unknown=0.0, seed=1):
    generator = np.random.default_rng(seed)
    standard = StandardScaler().fit_transform(features_NF.astype(np.float64))
    logits = standard @ generator.normal(0.0, 0.7, (standard.shape[1], count)) + np.linspace(-3.0, 1.0, count)
    targets = (generator.random(logits.shape) < 1.0 / (1.0 + np.exp(-logits))).astype(np.float64)
    targets[generator.random(targets.shape) < unknown] = np.nan
    return targets


def classes(features_NF, count=4, seed=2):
    generator = np.random.default_rng(seed)
    standard = StandardScaler().fit_transform(features_NF.astype(np.float64))
    logits = standard @ generator.normal(0.0, 0.5, (standard.shape[1], count)) + np.linspace(0.0, 2.0, count)
    return (logits + generator.gumbel(size=logits.shape)).argmax(1)


def values(features_NF, count=3, unknown=0.0, seed=3):
    generator = np.random.default_rng(seed)
    standard = StandardScaler().fit_transform(features_NF.astype(np.float64))
    targets = standard @ generator.standard_normal((standard.shape[1], count)) * [1.0, 50.0, 1e-3] + [0.0, 300.0, 1.0]
    targets += targets.std(0) * generator.standard_normal(targets.shape)
    targets[generator.random(targets.shape) < unknown] = np.nan
    return targets


def logistic(records, l2, balanced=False):
    weight = "balanced" if balanced else None
    return LogisticRegression(C=1.0 / (records * l2), class_weight=weight, tol=1e-9, max_iter=10_000)


def standardised(head, features_NF):
    return (features_NF.astype(np.float64) - head.mean_F) / head.std_F


def assert_same_map(left, right, tolerance=1e-5):
    np.testing.assert_allclose(left.weight_KF, right.weight_KF, atol=tolerance)
    np.testing.assert_allclose(left.bias_K, right.bias_K, atol=tolerance)


# The optimum is scikit-learn's


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("l2", L2)
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_each_label_is_sklearns_logistic_regression_on_its_known_records(l2, balanced, unknown):
    x_NF = features()
    targets = labels(x_NF, unknown=unknown)
    head = fit_linear(x_NF, targets, "multilabel", l2, balanced=balanced)
    standard = standardised(head, x_NF)
    assert head.converged
    for label, known in enumerate(~np.isnan(targets).T):
        reference = logistic(known.sum(), l2, balanced).fit(standard[known], targets[known, label])
        np.testing.assert_allclose(head.weight_KF[label], reference.coef_[0], atol=1e-4)
        np.testing.assert_allclose(head.bias_K[label], reference.intercept_[0], atol=1e-4)
        np.testing.assert_allclose(head.predict(x_NF)[:, label], reference.predict_proba(standard)[:, 1], atol=1e-4)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("l2", L2)
def test_classes_are_sklearns_multinomial_regression(l2, balanced):
    x_NF = features()
    targets = classes(x_NF)
    head = fit_linear(x_NF, targets, "multiclass", l2, balanced=balanced)
    standard = standardised(head, x_NF)
    reference = logistic(len(x_NF), l2, balanced).fit(standard, targets)
    np.testing.assert_allclose(head.weight_KF, reference.coef_, atol=1e-4)
    np.testing.assert_allclose(head.bias_K, reference.intercept_ - reference.intercept_.mean(), atol=1e-4)
    np.testing.assert_allclose(head.predict(x_NF), reference.predict_proba(standard), atol=1e-4)
    assert head.predict(x_NF).sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("width", [12, 400])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_values_are_sklearns_ridge_in_the_units_of_the_target(width, unknown):
    x_NF = features(width=width)
    targets = values(x_NF, unknown=unknown)
    head = fit_linear(x_NF, targets, "regression", 0.01)
    standard = standardised(head, x_NF)
    for column, known in enumerate(~np.isnan(targets).T):
        reference = Ridge(alpha=known.sum() * 0.01, solver="svd").fit(standard[known], targets[known, column])
        scale = np.nanstd(targets[:, column])
        np.testing.assert_allclose(head.weight_KF[column] / scale, reference.coef_ / scale, atol=1e-8)
        np.testing.assert_allclose(
            head.predict(x_NF)[:, column] / scale, reference.predict(standard) / scale, atol=1e-8
        )


def test_standardisation_is_the_training_records():
    x_NF = features()
    head = fit_linear(x_NF, labels(x_NF), "multilabel", 0.1)
    reference = StandardScaler().fit(x_NF.astype(np.float64))
    np.testing.assert_allclose(head.mean_F, reference.mean_)
    np.testing.assert_allclose(head.std_F, reference.scale_)


# More features than records, starts, repeats


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_more_features_than_records_give_the_direct_solution(task):
    x_NF = features(records=60, width=200)
    targets = labels(x_NF) if task == "multilabel" else classes(x_NF)
    head = fit_linear(x_NF, targets, task, 0.05)
    standard = standardised(head, x_NF)
    if task == "multiclass":
        np.testing.assert_allclose(head.weight_KF, logistic(60, 0.05).fit(standard, targets).coef_, atol=1e-4)
        return
    for label in range(targets.shape[1]):
        reference = logistic(60, 0.05).fit(standard, targets[:, label])
        np.testing.assert_allclose(head.weight_KF[label], reference.coef_[0], atol=1e-4)


@pytest.mark.parametrize("width", [12, 400])
@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_warm_start_ends_where_a_cold_one_does(task, width):
    x_NF = features(width=width)
    targets = labels(x_NF) if task == "multilabel" else classes(x_NF)
    elsewhere = fit_linear(features(width=width, seed=9), targets, task, 1.0)
    warm = fit_linear(x_NF, targets, task, 0.01, start=elsewhere)
    assert_same_map(warm, fit_linear(x_NF, targets, task, 0.01))


def test_a_start_at_the_optimum_stays_there():
    x_NF = features()
    head = fit_linear(x_NF, labels(x_NF), "multilabel", 0.01)
    assert_same_map(fit_linear(x_NF, labels(x_NF), "multilabel", 0.01, start=head), head, 1e-10)


@pytest.mark.filterwarnings("ignore:.*did not reach its optimum")
@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_start_is_the_same_map_on_other_features_and_scales(task, monkeypatch):
    x_NF, other_NF = features(), features(seed=9)
    targets = labels(x_NF) if task == "multilabel" else classes(x_NF)
    start = fit_linear(other_NF, targets, task, 0.1)
    monkeypatch.setattr("src.evaluation.newton.NEWTON_STEPS", 0)
    carried = fit_linear(x_NF, targets, task, 0.1, start=start)
    np.testing.assert_allclose(carried.predict(x_NF), start.predict(x_NF), atol=1e-9)


def test_a_head_of_another_shape_is_no_start():
    x_NF = features()
    with pytest.raises(ValueError, match="cannot start"):
        fit_linear(x_NF, labels(x_NF), "multilabel", 0.1, start=fit_linear(x_NF, values(x_NF), "regression", 0.1))


@pytest.mark.parametrize("task", ["multilabel", "multiclass", "regression"])
def test_the_same_data_give_the_same_bits(task):
    x_NF = features()
    targets = {"multilabel": labels, "multiclass": classes, "regression": values}[task](x_NF)
    once, again = (fit_linear(x_NF, targets, task, 0.01) for _ in range(2))
    np.testing.assert_array_equal(once.weight_KF, again.weight_KF)
    np.testing.assert_array_equal(once.bias_K, again.bias_K)


def test_labels_do_not_touch_each_other():
    x_NF = features()
    targets = labels(x_NF)
    together = fit_linear(x_NF, targets, "multilabel", 0.01)
    for label in range(targets.shape[1]):
        alone = fit_linear(x_NF, targets[:, [label]], "multilabel", 0.01)
        np.testing.assert_allclose(alone.weight_KF[0], together.weight_KF[label], atol=1e-5)


@pytest.mark.parametrize("l2", [1e-6, 100.0])
@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_separable_data_reach_the_optimum(task, l2):
    x_NF = features(records=40, width=80)
    targets = labels(x_NF) if task == "multilabel" else classes(x_NF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = fit_linear(x_NF, targets, task, l2)
    assert head.converged and np.isfinite(head.logits(x_NF)).all()


def test_a_head_short_of_its_optimum_says_so(monkeypatch):
    monkeypatch.setattr("src.evaluation.newton.NEWTON_STEPS", 1)
    x_NF = features()
    with pytest.warns(RuntimeWarning, match="did not reach its optimum"):
        assert not fit_linear(x_NF, labels(x_NF), "multilabel", 1e-4).converged


# Unknown targets, absent classes, dead dimensions


@pytest.mark.parametrize("task", ["multilabel", "multiclass", "regression"])
def test_records_without_a_target_are_as_if_absent(task):
    x_NF = features()
    targets = {"multilabel": labels, "multiclass": classes, "regression": values}[task](x_NF)
    known = np.random.default_rng(4).random(len(x_NF)) < 0.7
    hidden = targets.copy()
    hidden[~known] = -1 if task == "multiclass" else np.nan
    assert_same_map(fit_linear(x_NF, hidden, task, 0.01), fit_linear(x_NF[known], targets[known], task, 0.01), 1e-9)


def test_labels_with_one_class_predict_their_rate():
    x_NF = features(records=100)
    targets = np.column_stack([labels(x_NF), np.zeros(100), np.ones(100), np.full(100, np.nan)])
    head = fit_linear(x_NF, targets, "multilabel", 0.01)
    constant = head.predict(features(seed=5))[:, 4:]
    np.testing.assert_allclose(constant, np.tile([0.005, 0.995, 0.5], (300, 1)))
    np.testing.assert_allclose(head.weight_KF[:4], fit_linear(x_NF, targets[:, :4], "multilabel", 0.01).weight_KF)


def test_a_class_without_records_changes_little():
    x_NF = features()
    targets = classes(x_NF)
    head, reference = (fit_linear(x_NF, targets, "multiclass", 0.1, classes=count) for count in (6, 4))
    probabilities = head.predict(x_NF)
    assert probabilities.shape == (300, 6) and probabilities[:, 4:].max() < 0.01
    shares = probabilities[:, :4] / probabilities[:, :4].sum(1, keepdims=True)
    np.testing.assert_allclose(shares, reference.predict(x_NF), atol=1e-9)


def test_one_class_alone_is_certain():
    head = fit_linear(features(), np.ones(300, np.int64), "multiclass", 0.1)
    assert (head.predict(features(seed=5))[:, 1] > 0.99).all()


def test_a_target_without_known_values_predicts_nan():
    targets = values(features())
    targets[:, 1] = np.nan
    predicted = fit_linear(features(), targets, "regression", 0.1).predict(features())
    assert np.isnan(predicted[:, 1]).all() and np.isfinite(predicted[:, [0, 2]]).all()


def test_a_constant_dimension_has_no_say():
    x_NF = features()
    constant = np.full((300, 1), 3.3, np.float32) + np.float32(2.4e-7) * (np.arange(300) % 2)[:, None]
    head = fit_linear(np.hstack([x_NF, constant]).astype(np.float32), labels(x_NF), "multilabel", 0.01)
    assert head.std_F[-1] == 1.0 and np.abs(head.weight_KF[:, -1]).max() < 1e-4
    np.testing.assert_allclose(
        head.weight_KF[:, :-1], fit_linear(x_NF, labels(x_NF), "multilabel", 0.01).weight_KF, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features_NF": np.full((300, 12), np.nan)}, "finite"),
        ({"targets": np.full((300, 2), 2.0)}, "0, 1 or NaN"),
        ({"targets": np.full((300, 2), np.nan)}, "no record has a known target"),
        ({"targets": np.zeros((299, 2))}, "299 have targets"),
        ({"targets": np.zeros(300), "task": "multiclass"}, "integers"),
        ({"targets": np.full(300, 3), "task": "multiclass", "classes": 3}, "class 3"),
        ({"targets": np.full(300, -2), "task": "multiclass"}, "-1 where unknown"),
        ({"task": "ranking"}, "unknown task"),
        ({"l2": 0.0}, "above 0"),
        ({"targets": np.zeros((300, 2)), "task": "regression", "balanced": True}, "balanced"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    arguments = {"features_NF": features(), "targets": labels(features()), "task": "multilabel", "l2": 0.1}
    with pytest.raises(ValueError, match=message):
        fit_linear(**{**arguments, **change})


# The choice of l2

GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def best_by_hand(score, grid=GRID):
    scores = {l2: score(l2) for l2 in sorted(grid, reverse=True)}
    return max(scores, key=scores.get)


def out_of_fold(x_NF, targets, task, l2, folds_N, **options):
    outputs = [
        (folds_N == fold, fit_linear(x_NF[folds_N != fold], targets[folds_N != fold], task, l2, **options))
        for fold in np.unique(folds_N)
    ]
    width = outputs[0][1].weight_KF.shape[0]
    pooled = np.empty((len(x_NF), width))
    for test, head in outputs:
        pooled[test] = head.predict(x_NF[test])
    return pooled


@pytest.mark.parametrize("balanced", [False, True])
def test_labels_choose_the_best_macro_auroc_out_of_fold(balanced):
    x_NF, patients = features(width=40), np.arange(300) // 3
    targets, folds_N = labels(x_NF), patient_folds(patients, 4, seed=7)

    def auroc(l2):
        return roc_auc_score(targets, out_of_fold(x_NF, targets, "multilabel", l2, folds_N, balanced=balanced))

    options = {"groups_N": patients, "folds": 4, "seed": 7, "balanced": balanced}
    assert choose_l2(x_NF, targets, "multilabel", GRID, **options) == best_by_hand(auroc)


@pytest.mark.parametrize("criterion", ["auroc", "balanced_accuracy"])
def test_classes_choose_by_either_criterion_on_validation(criterion):
    x_NF, y_NF = features(width=60), features(width=60, seed=0)[::-1]
    targets, truth = classes(x_NF), classes(y_NF, seed=5)

    def score(l2):
        probabilities = fit_linear(x_NF, targets, "multiclass", l2).predict(y_NF)
        if criterion == "auroc":
            return roc_auc_score(truth, probabilities, multi_class="ovr")
        return balanced_accuracy_score(truth, probabilities.argmax(1))

    assert choose_l2(x_NF, targets, "multiclass", GRID, (y_NF, truth), criterion=criterion) == best_by_hand(score)


def test_values_choose_the_best_r2_out_of_fold():
    x_NF = features(records=120, width=90)
    targets, folds_N = values(x_NF), patient_folds(np.arange(120), 5, seed=0)

    def score(l2):
        return r2_score(targets, out_of_fold(x_NF, targets, "regression", l2, folds_N))

    assert choose_l2(x_NF, targets, "regression", GRID) == best_by_hand(score)


@pytest.mark.parametrize("seed", range(5))
def test_records_of_a_patient_on_both_sides_would_choose_less_regularisation(seed):
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(60), 5)
    x_PF = generator.standard_normal((60, 40))
    y_P1 = x_PF[:, :1] + generator.standard_normal((60, 1))
    x_NF = x_PF[patients] + 0.01 * generator.standard_normal((300, 40))
    leaking = choose_l2(x_NF, y_P1[patients], "regression", GRID)
    assert leaking < choose_l2(x_NF, y_P1[patients], "regression", GRID, groups_N=patients)


def test_a_tie_goes_to_the_stronger_regularisation():
    x_NF = np.linspace(-1.0, 1.0, 100)[:, None]  # one dimension: every l2 orders the records alike
    targets = labels(x_NF, count=1)
    assert choose_l2(x_NF, targets, "multilabel", (1e-3, 1.0, 1e-1), (x_NF, targets)) == 1.0


def test_labels_that_define_no_score_are_left_out():
    x_NF = features(width=40)
    targets = labels(x_NF)
    more = np.column_stack([targets, np.zeros(300), np.full(300, np.nan)])
    assert choose_l2(x_NF, more, "multilabel", GRID) == choose_l2(x_NF, targets, "multilabel", GRID)
    with pytest.warns(RuntimeWarning, match="no label defines the criterion"):
        assert choose_l2(x_NF, np.zeros((300, 2)), "multilabel", GRID) == 10.0


def test_a_target_known_in_one_fold_only_does_not_stop_the_choice():
    x_NF = features()
    targets = values(x_NF)
    targets[1:, 1] = np.nan
    rest = choose_l2(x_NF, targets[:, [0, 2]], "regression", GRID)
    assert choose_l2(x_NF, targets, "regression", GRID) == rest


def test_a_class_of_the_validation_records_alone_is_allowed():
    x_NF = features()
    targets = np.minimum(classes(x_NF), 2)
    assert choose_l2(x_NF, targets, "multiclass", GRID, (x_NF, classes(x_NF))) in GRID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "balanced_accuracy"}, "criterion"),
        ({"grid": ()}, "grid"),
        ({"grid": (1.0, 0.0)}, "above 0"),
        ({"folds": 301}, "folds"),
        ({"groups_N": np.arange(299)}, "299 groups"),
    ],
)
def test_choices_that_make_no_sense_are_refused(options, message):
    arguments = {"features_NF": features(), "targets": labels(features()), "task": "multilabel", "grid": GRID}
    with pytest.raises(ValueError, match=message):
        choose_l2(**{**arguments, **options})


# Folds


@pytest.mark.parametrize("seed", range(20))
def test_folds_keep_patients_whole_and_balance_records(seed):
    generator = np.random.default_rng(seed)
    patients = generator.geometric(0.02, size=400)
    folds_N = patient_folds(patients, 5, seed)
    assert all(len(set(folds_N[patients == patient])) == 1 for patient in np.unique(patients))
    sizes = np.bincount(folds_N, minlength=5)
    assert np.ptp(sizes) <= np.bincount(patients).max() and sizes.min() > 0


@pytest.mark.parametrize("seed", range(5))
def test_small_patients_fill_up_beside_large_ones(seed):
    patients = np.concatenate([np.zeros(50, np.int64), np.arange(1, 201)])
    assert np.bincount(patient_folds(patients, 5, seed)).tolist() == [50] * 5


def test_folds_follow_patients_and_not_the_order_of_records():
    patients = np.random.default_rng(0).integers(0, 50, 300)
    order = np.random.default_rng(1).permutation(300)
    folds_N = patient_folds(patients, 5, seed=3)
    np.testing.assert_array_equal(patient_folds(patients[order], 5, seed=3), folds_N[order])
    np.testing.assert_array_equal(patient_folds(patients.astype(str), 5, seed=3), folds_N)
    assert (patient_folds(patients, 5, seed=4) != folds_N).any()
