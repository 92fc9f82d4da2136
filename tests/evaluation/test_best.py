"""The best score and patience: rules, and that a state goes on where it stood."""

import json
import math

import pytest

from src.evaluation.best import Best

SCORES = [0.5, 0.6, 0.6, math.nan, 0.605, 0.61, 0.59, 0.7, 0.7, 0.65, 0.66]


def followed(best, scores, start=0):
    """The steps of the best and whether it has ended, after each score."""
    told = []
    for place, score in enumerate(scores, start):
        best.update(score, 10 * (place + 1))
        told.append((best.step, best.ended))
    return told


def test_the_best_is_the_first_of_the_highest():
    steps = [step for step, _ in followed(Best(higher=True, of="auroc"), SCORES)]
    assert steps == [10, 20, 20, 20, 50, 60, 60, 80, 80, 80, 80]


def test_of_a_loss_it_is_the_lowest():
    assert [step for step, _ in followed(Best(higher=False, of="loss"), [2.0, 1.0, 1.5, 1.0, 0.5])] == [
        10,
        20,
        20,
        20,
        50,
    ]


def test_patience_ends_after_so_many_without_progress():
    ends = [ended for _, ended in followed(Best(higher=True, of="auroc", patience=3), SCORES)]
    assert ends == [False] * 10 + [True]
    slow = [ended for _, ended in followed(Best(higher=True, of="auroc", patience=3, min_delta=0.05), SCORES)]
    assert slow.index(True) == 4, "0.605 is the best, and no progress over 0.6"


def test_creeping_progress_is_counted_from_where_patience_began():
    """Each of these is less than min_delta better than the last, and all together are progress."""
    creeping = [0.5 + 0.04 * n for n in range(8)]
    assert not any(ended for _, ended in followed(Best(higher=True, of="auroc", patience=2, min_delta=0.05), creeping))


def test_nothing_but_nan_has_no_best_and_ends():
    told = followed(Best(higher=True, of="auroc", patience=2), [math.nan] * 2)
    assert told == [(None, False), (None, True)]


@pytest.mark.parametrize("cut", range(len(SCORES)))
def test_a_state_through_json_goes_on_as_if_nothing_had_been(cut):
    whole = followed(Best(higher=True, of="auroc", patience=3, min_delta=0.02), SCORES)
    first = Best(higher=True, of="auroc", patience=3, min_delta=0.02)
    before = followed(first, SCORES[:cut])
    second = Best(higher=True, of="auroc", patience=3, min_delta=0.02)
    second.load(json.loads(json.dumps(first.state())))
    assert before + followed(second, SCORES[cut:], cut) == whole


def test_a_state_of_another_score_is_refused():
    followed(first := Best(higher=False, of="cross_entropy on val"), [0.3, 0.2])
    with pytest.raises(ValueError, match="by cross_entropy on val, which auroc on val can't be compared with"):
        Best(higher=True, of="auroc on val").load(first.state())
