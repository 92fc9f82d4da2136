"""What SLURM says, in its own words: recorded from slurm-wlm 22.05.8 with and without accounting."""

import pytest

from src.cluster.states import COLUMNS, State, ask_states, read_sacct, read_scontrol, read_squeue
from tests.cluster.calls import path_without_slurm

ROWS = [
    ("4", "CANCELLED", "None", "0", "node2"),
    ("2_0", "COMPLETED", "None", "0", "node1"),
    ("3", "FAILED", "NonZeroExitCode", "0", "node1"),
    ("2_4", "PENDING", "JobArrayTaskLimit", "0", ""),
    ("7", "PENDING", "PartitionDown", "0", ""),
    ("8", "PENDING", "BeginTime", "1", ""),
    ("1", "RUNNING", "None", "1", "node[1-2]"),
]
SQUEUE = "".join(
    "".join(cell.ljust(width) for cell, width in zip(row, COLUMNS.values(), strict=True)) + "\n" for row in ROWS
)
SACCT = """2_0|COMPLETED|node1
2_[2-4%2]|PENDING|None assigned
3|FAILED|node1
4|CANCELLED by 0|node2
1|RUNNING|node[1-2]
"""
SCONTROL = (
    "JobId=7 ArrayJobId=2 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=j.sh UserId=root(0) Priority=4294901758 Nice=0 "
    "JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 Restarts=2 NodeList=node1 BatchHost=node1 \n"
    "JobId=2 ArrayJobId=2 ArrayTaskId=2-3%2 ArrayTaskThrottle=2 JobName=arr JobState=PENDING Reason=JobArrayTaskLimit "
    "Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 ReqNodeList=(null) NodeList= NumNodes=1 \n"
)


def test_squeue_tells_states_reasons_nodes_and_requeues():
    found = dict(read_squeue(SQUEUE))
    assert found["1"] == State("RUNNING", "None", 1, "node[1-2]")
    assert found["2_4"] == State("PENDING", "JobArrayTaskLimit")
    assert [str(found[job]) for job in ("1", "2_0", "3", "8")] == [
        "RUNNING on node[1-2], requeued 1 time",
        "COMPLETED",
        "FAILED, NonZeroExitCode",
        "PENDING, BeginTime, requeued 1 time",
    ]
    assert {job for job, state in found.items() if state.ended} == {"4", "2_0", "3"}


def test_a_job_that_never_starts_is_told_apart_from_one_that_waits():
    found = dict(read_squeue(SQUEUE))
    assert found["7"].never == "the partition is down"
    assert not found["2_4"].never and not found["8"].never and not found["1"].never
    assert State("PENDING", "ReqNodeNotAvail, UnavailableNodes:node3").never
    assert State("PENDING", "AssocMaxWallDurationPerJobLimit").never


def test_sacct_tells_of_what_squeue_has_forgotten():
    found = dict(read_sacct(SACCT))
    assert found["4"].name == "CANCELLED" and found["1"].nodes == "node[1-2]"
    assert [job for job, state in found.items() if state.name == "PENDING"] == ["2_2", "2_3", "2_4"]
    assert not found["2_2"].nodes


def test_scontrol_tells_of_tasks_of_an_array_by_their_place():
    found = dict(read_scontrol(SCONTROL))
    assert found["2_1"] == State("COMPLETED", "None", 2, "node1")
    assert found["2_2"] == found["2_3"] == State("PENDING", "JobArrayTaskLimit")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    def put(**commands):
        (tmp_path / "squeue.txt").write_text(SQUEUE)
        (tmp_path / "sacct.txt").write_text(SACCT)
        monkeypatch.setenv("PATH", path_without_slurm(tmp_path, **commands))

    return put


def test_who_knows_a_job_is_asked_in_turn(tmp_path, slurm):
    unknown = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    slurm(squeue=f"cat {tmp_path}/squeue.txt", sacct=f"cat {tmp_path}/sacct.txt", scontrol=unknown)
    found = ask_states(["1", "2_2", "9"])
    assert [found[job].name for job in ("1", "2_2", "9")] == ["RUNNING", "PENDING", "FORGOTTEN"]
    assert found["9"].ended


def test_a_cluster_that_does_not_answer_has_ended_nothing(tmp_path, slurm):
    slurm(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert ask_states(["1"]) == {}
