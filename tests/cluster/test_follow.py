"""Waiting for jobs, with what SLURM says played from a file."""

from pathlib import Path

import pytest
from submitit import SlurmJob

from src.cluster.check import Checked
from src.cluster.follow import follow, last_error, last_record
from src.cluster.states import COLUMNS
from src.cluster.submission import Submission
from src.cluster.submit import Job
from src.cluster.wanted import Wanted
from src.config.load import load_config
from src.run.logs import Lines
from ssls.objectives import schema_of
from tests.cluster.calls import DEBUG, path_without_slurm

DEBUG_PATH = Path(DEBUG)

PLAY = """
n=$(cat {folder}/asked 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/asked
while ! [ -f {folder}/say.$n ]; do n=$((n - 1)); done
cat {folder}/say.$n
"""


def row(*cells):
    return "".join(cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=True)) + "\n"


@pytest.fixture
def job(tmp_path):
    config = load_config(DEBUG_PATH, [f"logging.folder={tmp_path}/run"], schema_of)
    submission = Submission(tmp_path / "run" / "submissions" / "0001", Checked(Wanted(DEBUG_PATH), config, 0))
    return Job(submission, SlurmJob(tmp_path / "logs", "12"))


@pytest.fixture
def play(tmp_path, monkeypatch):
    def script(*said):
        for number, text in enumerate(said):
            (tmp_path / f"say.{number}").write_text(text)
        monkeypatch.setenv("PATH", path_without_slurm(tmp_path, squeue=PLAY.format(folder=tmp_path)))

    return script


def test_a_job_is_followed_from_the_queue_through_a_requeue_to_its_end(job, play, capsys):
    play(
        row("12", "PENDING", "Resources", "0", ""),
        row("12", "RUNNING", "None", "0", "node[1-2]"),
        row("12", "PREEMPTED", "None", "0", "node[1-2]"),
        row("12", "PENDING", "BeginTime", "1", ""),
        row("12", "RUNNING", "None", "1", "node3"),
        row("12", "COMPLETED", "None", "1", "node3"),
    )
    assert follow([job], "slurm") == 0
    told = [line.split("): ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert told[:-1] == [
        "PENDING, Resources",
        "RUNNING on node[1-2]",
        "PREEMPTED",
        "PENDING, BeginTime, requeued 1 time",
        "RUNNING on node3, requeued 1 time",
        "COMPLETED, requeued 1 time",
    ]
    assert told[-1] == f"job 12: COMPLETED, requeued 1 time, run folder {job.folder}"


def test_a_job_that_will_not_start_is_said_to_be_one_and_a_failed_one_is_no_success(job, play, capsys):
    play(row("12", "PENDING", "PartitionDown", "0", ""), row("12", "CANCELLED", "None", "0", ""))
    assert follow([job], "slurm") == 1
    told = capsys.readouterr().out
    assert "it will not start by itself: the partition is down" in told
    assert "job 12: CANCELLED" in told.splitlines()[-2]


def test_the_last_record_of_a_log_that_grows_is_whole(tmp_path):
    assert last_record(tmp_path / "metrics.jsonl") is None
    lines = Lines(tmp_path / "metrics.jsonl")
    for step in range(3):
        lines.write({"step": step, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert last_record(tmp_path / "metrics.jsonl") == {"step": 2, "loss": 0.5}


def test_the_runs_own_error_goes_before_slurms(tmp_path):
    log = tmp_path / "log.err"
    assert last_error(log) == ""
    log.write_text("x\nerror: rank 1: it broke\nsrun: error: node1: task 0: Exited with exit code 1\n")
    assert last_error(log) == "error: rank 1: it broke"
    log.write_text("slurmstepd: error: Detected 1 oom-kill event\nx\n")
    assert "oom-kill" in last_error(log)
