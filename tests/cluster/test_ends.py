"""Of what ranks leave when they end, the first cause is found, and echoes of it are not taken for it."""

import json
import signal
import time

import pytest

from src.cluster.ends import FAILED, HUNG, LOST, STOPPED, decide, known_ends, later_attempts, leave_word
from src.run.failure import STACKS_HEADER


def verdict(folder, ranks=4):
    return decide(known_ends(folder), folder, ranks)


def failure(folder, rank, message, by_user, again=False):
    told = {"rank": rank, "time": time.time(), "message": message, "by_user": by_user, "trace": "", "again": again}
    (folder / f"rank-{rank}.json").write_text(json.dumps(told))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
def test_ranks_that_saved_or_died_of_a_stop_were_stopped(tmp_path, number):
    leave_word(tmp_path, 1, 128 + number)
    leave_word(tmp_path, 0, -number)
    assert verdict(tmp_path) == (STOPPED, number.name)


def test_a_rank_that_was_killed_is_the_cause_of_what_the_others_say(tmp_path):
    """Tasks look every 0.1 s and clocks of nodes differ: the echo's word may be the earlier one."""
    failure(tmp_path, 0, "Connection closed by peer", by_user=False)
    leave_word(tmp_path, 0, 1)
    leave_word(tmp_path, 3, -signal.SIGKILL)
    outcome, why = verdict(tmp_path)
    assert outcome == FAILED and "rank 3 was killed by SIGKILL (often: out of memory)" in why


def test_a_rank_that_its_own_task_had_to_kill_is_an_echo(tmp_path):
    failure(tmp_path, 1, "the third step went wrong", by_user=False)
    leave_word(tmp_path, 1, 1)
    leave_word(tmp_path, 0, -signal.SIGKILL, echo=True)
    assert verdict(tmp_path, ranks=2) == (FAILED, "rank 1: the third step went wrong")


def test_ranks_without_a_word_are_on_a_node_that_is_gone(tmp_path):
    failure(tmp_path, 0, "Connection closed by peer", by_user=False)
    leave_word(tmp_path, 0, 1)
    assert verdict(tmp_path, ranks=3) == (LOST, "no word of rank 1, 2: its node is gone")


def test_a_stop_is_the_cause_of_the_errors_that_follow_it(tmp_path):
    """Whichever word is the earlier one."""
    failure(tmp_path, 0, "Connection closed by peer", by_user=False)
    leave_word(tmp_path, 0, 1)
    leave_word(tmp_path, 2, -signal.SIGUSR1)
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


def test_the_attempts_that_came_later_are_those_of_the_same_job(tmp_path):
    for name in ("12-0", "12-2", "12-10", "121-5", "12-2.old"):
        (tmp_path / "failures" / name).mkdir(parents=True)
    assert later_attempts(tmp_path, "12", 0) == [2, 10]
    assert later_attempts(tmp_path, "12", 10) == [] and later_attempts(tmp_path / "none", "12", 0) == []


def test_an_error_is_told_with_its_rank(tmp_path):
    failure(tmp_path, 1, "the third step went wrong", by_user=False)
    leave_word(tmp_path, 1, 1)
    leave_word(tmp_path, 0, 1)
    assert verdict(tmp_path, ranks=2) == (FAILED, "rank 1: the third step went wrong")


def test_ranks_that_did_not_come_together_may_do_so_the_next_time(tmp_path):
    for rank in range(2):
        failure(tmp_path, rank, "rank 2 did not come", by_user=True, again=True)
        leave_word(tmp_path, rank, 1)
    assert verdict(tmp_path, ranks=3) == (LOST, "rank 2 did not come")
    leave_word(tmp_path, 2, -signal.SIGKILL)
    assert verdict(tmp_path, ranks=3)[0] == FAILED, "it was killed: the same would happen again"
