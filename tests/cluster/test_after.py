"""A job whose tasks could not tell what became of them goes back into the queue; no other does."""

import json
import os
import signal
import subprocess
import sys

import pytest

from src.cluster.after import UNTOLD
from src.cluster.ends import BEGUN, ENDS, FAILED, FINISHED, STOPPED, failures_of, leave_word, tell_verdict
from src.cluster.requeue import REQUEUES
from tests.cluster.calls import path_without_slurm
from tests.commands import ROOT

SCONTROL = """
[ $1 = requeue ] && echo "$2" >> {folder}/requeued && exit 0
echo 'JobId=7 JobState={state} Restarts={restarts} EndTime=Unknown'
"""


@pytest.fixture
def submission(tmp_path):
    folder = tmp_path / "run" / "submissions" / "0001"
    (failures_of(folder, "12_3", 1) / ENDS).mkdir(parents=True)
    (failures_of(folder, "12_3", 1) / BEGUN).write_text("10")
    return folder


def after(tmp_path, submission, code, state="RUNNING", restarts=1, retries=0):
    """The exit code, whether the job was put back, and what was said."""
    path = path_without_slurm(tmp_path, scontrol=SCONTROL.format(folder=tmp_path, state=state, restarts=restarts))
    known = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "1"}
    words = [sys.executable, "-m", "src.cluster.after", str(submission), str(retries), str(code)]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | known | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    requeued = (tmp_path / "requeued").read_text().split() if (tmp_path / "requeued").exists() else []
    assert requeued in ([], ["12_3"])
    return done.returncode, bool(requeued), done.stdout + done.stderr


@pytest.mark.parametrize("code", [137, 1, 0])
def test_tasks_that_told_nothing_are_started_again_and_counted(tmp_path, submission, code):
    (tmp_path / "run" / "checkpoints" / "step-00000020.attempt-2").mkdir(parents=True)
    assert after(tmp_path, submission, code)[1]
    (line,) = (submission / REQUEUES).read_text().splitlines()
    told = json.loads(line)
    assert (told["outcome"], told["why"], told["begun"], told["reached"]) == ("lost", UNTOLD, 10, 20)


def test_tasks_that_are_ended_in_vain_more_often_than_retries_allow_fail_the_job(tmp_path, submission):
    ended, back, told = after(tmp_path, submission, 0)
    assert ended == 1 and not back and f"the last time: {UNTOLD}" in told


def test_a_word_that_was_not_followed_by_a_requeue_is_followed_now(tmp_path, submission):
    tell_verdict(failures_of(submission, "12_3", 1), STOPPED, "SIGTERM")
    assert after(tmp_path, submission, 137, retries=1)[1]
    assert json.loads((submission / REQUEUES).read_text())["outcome"] == STOPPED
    (tmp_path / "requeued").unlink()
    assert after(tmp_path, submission, 137, retries=1)[1]
    assert len((submission / REQUEUES).read_text().splitlines()) == 1, "counted once"


@pytest.mark.parametrize("code", [126, 127])
def test_tasks_for_which_there_was_no_program_fail_at_once(tmp_path, submission, code):
    assert after(tmp_path, submission, code, retries=5) == (0, False, "")


def test_what_cannot_be_written_down_fails_the_job_with_a_sentence(tmp_path, submission):
    (submission / REQUEUES).mkdir()
    ended, back, told = after(tmp_path, submission, 0, retries=5)
    assert ended == 1 and not back and "error: " in told and REQUEUES in told


@pytest.mark.parametrize(("outcome", "code"), [(FINISHED, 0), (FAILED, 1), (FAILED, 137)])
def test_a_job_that_has_finished_or_failed_is_left_alone(tmp_path, submission, outcome, code):
    tell_verdict(failures_of(submission, "12_3", 1), outcome, "")
    assert after(tmp_path, submission, code, retries=5) == (0, False, "")


def test_a_rank_that_ends_badly_when_the_first_has_finished_fails_its_job(tmp_path, submission):
    failures = failures_of(submission, "12_3", 1)
    tell_verdict(failures, FINISHED, "")
    assert after(tmp_path, submission, 137, retries=1)[1], "its tasks were killed on their way out"
    (tmp_path / "requeued").unlink()
    leave_word(failures / ENDS, 1, -signal.SIGSEGV)
    assert after(tmp_path, submission, 1, retries=5) == (0, False, "")


@pytest.mark.parametrize(("state", "restarts"), [("CANCELLED", 1), ("RUNNING", 2), ("PENDING", 1)])
def test_a_job_that_was_cancelled_or_is_in_the_queue_already_stays_so(tmp_path, submission, state, restarts):
    assert after(tmp_path, submission, 137, state, restarts, retries=5) == (1, False, "")
    assert not (submission / REQUEUES).exists()
