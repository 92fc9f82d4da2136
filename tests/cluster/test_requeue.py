"""Attempts that bring nothing are counted, and the last of them ends the job."""

import time

import pytest

from src.cluster.ends import HUNG, STOPPED
from src.cluster.requeue import Ended, ended_attempts, newest_step, record


def ended(restart, begun, reached, outcome=STOPPED, job="7"):
    return Ended(job, restart, outcome, "SIGUSR2", begun, reached, time.time())


def test_attempts_that_get_further_are_not_counted(tmp_path):
    for restart in range(20):
        record(tmp_path, ended(restart, restart, restart + 1), retries=0)
    assert len(ended_attempts(tmp_path, "7")) == 20


@pytest.mark.parametrize("outcome", [STOPPED, HUNG])
def test_attempts_for_nothing_end_the_job_after_retries(tmp_path, outcome):
    reached = 9 if outcome == HUNG else 5  # one that hung may have got further: its cause is still there
    for restart in range(2):
        record(tmp_path, ended(restart, 5, reached, outcome), retries=2)
    record(tmp_path, ended(2, 5, 6), retries=2)
    with pytest.raises(ValueError, match=r"3 times.*--retries 2.*submit\.sh"):
        record(tmp_path, ended(3, 5, reached, outcome), retries=2)


def test_another_job_counts_for_itself(tmp_path):
    record(tmp_path, ended(0, 5, 5, job="6"), retries=1)
    record(tmp_path, ended(0, 5, 5, job="7_1"), retries=1)
    assert [attempt.job for attempt in ended_attempts(tmp_path, "7_1")] == ["7_1"]


def test_the_newest_step_is_that_of_the_newest_checkpoint(tmp_path):
    assert newest_step(tmp_path / "none") == 0
    for name in ("step-00000012.attempt-1", "step-00000008.attempt-2", "step-00000016.attempt-2.partial"):
        (tmp_path / name).mkdir()
    assert newest_step(tmp_path) == 12
