"""Attentive heads on frozen tokens: a learned query looks at them, then a linear layer; trained, not solved.

As V-JEPA (arXiv 2404.08471) and V-JEPA 2 (arXiv 2506.09985) judge their encoders: AdamW over a grid of learning rates
and weight decays, all probes at once. No probe knows of the others and none is clipped, so that each is what it would
be alone: ranks divide the grid between them, which changes nothing.
"""

# N records, B records of a step, L tokens, D width, S settings, K labels, classes or targets

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor, nn

from src.config.attentive import AttentiveConfig
from src.config.engine import EngineConfig
from src.distributed.ranks import Ranks, broadcast_object, gather_objects
from src.engines.engine import autocast
from src.evaluation.linear import Criterion, Task, patient_folds, scorer
from src.evaluation.newton import Array
from src.evaluation.tokens import Tokens
from src.models.attentive import AttentiveProbe, AttentiveProbes, ProbeSetting
from src.optimization.schedules import cosine
from src.randomness import derive_seed

Rows = NDArray[np.int64]
HEAD_WIDTH = 64
"""Of the attention's heads, where the config does not count them."""


class Bar(Protocol):
    """Shows how far a training is."""

    def advance(self) -> None: ...

    def show(self, epoch: int, loss: float, samples_per_second: float, data_wait: float) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Examples:
    """Records with their tokens and truth [N, K]: 0 and 1 of each label or class, or values; NaN is unknown."""

    tokens: Tokens
    truth_NK: Array

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Training:
    """How probes are trained: all of it but the records."""

    task: Task
    config: AttentiveConfig
    seed: int
    ranks: Ranks
    engine: EngineConfig
    """Of which the precision counts, where it is bf16; fp16 would need a scaled loss, and probes take fp32 instead."""
    balanced: bool = False
    bar: Callable[[int], Bar] | None = None
    """Makes a bar of so many steps."""

    @property
    def precision(self) -> AbstractContextManager[Any]:
        return autocast(self.engine, self.ranks.device) if self.engine.precision == "bf16" else nullcontext()


