"""Attentive heads: what only attention can tell, many at once as each alone, chosen and repeated as said."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, r2_score, roc_auc_score
from sklearn.utils.class_weight import compute_sample_weight

from src.config.attentive import AttentiveConfig
from src.config.engine import EngineConfig
from src.distributed.ranks import Ranks
from src.evaluation.attentive import (
    Examples,
    Training,
    _best,
    _mean_score,
    _targets,
    choose_probe,
    grid,
    heads_of,
    probe_losses,
    train_probes,
)
from src.evaluation.linear import fit_linear, patient_folds, scorer
from src.evaluation.tokens import Tokens
from src.models.attentive import ProbeSetting

WIDTH, LENGTH = 16, 12
MARK, SIGN = 0, 1
SMALL = {"heads": 2, "epochs": 3, "batch_size": 32, "lr": (1e-3, 5e-3), "weight_decay": (0.01, 0.4)}


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def how(task="multilabel", seed=0, balanced=False, **keys):
    return Training(
        task=task,
        config=AttentiveConfig(**(SMALL | keys)),
        seed=seed,
        ranks=Ranks(0, 1, torch.device("cpu")),
        engine=EngineConfig(),
        balanced=balanced,
    )


def needles(count, seed):
    """Records with one marked token, anywhere, whose sign is the label [N, 1]; of all tokens half have each sign."""
    rng = np.random.default_rng(seed)
    signs_NL = rng.permuted(np.tile([1.0, -1.0], (count, LENGTH // 2)), axis=1)
    marked_N = rng.integers(LENGTH, size=count)
    tokens_NLD = 0.3 * rng.normal(size=(count, LENGTH, WIDTH))
    tokens_NLD[:, :, SIGN] = signs_NL
    tokens_NLD[np.arange(count), marked_N, MARK] += 3.0
    label_N1 = (signs_NL[np.arange(count), marked_N] > 0).astype(float)[:, None]
    return Examples(Tokens(tuple(tokens_NLD.astype(np.float16))), label_N1)


@pytest.fixture(scope="module")
def train():
    return needles(240, 1)


@pytest.fixture(scope="module")
def test():
    return needles(200, 2)


@pytest.mark.parametrize("depth", [1, 2])
def test_attention_finds_a_token_that_the_mean_of_the_tokens_does_not_tell_of(train, test, depth):
    setting = ProbeSetting(5e-3, 0.01)
    asked = how(depth=depth, epochs=12)
    found = train_probes(train, np.arange(240), [setting], asked).head(0).predict(test.tokens, asked)
    assert roc_auc_score(test.truth_NK, found) > 0.97
    pooled = [np.stack(of.tokens.records).astype(float).mean(1) for of in (train, test)]
    linear = fit_linear(pooled[0], train.truth_NK, "multilabel", 0.01).predict(pooled[1])
    assert 0.38 < roc_auc_score(test.truth_NK, linear) < 0.62


@pytest.mark.parametrize("depth", [1, 2])
def test_probes_at_once_predict_what_each_alone_does(train, test, depth):
    asked, rows = how(depth=depth), np.arange(240)
    settings = grid(asked.config)
    together = train_probes(train, rows, settings, asked).predict(test.tokens, np.arange(200))
    for number, setting in enumerate(settings):
        alone = train_probes(train, rows, [setting], asked).predict(test.tokens, np.arange(200))
        np.testing.assert_allclose(together[number], alone[0], rtol=0, atol=1e-4)
    assert len({one.tobytes() for one in together}) == len(settings) == 4


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(train, test):
    rows = np.arange(240)
    first, again, other = (
        train_probes(train, rows, grid(how().config), how(seed=seed)).predict(test.tokens, rows[:200])
        for seed in (0, 0, 1)
    )
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 1e-3


def test_the_setting_is_the_one_that_validation_likes_best(train, test):
    asked = how(lr=(1e-5, 5e-3), epochs=8)
    chosen = choose_probe(train, test, np.arange(240).astype(str), 5, asked)
    probes = train_probes(train, np.arange(240), chosen.settings, asked)
    aurocs = [roc_auc_score(test.truth_NK, one) for one in probes.predict(test.tokens, np.arange(200))]
    np.testing.assert_allclose(chosen.scores, aurocs, atol=1e-6)
    assert chosen.scores[chosen.place] == max(chosen.scores) > 0.9 > min(chosen.scores)
    assert chosen.head.setting == chosen.settings[chosen.place] and chosen.head.setting.lr == 5e-3
    np.testing.assert_allclose(chosen.held_out_NK, chosen.head.predict(test.tokens, asked), atol=1e-6)


def test_without_validation_every_patient_is_judged_by_probes_that_have_not_seen_him(train):
    patients_N, asked = (np.arange(240) // 3).astype(str), how()
    chosen = choose_probe(train, None, patients_N, 2, asked)
    folds_N = patient_folds(patients_N, 2, 0)
    for fold in range(2):
        probes = train_probes(train, np.flatnonzero(folds_N != fold), [chosen.settings[chosen.place]], asked)
        expected = probes.predict(train.tokens, np.flatnonzero(folds_N == fold))[0]
        np.testing.assert_allclose(chosen.held_out_NK[folds_N == fold], expected, atol=1e-4)
    of_folds = [roc_auc_score(train.truth_NK[folds_N == fold], chosen.held_out_NK[folds_N == fold]) for fold in (0, 1)]
    assert chosen.scores[chosen.place] == pytest.approx(np.mean(of_folds), abs=1e-6)
    on_all = train_probes(train, np.arange(240), [chosen.settings[chosen.place]], asked).head(0)
    for own, other in zip(chosen.head.probe.parameters(), on_all.probe.parameters(), strict=True):
        assert torch.equal(own, other)


def test_what_tells_the_prevalence_of_its_training_records_alone_scores_at_chance_out_of_fold():
    """Pooled over the folds it would score far below: where few positives were trained on many are left."""
    truth_NK = (np.arange(30) % 3 == 0).astype(float)[:, None]
    folds_N = patient_folds(np.arange(30).astype(str), 5, 0)
    prevalence_NK = np.array([truth_NK[folds_N != fold].mean() for fold in folds_N])[:, None]
    assert _mean_score(scorer("multilabel", None), prevalence_NK, truth_NK, folds_N) == 0.5
    assert roc_auc_score(truth_NK, prevalence_NK) < 0.4
    assert np.isnan(_mean_score(scorer("multilabel", None), prevalence_NK * np.nan, truth_NK, folds_N))


def test_a_tie_goes_to_the_lower_rate_and_the_larger_decay_and_what_diverged_is_passed_over():
    settings = grid(AttentiveConfig(**SMALL))
    assert settings[0] == ProbeSetting(1e-3, 0.4) and settings[-1] == ProbeSetting(5e-3, 0.01)
    assert _best([0.5, 0.7, float("nan"), 0.7]) == 1 and _best([float("nan"), 0.2]) == 1
    with pytest.warns(RuntimeWarning, match="no label defines the criterion"):
        assert _best([float("nan")] * 2) == 0


def test_unknown_labels_have_no_gradient_and_no_part_in_the_loss():
    rng = np.random.default_rng(0)
    truth_NK = rng.integers(2, size=(20, 3)).astype(float)
    truth_NK[rng.random((20, 3)) < 0.3] = np.nan
    targets_NK, weights_NK, _, _ = _targets(truth_NK, "multilabel", False)
    outputs = torch.from_numpy(rng.normal(size=(2, 20, 3)).astype(np.float32)).requires_grad_()
    found = probe_losses(outputs, torch.from_numpy(targets_NK), torch.from_numpy(weights_NK), "multilabel")
    found.sum().backward()
    known = ~np.isnan(truth_NK)
    assert not outputs.grad[:, ~known].any() and outputs.grad[:, known].all()
    for probe in range(2):
        probability = torch.sigmoid(outputs[probe]).detach().numpy()[known]
        assert found[probe].item() == pytest.approx(log_loss(truth_NK[known], probability), rel=1e-5)


def test_a_label_that_is_never_known_leaves_its_weights_as_they_were(train):
    truth_NK = np.column_stack([train.truth_NK[:, 0], np.full(240, np.nan)])
    asked = how(weight_decay=(0.0,))
    trained = train_probes(Examples(train.tokens, truth_NK), np.arange(240), grid(asked.config), asked)
    first = [probe.head.weight for probe in trained.probes.probes]
    assert torch.equal(first[0][1], first[1][1]) and not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_balanced_records_weigh_as_sklearns_do(task):
    rng = np.random.default_rng(3)
    classes_N = rng.choice(3, size=60, p=[0.7, 0.2, 0.1])
    truth_NK = np.eye(3)[classes_N]
    targets_NK, weights_NK, _, _ = _targets(truth_NK, task, True)
    if task == "multiclass":
        own_N, expected_N = (targets_NK * weights_NK).sum(1), compute_sample_weight("balanced", classes_N)
    else:
        own_N, expected_N = weights_NK[:, 1], compute_sample_weight("balanced", truth_NK[:, 1])
    np.testing.assert_allclose(own_N, expected_N, rtol=1e-5)
    outputs = torch.from_numpy(rng.normal(size=(1, 60, 3)).astype(np.float32))
    found = probe_losses(outputs, torch.from_numpy(targets_NK), torch.from_numpy(weights_NK), task).item()
    if task == "multiclass":
        each = F.cross_entropy(outputs[0], torch.from_numpy(classes_N), reduction="none").numpy()
        assert found == pytest.approx(np.mean(expected_N * each), rel=1e-5)


def test_classes_are_told_apart_and_their_probabilities_sum_to_1(train, test):
    both = [np.column_stack([1 - of.truth_NK, of.truth_NK]) for of in (train, test)]
    asked = how("multiclass", epochs=12)
    examples = Examples(train.tokens, both[0])
    found = (
        train_probes(examples, np.arange(240), [ProbeSetting(5e-3, 0.01)], asked).head(0).predict(test.tokens, asked)
    )
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found.argmax(1) == both[1].argmax(1)).mean() > 0.9


def test_a_regression_is_in_the_units_of_its_targets(train, test):
    asked = how("regression", epochs=12)
    examples = Examples(train.tokens, 1000 + 50 * train.truth_NK)
    found = (
        train_probes(examples, np.arange(240), [ProbeSetting(5e-3, 0.01)], asked).head(0).predict(test.tokens, asked)
    )
    assert r2_score(1000 + 50 * test.truth_NK, found) > 0.7
    with pytest.raises(ValueError, match="balanced weighs classes, and a regression has none"):
        train_probes(examples, np.arange(240), [ProbeSetting(5e-3, 0.01)], how("regression", balanced=True))


def test_records_of_any_length_are_predicted_as_if_alone(train):
    asked = how()
    head = train_probes(train, np.arange(240), [ProbeSetting(5e-3, 0.01)], asked).head(0)
    cut = [tokens_LD[: 2 + number % 9] for number, tokens_LD in enumerate(train.tokens.records[:40])]
    alone = [head.predict(Tokens((tokens_LD,)), asked)[0] for tokens_LD in cut]
    np.testing.assert_allclose(head.predict(Tokens(tuple(cut)), asked), alone, atol=1e-6)


def test_heads_divide_the_width_or_are_refused():
    assert [heads_of(AttentiveConfig(), width) for width in (32, 192, 384, 1024)] == [1, 3, 6, 16]
    with pytest.raises(ValueError, match=r"head\.attentive\.heads: 5 heads do not divide the encoder's width 32"):
        heads_of(AttentiveConfig(heads=5), 32)
