"""When a collapse is told, and when there is nothing to tell."""

import math

import pytest

from src.evaluation.alarm import alarms

HEALTHY = {
    "rankme": 20.0,
    "random_init/rankme": 20.0,
    "probe_auroc": 0.8,
    "random_init/probe_auroc": 0.8,
    "mean_loss": 0.2,
    "random_init/mean_loss": 0.2,
}
REASONS = {"rankme": "effective rank", "probe_auroc": "the probe's AUROC", "mean_loss": "predicting the mean"}
LIMITS = {"rankme": 10.0, "probe_auroc": 0.65, "mean_loss": 0.1}
"""Half of the random encoder's; of an AUROC half of its distance from 0.5."""
WORSE = {"probe_auroc": 0.79}
"""A probe that is worse than the random encoder's, as it must be for the loss of the mean to count."""


def told(share=0.5, advice="", **changes):
    found = alarms(HEALTHY | changes, share, advice)
    assert len(found) <= 1
    return found[0] if found else ""


def test_a_healthy_representation_gives_no_alarm():
    assert alarms(HEALTHY, 0.5, "do it") == [] == alarms(HEALTHY, 1.0, "do it")


@pytest.mark.parametrize("name", LIMITS)
def test_below_the_share_is_told_and_the_share_itself_is_not(name):
    limit = LIMITS[name] if name != "probe_auroc" else LIMITS[name] + 1e-12
    assert told(**WORSE | {name: limit}) == ""
    sentence = told(**WORSE | {name: LIMITS[name] * 0.999})
    assert REASONS[name] in sentence and not any(REASONS[other] in sentence for other in REASONS if other != name)
    assert "50%" in sentence and "the random encoder's" in sentence


@pytest.mark.parametrize("name", LIMITS)
def test_a_measure_that_is_not_a_number_is_told(name):
    assert REASONS[name] in told(**WORSE | {name: math.nan})


def test_the_loss_of_the_mean_tells_nothing_while_the_probe_is_as_good_as_the_random_encoders():
    assert told(mean_loss=0.01) == "" == told(mean_loss=0.01, probe_auroc=0.9)
    assert REASONS["mean_loss"] in told(mean_loss=0.01, **WORSE)


@pytest.mark.parametrize("random", [None, 0.52])
def test_without_a_probe_the_loss_of_the_mean_tells_from_half_the_share_on(random):
    probe = {"random_init/probe_auroc": random}
    assert told(mean_loss=0.05, **probe) == ""
    assert "below 25%" in told(mean_loss=0.0499, **probe)


@pytest.mark.parametrize("random", [0.5, 0.549, 0.3, math.nan, None])
def test_a_probe_tells_nothing_where_the_random_encoder_is_near_chance(random):
    assert told(**{"probe_auroc": 0.4, "random_init/probe_auroc": random}) == ""


def test_a_probe_tells_where_the_random_encoder_is_above_chance():
    assert "is 0.500" in told(**{"probe_auroc": 0.5, "random_init/probe_auroc": 0.56})


@pytest.mark.parametrize("name", LIMITS)
def test_a_measure_that_is_absent_tells_nothing(name):
    record = {key: value for key, value in HEALTHY.items() if not key.endswith(name)}
    assert alarms(record, 1.0, "") == []
    assert alarms({}, 0.5, "") == []


def test_one_sentence_has_all_reasons_the_numbers_and_the_advice_last():
    sentence = told(advice="lower the rate", rankme=1.0, probe_auroc=0.51, mean_loss=0.001)
    assert all(reason in sentence for reason in REASONS.values())
    assert all(number in sentence for number in ("1.0", "20.0", "0.510", "0.800", "0.0010", "0.2000"))
    assert sentence.startswith("the representation is collapsing: ") and sentence.endswith("; lower the rate")
    assert not told(rankme=1.0).endswith("; ")


def test_a_share_of_zero_tells_of_nothing_but_what_is_no_number_or_below_chance():
    assert told(share=0.0, rankme=0.0, mean_loss=0.0, probe_auroc=0.5) == ""
    assert told(share=0.0, mean_loss=math.nan, **WORSE)
    assert told(share=0.0, probe_auroc=0.49) and told(share=0.0, rankme=math.nan)