@dataclass(frozen=True, eq=False)
class AttentiveHead:
    """A trained probe. The values of a regression are its output times std_K plus mean_K; else these are 1 and 0."""

    probe: AttentiveProbe
    mean_K: Array
    std_K: Array
    setting: ProbeSetting

    def predict(self, tokens: Tokens, how: Training) -> Array:
        """[N, K]: probabilities of each label, of each class (rows sum to 1), or values in target units."""
        outputs_NK = _outputs(self.probe, tokens, np.arange(len(tokens)), how)
        return _in_units(outputs_NK, self.mean_K, self.std_K, how.task)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The outcome of a search."""

    head: AttentiveHead | None
    """On rank 0 alone."""
    settings: tuple[ProbeSetting, ...]
    scores: tuple[float, ...]
    """The criterion of each setting on the held-out records; NaN where it is undefined or the training diverged."""
    place: int
    """Of the chosen one."""
    held_out_NK: Array
    """What it predicts for the validation records, or out of fold for those of training."""


def grid(config: AttentiveConfig) -> tuple[ProbeSetting, ...]:
    """Every learning rate with every weight decay, the strongest regularisation first."""
    rates, decays = sorted(set(config.lr)), sorted(set(config.weight_decay), reverse=True)
    return tuple(ProbeSetting(lr, weight_decay) for lr in rates for weight_decay in decays)


def choose_probe(
    train: Examples,
    validation: Examples | None,
    patients_N: NDArray[np.str_],
    folds: int,
    how: Training,
    criterion: Criterion | None = None,
) -> Chosen:
    """Train a probe of each setting and take the one that scores best on `validation`, or else out of fold.

    All are trained to the end of their schedule; none is stopped where it is best. Out of fold patients are kept
    together, and the setting that was chosen is trained once more on all records. Scores are the mean of those of the
    folds: a fold with more positives than its share was left by training records with fewer, so that short trainings
    scored below chance when folds were pooled. Criteria are those of `choose_l2`, a tie goes to the lower learning
    rate, then the larger weight decay. All ranks must call it.

    Raises:
        ValueError: every probe has diverged.
    """
    settings, ranks = grid(how.config), how.ranks
    mine, every_N = settings[ranks.rank :: ranks.world_size], np.arange(len(train))
    trained = None if validation is None else train_probes(train, every_N, mine, how)
    if validation is None or trained is None:
        truth_NK, parts_N = train.truth_NK, patient_folds(patients_N, folds, how.seed)
        own_SNK = _out_of_fold(train, mine, parts_N, how)
    else:
        truth_NK, parts_N = validation.truth_NK, np.zeros(len(validation), np.int64)
        own_SNK = trained.predict(validation.tokens, np.arange(len(validation)))
    predicted = gather_objects(list(own_SNK))
    predicted_SNK = [predicted[n % len(predicted)][n // len(predicted)] for n in range(len(settings))]
    score = scorer(how.task, criterion)
    scores = broadcast_object([_mean_score(score, one_NK, truth_NK, parts_N) for one_NK in predicted_SNK])
    place = _best(scores)
    if not np.isfinite(predicted_SNK[place]).all():
        raise ValueError("every attentive probe has diverged: give head.attentive.lr lower rates")
    if trained is None:
        head = train_probes(train, every_N, settings[place : place + 1], how).head(0) if ranks.first else None
    else:
        owner, number = place % ranks.world_size, place // ranks.world_size
        head = gather_objects(trained.head(number) if ranks.rank == owner else None)[owner]
    return Chosen(head if ranks.first else None, settings, tuple(scores), place, predicted_SNK[place])


def _out_of_fold(train: Examples, settings: Sequence[ProbeSetting], folds_N: Rows, how: Training) -> Array:
    """[S, N, K]: what probes predict for patients that they have not seen."""
    found = np.empty((len(settings), *train.truth_NK.shape))
    for fold in range(int(folds_N.max()) + 1):
        seen_N, others_N = np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)
        found[:, others_N] = train_probes(train, seen_N, settings, how).predict(train.tokens, others_N)
    return found


def _mean_score(score: Callable[[Array, Array], float], predicted_NK: Array, truth_NK: Array, parts_N: Rows) -> float:
    """Mean over the parts in which the score is defined; NaN without any, and where a probe has diverged."""
    if not np.isfinite(predicted_NK).all():
        return float("nan")
    found = [score(predicted_NK[parts_N == part], truth_NK[parts_N == part]) for part in np.unique(parts_N)]
    defined = [value for value in found if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _best(scores: Sequence[float]) -> int:
    """The first that no later one beats by more than rounding."""
    best = None
    for place, score in enumerate(scores):
        if np.isfinite(score) and (best is None or score > scores[best] + 1e-12):
            best = place
    if best is None:
        warnings.warn("no label defines the criterion; the lowest learning rate is taken", RuntimeWarning, stacklevel=3)
    return best or 0


# Training


@dataclass(frozen=True, eq=False)
class TrainedProbes:
    """Probes of several settings after their training."""

    probes: AttentiveProbes
    mean_K: Array
    std_K: Array
    how: Training

    def predict(self, tokens: Tokens, rows_N: Rows) -> Array:
        """[S, N, K] in the units of the targets; NaN where a probe has diverged."""
        if not self.probes.settings:
            return np.empty((0, len(rows_N), len(self.mean_K)))
        return _in_units(_outputs(self.probes, tokens, rows_N, self.how), self.mean_K, self.std_K, self.how.task)

    def head(self, number: int) -> AttentiveHead:
        """One of them, on the CPU."""
        probe = self.probes.probes[number].cpu()
        assert isinstance(probe, AttentiveProbe)
        return AttentiveHead(probe, self.mean_K, self.std_K, self.probes.settings[number])


def train_probes(examples: Examples, rows_N: Rows, settings: Sequence[ProbeSetting], how: Training) -> TrainedProbes:
    """A probe of each setting on some of the records: a function of these, the config and the seed.

    Every epoch has an order of its own, drawn from the seed. Learning rates fall to 0 along half a cosine.
    """
    targets_NK, weights_NK, mean_K, std_K = _targets(examples.truth_NK[rows_N], how.task, how.balanced)
    config, device, width = how.config, how.ranks.device, examples.tokens.width
    probes = AttentiveProbes(width, heads_of(config, width), config.depth - 1, len(mean_K), settings, how.seed)
    probes.to(device)
    trained = TrainedProbes(probes, mean_K, std_K, how)
    if not settings:
        return trained
    optimizer = torch.optim.AdamW(probes.groups(), fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = config.epochs * -(-len(rows_N) // config.batch_size)
    share_of = cosine(1.0, 0.0, steps)
    pace = Pace(None if how.bar is None else how.bar(steps), len(rows_N))
    for step, places_B in enumerate(_batches(len(rows_N), how)):
        tokens_BLD, keep_BL = examples.tokens.batch(rows_N[places_B])
        pace.read()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share_of(step)
        with how.precision:
            outputs_SBK = probes(tokens_BLD.to(device).float(), None if keep_BL is None else keep_BL.to(device))
        targets_BK, weights_BK = (torch.from_numpy(part[places_B]).to(device) for part in (targets_NK, weights_NK))
        losses_S = probe_losses(outputs_SBK.float(), targets_BK, weights_BK, how.task)
        optimizer.zero_grad()
        losses_S.sum().backward()
        optimizer.step()
        pace.step(len(places_B), losses_S)
    pace.close()
    return trained


def _batches(count: int, how: Training) -> Iterator[Rows]:
    """The places of each step's records; the last batch of an epoch may be smaller."""
    for epoch in range(how.config.epochs):
        order_N = np.random.default_rng(derive_seed(how.seed, "attentive order", epoch)).permutation(count)
        for start in range(0, count, how.config.batch_size):
            yield order_N[start : start + how.config.batch_size]


