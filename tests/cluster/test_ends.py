"""Of what ranks leave when they end, the first cause is found, and echoes of it are not taken for it."""

import json
import signal
import time

import pytest

from src.cluster.ends import FAILED, HUNG, STOPPED, leave_word, verdict
from src.run.failure import STACKS_HEADER


def failure(folder, rank, message, by_user):
    told = {"rank": rank, "time": time.time(), "message": message, "by_user": by_user, "trace": ""}
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
def test_ranks_that_saved_or_died_of_a_stop_were_stopped(tmp_path, number):
    leave_word(tmp_path, 1, 128 + number)
    leave_word(tmp_path, 0, -number)
    assert verdict(tmp_path) == (STOPPED, number.name)


def test_the_first_end_is_the_cause(tmp_path):
    leave_word(tmp_path, 3, -signal.SIGKILL)
    leave_word(tmp_path, 0, 128 + signal.SIGTERM)
    outcome, why = verdict(tmp_path)
    assert outcome == FAILED and "rank 3 was killed by SIGKILL (often: out of memory)" in why


def test_a_stop_is_the_cause_of_the_errors_that_follow_it(tmp_path):
    leave_word(tmp_path, 2, -signal.SIGUSR1)
    failure(tmp_path, 0, "Connection closed by peer", by_user=False)
    leave_word(tmp_path, 0, 1)
    assert verdict(tmp_path) == (STOPPED, "SIGUSR1")


def test_a_mistake_of_the_user_is_the_cause_wherever_it_comes(tmp_path):
    leave_word(tmp_path, 2, -signal.SIGUSR1)
    failure(tmp_path, 1, "data.root: no such folder", by_user=True)
    leave_word(tmp_path, 1, 1)
    assert verdict(tmp_path) == (FAILED, "data.root: no such folder")


def test_a_rank_that_hung_is_the_cause_of_connections_that_break(tmp_path):
    failure(tmp_path, 0, "Connection closed by peer", by_user=False)
    leave_word(tmp_path, 0, 1)
    header = "in step 12: no sign of life for 3 s (engine.timeout)".ljust(STACKS_HEADER - 1) + "\n"
    (tmp_path / "rank-1.stacks").write_text(header + "Thread 0x1 (most recent call first):\n")
    leave_word(tmp_path, 1, 1)
    outcome, why = verdict(tmp_path)
    assert outcome == HUNG and "rank 1 in step 12" in why


def test_an_error_is_told_with_its_rank(tmp_path):
    failure(tmp_path, 1, "the third step went wrong", by_user=False)
    leave_word(tmp_path, 1, 1)
    assert verdict(tmp_path) == (FAILED, "rank 1: the third step went wrong")
    leave_word(tmp_path, 0, 1)
    assert verdict(tmp_path) == (FAILED, "rank 1: the third step went wrong")
