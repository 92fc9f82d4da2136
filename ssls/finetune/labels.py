"""What a fine-tuning learns and is judged by: the target, the records of each split, the weights of its classes."""

# N records, K labels or classes

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.inputs import shards_for
from src.data.shards import Shards
from src.distributed.ranks import broadcast_object
from src.evaluation.targets import Cases, Target, on_other_splits, read_cases, refuse_shared_patients, target_of
from src.run.training import TrainingRun
from src.transforms.plain import AnyPreprocessing
from ssls.finetune.config import Config, LossConfig
from ssls.finetune.model import Task


class Labels(NamedTuple):
    """The task, and the records with which it is judged."""

    target: Target
    task: Task
    weights_K: Tensor | None
    """Of positives or classes."""
    validation: Cases | None
    tests: dict[str, Cases]


def read_labels(config: Config, run: TrainingRun, shards: Shards, preprocessing: AnyPreprocessing) -> Labels:
    """The target as the training records have it, and the cases of the other splits.

    Training records are read by rank 0 alone, where there is something to count or to compare.

    Raises:
        ValueError: they do not fit: no such label, numbers to be classified, patients in two splits.
    """
    target = broadcast_object(target_of(shards, config.target) if run.ranks.first else None)
    task = task_of(target)
    refuse_what_does_not_fit(config.loss, target)
    evaluation, data = config.evaluation, config.data
    columns = tuple(config.scores.groups)
    validation = None
    if evaluation.every is not None:
        validation = read_cases(shards_for(preprocessing, data.root, evaluation.split, data.cache), target, ())
    tests = {
        name: read_cases(shards_for(preprocessing, test.root or data.root, test.split, data.cache), target, columns)
        for name, test in config.tests.items()
    }
    if validation is not None:
        refuse_shared_patients([validation], on_other_splits(validation, tests), "tests")
    for column in config.scores.groups:
        if tests and all(value is None for cases in tests.values() for value in cases.columns[column]):
            raise ValueError(f"scores.groups: no test record has {column} in its json; name another column")
    counted = config.loss.weights == "balanced"
    weights_K = None
    if run.ranks.first and (tests or counted):
        train = read_cases(shards, target, ())
        refuse_shared_patients([train], tests, "tests")
        weights_K = balanced_weights(task, train.truth_NK, config.loss.weight_clip) if counted else None
    if counted:
        weights_K = broadcast_object(weights_K)
    elif not isinstance(config.loss.weights, str):
        weights_K = np.array(config.loss.weights)
    weights = None if weights_K is None else torch.tensor(weights_K, dtype=torch.float32)
    return Labels(target, task, weights, validation, tests)


def task_of(target: Target) -> Task:
    """Labels or classes.

    Raises:
        ValueError: neither.
    """
    if target.task == "regression":
        raise ValueError(
            f"target.column: {target.column} holds numbers, and fine-tuning is for labels and classes: set target.task "
            "to multiclass, or use a probe"
        )
    return target.task


def refuse_what_does_not_fit(loss: LossConfig, target: Target) -> None:
    """
    Raises:
        ValueError: a loss for labels where there are classes, or weights of other labels.
    """
    if loss.focal is not None and target.task == "multiclass":
        raise ValueError("loss.focal is for labels, and the target has classes: leave it out")
    if not isinstance(loss.weights, str) and len(loss.weights) != len(target.names):
        raise ValueError(
            f"loss.weights has {len(loss.weights)} numbers, but there are {len(target.names)} labels: "
            f"{', '.join(target.names[:8])}{' ...' if len(target.names) > 8 else ''}"
        )


def balanced_weights(task: Task, truth_NK: NDArray[np.floating], clip: float) -> NDArray[np.float64]:
    """Of labels negatives / positives, of classes records / (K x records of the class), [K], over what is known.

    Within 1 / clip and clip; 1 where nothing is known.
    """
    known_K, positives_K = (~np.isnan(truth_NK)).sum(0).astype(np.float64), (truth_NK == 1).sum(0)
    many_K = known_K - positives_K if task == "multilabel" else known_K / truth_NK.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights_K = np.clip(many_K / positives_K, 1 / clip, clip)
    return np.where(known_K == 0, 1.0, weights_K)