def heads_of(config: AttentiveConfig, width: int) -> int:
    """How many heads the attention has.

    Raises:
        ValueError: they do not divide the encoder's width.
    """
    heads = config.heads or max(width // HEAD_WIDTH, 1)
    if width % heads:
        raise ValueError(f"head.attentive.heads: {heads} heads do not divide the encoder's width {width}; set others")
    return heads


def probe_losses(outputs_SBK: Tensor, targets_BK: Tensor, weights_BK: Tensor, task: Task) -> Tensor:
    """The mean loss of each probe [S] over what is known of a batch: a target of weight 0 has no part in it.

    multilabel: binary cross-entropy; multiclass: cross-entropy over the classes; regression: squared error.
    """
    if task == "multilabel":
        wide_SBK = targets_BK.expand_as(outputs_SBK)
        errors_SBK = F.binary_cross_entropy_with_logits(outputs_SBK, wide_SBK, reduction="none")
    elif task == "multiclass":
        errors_SBK = -targets_BK * outputs_SBK.log_softmax(-1)
    else:
        errors_SBK = (outputs_SBK - targets_BK).square()
    known = (targets_BK * (weights_BK > 0)).sum() if task == "multiclass" else (weights_BK > 0).sum()
    return (errors_SBK * weights_BK).sum((1, 2)) / known.clamp(min=1)


def _targets(
    truth_NK: Array, task: Task, balanced: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array, Array]:
    """Targets with 0 where unknown, their weights (0 where unknown), and the mean and std of a regression's.

    `balanced` makes each class weigh the same, as scikit-learn's class_weight="balanced" does. A regression's target
    without any known value has mean NaN, and so have its predictions.
    """
    if balanced and task == "regression":
        raise ValueError("balanced weighs classes, and a regression has none")
    known_NK = ~np.isnan(truth_NK)
    count_K = np.maximum(known_NK.sum(0), 1)
    targets_NK, weights_NK = np.where(known_NK, truth_NK, 0.0), known_NK.astype(np.float64)
    mean_K, std_K = np.zeros(truth_NK.shape[1]), np.ones(truth_NK.shape[1])
    if task == "regression":
        mean_K = np.where(known_NK.any(0), targets_NK.sum(0) / count_K, np.nan)
        std_K = np.sqrt((np.where(known_NK, truth_NK - mean_K, 0.0) ** 2).sum(0) / count_K)
        std_K = np.where(std_K == 0.0, 1.0, std_K)
        targets_NK = np.where(known_NK, (truth_NK - mean_K) / std_K, 0.0)
    elif balanced:
        rate_K = targets_NK.sum(0) / count_K
        share_NK = np.where(targets_NK == 1.0, rate_K, 1.0 - rate_K)
        classes = 2 if task == "multilabel" else int((rate_K > 0).sum())
        share_NK = share_NK if task == "multilabel" else np.broadcast_to(rate_K, truth_NK.shape)
        weights_NK = np.divide(weights_NK, classes * share_NK, out=np.zeros_like(weights_NK), where=share_NK > 0)
    return targets_NK.astype(np.float32), weights_NK.astype(np.float32), mean_K, std_K


@torch.no_grad()
def _outputs(module: nn.Module, tokens: Tokens, rows_N: Rows, how: Training) -> Array:
    """[N, K] of a probe or [S, N, K] of several."""
    device, size, found = how.ranks.device, how.config.batch_size, []
    module.to(device)
    for start in range(0, len(rows_N), size):
        tokens_BLD, keep_BL = tokens.batch(rows_N[start : start + size])
        with how.precision:
            outputs = module(tokens_BLD.to(device).float(), None if keep_BL is None else keep_BL.to(device))
        found.append(outputs.double().cpu())
    together: Array = torch.cat(found, -2).numpy()
    return together


def _in_units(outputs: Array, mean_K: Array, std_K: Array, task: Task) -> Array:
    if task == "regression":
        return outputs * std_K + mean_K
    found: Array = expit(outputs) if task == "multilabel" else softmax(outputs, axis=-1)
    return found


class Pace:
    """Tells a bar of each epoch's loss, records per second and share of the time spent reading tokens."""

    def __init__(self, bar: Bar | None, records: int) -> None:
        self._bar, self._records = bar, records
        self._epoch = 0
        self._begin()

    def _begin(self) -> None:
        self._begun = self._asked = time.perf_counter()
        self._done, self._waited = 0, 0.0

    def read(self) -> None:
        """Tokens have come."""
        self._waited += time.perf_counter() - self._asked

    def step(self, records: int, losses_S: Tensor) -> None:
        """A step is done; the loss that is shown is the best probe's at the end of the epoch."""
        if self._bar is None:
            return
        self._done += records
        self._bar.advance()
        if self._done == self._records:
            taken = time.perf_counter() - self._begun
            loss = float(losses_S.detach().nan_to_num(torch.inf).min())
            self._bar.show(self._epoch, loss, self._done / taken, self._waited / taken)
            self._epoch += 1
            self._begin()
        self._asked = time.perf_counter()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
