"""What samples say, and how many of a batch say the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import load_config
from src.distributed.ranks import Ranks
from src.run.run import Run
from ssls.meclip.config import LossConfig
from ssls.meclip.model import IDS
from ssls.meclip.reports import RATE, DuplicateWatch, known_labels
from ssls.objectives import schema_of

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "meclip" / "ecg_debug.yaml"


@pytest.fixture
def run(tmp_path):
    """A run that trains nothing; what it says is kept in `said`."""
    config = load_config(CONFIG, [f"logging.folder={tmp_path / 'run'}"], schema_of)
    found = Run(config, Ranks(0, 1, torch.device("cpu")), check=True)
    found.said = []
    found.say = found.said.append
    return found


def batch_of(ids, has_text=None):
    keep = torch.ones(len(ids), dtype=torch.bool) if has_text is None else torch.tensor(has_text, dtype=torch.bool)
    return {IDS: torch.tensor(ids), "has_text": keep}


def test_a_batch_that_says_one_thing_is_told_once_and_two_pairs_are_not(run):
    watch = DuplicateWatch(LossConfig(duplicates="exclude"), run)
    assert watch(0, [batch_of([5, 5]), batch_of([7, 7])]) == {RATE: 1.0} and not run.said
    assert watch(1, [batch_of([5, 5, 7], [True, True, False]), batch_of([5])]) == {RATE: 1.0}
    assert watch(2, [batch_of([5, 5])]) == {RATE: 1.0}
    (told,) = run.said
    assert told.startswith("warning: step 1: all reports of the batch say the same, so that its loss is 0 (exclude)")


def test_ids_of_a_batch_without_any_report_are_no_kind(run):
    watch = DuplicateWatch(LossConfig(), run)
    assert watch(0, [batch_of([3, 4], [False, False])]) == {RATE: 0.0}
    assert not watch._all_alike(torch.zeros(0, dtype=torch.int64))
    assert not watch._all_alike(torch.zeros(0, 4, dtype=torch.bool))
    assert watch._all_alike(torch.ones(3, 4, dtype=torch.bool))


def test_labels_that_are_unknown_are_refused():
    known = {"key": "a", "labels": np.array([0.0, 1.0], np.float32)}
    assert known_labels(known) is known["labels"]
    with pytest.raises(ValueError, match="sample b has labels that are unknown, and loss.ids is labels"):
        known_labels({"key": "b", "labels": np.array([0.0, np.nan], np.float32)})
