"""The two conditions a simulated world must meet before anything is trained on it, and what it must not be.

An encoder with random weights must not know the labels (macro AUROC <= 0.80 by a linear probe), and what can be known
at all must leave room (a reader that knows the generator: <= 0.99).
"""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from src.models.build import build_encoder
from src.models.config import EncoderConfig
from src.simulation.dynamics import quantised, render
from src.simulation.ecg import Cohort
from src.simulation.oracle import oracle_scores
from tests.simulation.measure import auroc

RANDOM_INIT, ORACLE = 0.80, 0.99
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""C of the logistic regression, as scikit-learn has it."""


def world(patients):
    """ECGs [N, 12, 1000] normalised by the training records, labels, splits and the oracle's scores."""
    parts = list(Cohort(patients=patients).parts())
    ecgs = np.concatenate([quantised(render(part, 100, 10)) for part in parts]).astype(np.float32)
    labels_NK = np.concatenate([part.labels_NK for part in parts])
    scores_NK = np.concatenate([oracle_scores(part) for part in parts])
    split = np.concatenate([part.split for part in parts])
    train = ecgs[split == "train"]
    mean, std = (fold(axis=(0, 2))[:, None] for fold in (train.mean, train.std))
    return np.clip((ecgs - mean) / std, -10, 10), labels_NK, split, scores_NK


def pooled(ecgs, length, seed):
    """Mean and standard deviation of a random encoder's tokens in crops of a length, averaged over crops, [N, 2 D]."""
    torch.manual_seed(seed)
    encoder = build_encoder(EncoderConfig(name="ecg_tiny", leads=12, length=length, patch=10)).eval()
    found = []
    with torch.no_grad():
        for batch in torch.from_numpy(ecgs).split(64):
            crops = batch.unflatten(2, (-1, length)).transpose(1, 2)
            tokens = encoder(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
            found.append(torch.cat([tokens.mean(2).mean(1), tokens.std(2).mean(1)], 1))
    return torch.cat(found).double().numpy()


def logits(features_ND, labels_NK, strength):
    """Weights [D + 1, K] of logistic regressions, the intercept without penalty."""
    design = np.c_[features_ND, np.ones(len(features_ND))]
    shape = (design.shape[1], labels_NK.shape[1])

    def loss(flat):
        weight = flat.reshape(shape)
        score = design @ weight
        penalised = np.r_[weight[:-1], np.zeros((1, shape[1]))]
        wrong = strength * (1 / (1 + np.exp(-np.clip(score, -50, 50))) - labels_NK)
        value = strength * (np.logaddexp(0, score) - labels_NK * score).sum() + 0.5 * (penalised**2).sum()
        return value, (design.T @ wrong + penalised).ravel()

    return minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B").x.reshape(shape)


def probe(features_ND, labels_NK, split):
    """Macro AUROC in the test records, each label at the strength that is best for it in the validation records."""
    train = features_ND[split == "train"]
    features = (features_ND - train.mean(0)) / (train.std(0) + 1e-8)
    best = np.zeros((2, labels_NK.shape[1]))
    for strength in STRENGTHS:
        weight = logits(features[split == "train"], labels_NK[split == "train"], strength)
        scores = np.c_[features, np.ones(len(features))] @ weight
        own = np.array([aurocs(labels_NK[split == part], scores[split == part]) for part in ("val", "test")])
        best = np.where(own[0] > best[0], own, best)
    return best[1].mean()


def aurocs(labels_NK, scores_NK):
    return [auroc(labels_N, scores_N) for labels_N, scores_N in zip(labels_NK.T, scores_NK.T, strict=True)]


def check(patients, seeds):
    ecgs, labels_NK, split, scores_NK = world(patients)
    oracle = np.mean(aurocs(labels_NK[split == "test"], scores_NK[split == "test"]))
    assert 0.93 < oracle <= ORACLE
    for length in (1000, 200):
        for seed in seeds:
            features = pooled(ecgs, length, seed)
            for name, own in (("mean", features[:, : features.shape[1] // 2]), ("mean and std", features)):
                random = probe(own, labels_NK, split)
                print(f"{patients} patients, {length} samples, seed {seed}, {name}: {random:.4f}; oracle {oracle:.4f}")
                assert random <= RANDOM_INIT, (length, seed, name)


def test_conditions_in_a_small_cohort():
    check(patients=500, seeds=[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_conditions():
    check(patients=1500, seeds=range(3))
