"""What srun tells a task makes it a rank; the same on every node, and nothing that somebody else has said is lost."""

import os
import subprocess
import sys

import pytest

from src.distributed.slurm import PORTS, adopt_slurm, hosts, port, tasks_of_nodes
from tests.commands import LAUNCH_VARIABLES, ROOT, audit, metrics, same_tensors, succeed

STEP = {
    "SLURM_JOB_ID": "41",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NODELIST": "localhost,elsewhere[1-2]",
    "SLURM_PROCID": "4",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_CPUS_ON_NODE": "1",
}


@pytest.mark.parametrize(
    ("names", "expanded"),
    [
        ("a", "a"),
        ("a,b-1.c", "a b-1.c"),
        ("a[1-3,07],b", "a1 a2 a3 a07 b"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("r[1-2]n[01-02]-ib,x3", "r1n01-ib r1n02-ib r2n01-ib r2n02-ib x3"),
    ],
)
def test_host_lists(names, expanded):
    assert hosts(names) == expanded.split()


def test_tasks_of_nodes():
    assert tasks_of_nodes("2(x3),1") == [2, 2, 2, 1] and tasks_of_nodes("4") == [4]


def test_a_task_becomes_a_rank():
    environment = dict(STEP)
    adopt_slurm(environment)
    made = {name: value for name, value in environment.items() if name not in STEP}
    assert made.pop("MASTER_PORT") == str(port("41", "0", 0))
    assert made == {
        "RANK": "4",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "5",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MEDSSL_JOB": "41",
        "MEDSSL_RESTART": "0",
        "OMP_NUM_THREADS": "1",
    }


def test_what_is_set_stays():
    given = {"MASTER_ADDR": "there", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "7", "WORLD_SIZE": "5"}
    environment = STEP | given | {"SLURM_RESTART_COUNT": "2", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}
    adopt_slurm(environment)
    assert environment.items() >= given.items() and environment["RANK"] == "4"
    assert (environment["MEDSSL_JOB"], environment["MEDSSL_RESTART"]) == ("40_3", "2")


@pytest.mark.parametrize("change", [{"RANK": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}], ids=["torchrun", "one-task"])
def test_who_is_a_rank_already_or_alone_is_none_of_srun(change):
    environment = STEP | change
    adopt_slurm(environment)
    assert environment.get("RANK") == change.get("RANK") and "MASTER_ADDR" not in environment
    assert environment["MEDSSL_JOB"] == "41"


def test_a_batch_script_is_no_rank():
    """It has SLURM_PROCID and SLURM_NTASKS too, and nobody has started the others."""
    environment = {"SLURM_JOB_ID": "41", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
    adopt_slurm(environment)
    assert "RANK" not in environment


def test_who_launches_by_devices_is_no_rank():
    environment = dict(STEP)
    adopt_slurm(environment, launches=True)
    assert "RANK" not in environment and environment["MEDSSL_JOB"] == "41"


def test_outside_a_job_nothing_is_set():
    environment = {"SLURM_CONF": "x"}
    adopt_slurm(environment)
    assert environment == {"SLURM_CONF": "x"}


def test_another_world_size_is_refused():
    with pytest.raises(ValueError, match="WORLD_SIZE is 8, but srun has started 5 tasks"):
        adopt_slurm(STEP | {"WORLD_SIZE": "8"})


def test_a_port_is_another_one_after_each_restart():
    ports = [port("41", "0", restart) for restart in range(100)]
    assert len(set(ports)) == 100 and set(ports) <= set(PORTS)
    assert port("41", "1", 0) != ports[0] != port("42", "0", 0)


def test_a_first_host_without_an_address():
    nowhere = STEP | {"SLURM_STEP_NODELIST": "nowhere.invalid,localhost", "SLURM_STEP_TASKS_PER_NODE": "3,2"}
    nowhere |= {"SLURM_NODEID": "1"}
    with pytest.raises(ValueError, match=r"first host, nowhere\.invalid, leads to no address on .*: set MASTER_ADDR"):
        adopt_slurm(dict(nowhere))
    called_from = nowhere | {"SLURM_LAUNCH_NODE_IPADDR": "192.0.2.1"}
    adopt_slurm(called_from)
    assert called_from["MASTER_ADDR"] == "192.0.2.1"
    with pytest.raises(ValueError, match="set MASTER_ADDR"):  # rank 0 knows that it is not there
        adopt_slurm(nowhere | {"SLURM_LAUNCH_NODE_IPADDR": "192.0.2.1", "SLURM_PROCID": "0"})


@pytest.mark.distributed
@pytest.mark.parametrize("nodes", ["2", "1,1"], ids=["one-node", "two-nodes"])
def test_tasks_of_a_step_train_as_the_ranks_of_the_launcher(tmp_path, nodes):
    words = ["--fname", "configs/jepa/ecg_debug.yaml"]
    settings = ["--set", f"data.root={tmp_path / 'shards'}", "optimization.epochs=2", "evaluation.every=null"]
    succeed(*words, "--devices", "cpu", "cpu", *settings, f"logging.folder={tmp_path / 'ours'}")
    outside = {name: value for name, value in os.environ.items() if name not in LAUNCH_VARIABLES}
    tasks = []
    for number in range(2):
        place = (0, number) if nodes == "2" else (number, 0)
        step = STEP | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(number)}
        step |= {"SLURM_STEP_TASKS_PER_NODE": nodes, "SLURM_STEP_NODELIST": "localhost,elsewhere"}
        step |= {"SLURM_NODEID": str(place[0]), "SLURM_LOCALID": str(place[1])}
        command = [sys.executable, "main.py", *words, *settings, f"logging.folder={tmp_path / 'tasks'}"]
        tasks.append(subprocess.Popen(command, cwd=ROOT, env=outside | step, stderr=subprocess.PIPE, text=True))
    for task in tasks:
        assert (task.communicate(timeout=100)[1], task.returncode) == ("", 0)
    assert metrics(tmp_path / "tasks") == metrics(tmp_path / "ours")
    assert audit(tmp_path / "tasks") == audit(tmp_path / "ours")
    assert same_tensors(tmp_path / "tasks", tmp_path / "ours")
