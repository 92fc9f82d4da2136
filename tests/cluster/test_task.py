"""Tasks pass on what they are sent, and put their job back into the queue when its ranks have saved, and never else."""

import inspect
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from submitit.local.local import Controller

from src.cluster.ends import FAILED, told_verdict
from src.cluster.task import STARTS_HERE, Attempt, Task
from tests.commands import (
    alive,
    audit,
    descendants,
    logged,
    metrics,
    same_tensors,
    start,
    succeed,
    wait_until,
)

pytestmark = pytest.mark.distributed
SETTINGS = ["optimization.epochs=null", "optimization.steps=40", "checkpoint.every=100", "logging.every=1"]


def settings(folder, *more):
    return ["--set", f"logging.folder={folder}", f"data.root={folder.parent / 'shards'}", *SETTINGS, *more]


def launch(tmp_path, *more, flags=()):
    """A job of two tasks on this machine, waited for; its folder is tmp_path / job."""
    words = ["--cluster", "local", "--fname", "configs/jepa/ecg_debug.yaml", "--folder", str(tmp_path / "logs")]
    words += ["--tasks-per-node", "2", "--time", "10", "--wait", *flags]
    return start(*words, *settings(tmp_path / "job", *more), script="main_distributed.py")


def members(process, what):
    """The job's tasks or its ranks, in the order of their numbers."""
    words = {"task": "submitit.core._submit", "rank": "main.py --fname"}[what]
    variable = {"task": "SUBMITIT_LOCAL_GLOBALID", "rank": "RANK"}[what]
    found = [member for member in descendants(process.pid) if words in " ".join(member.cmdline())]
    return sorted(found, key=lambda member: int(member.environ()[variable]))


def ended(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out + err


def logs(tmp_path):
    return "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("*_log.*")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    succeed("--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "cpu", *settings(folder))
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("who", "number"), [("task", signal.SIGHUP), ("rank", signal.SIGUSR1)])
def test_a_signal_to_any_process_saves_and_the_job_goes_on_by_itself(undisturbed, tmp_path, who, number):
    process = launch(tmp_path)
    wait_until(lambda: logged(tmp_path / "job") > 5, 120, "training")
    os.kill(members(process, who)[1].pid, number)
    code, told = ended(process)
    assert code == 0, told + logs(tmp_path)
    assert metrics(tmp_path / "job") == metrics(undisturbed) and audit(tmp_path / "job") == audit(undisturbed)
    assert same_tensors(tmp_path / "job", undisturbed)
    (attempt,) = [
        json.loads(line) for line in (tmp_path / "job/submissions/0001/requeues.jsonl").read_text().splitlines()
    ]
    assert attempt["outcome"] == "stopped" and attempt["why"] == number.name and attempt["begun"] == 0
    starts = [json.loads(path.read_text())["start"] for path in sorted((tmp_path / "job/attempts").iterdir())]
    assert starts == [0, attempt["reached"]] and attempt["reached"] > 5


@pytest.mark.timeout(600)
def test_a_rank_that_is_killed_fails_the_job_with_its_name_and_nothing_stays(tmp_path):
    process = launch(tmp_path, "optimization.steps=100000")
    wait_until(lambda: logged(tmp_path / "job") > 2, 120, "training")
    everyone = descendants(process.pid)
    begun = time.monotonic()
    members(process, "rank")[1].kill()
    code, told = ended(process)
    assert code == 1 and time.monotonic() - begun < 60, told
    assert "rank 1 was killed by SIGKILL (often: out of memory)" in logs(tmp_path)
    assert not (tmp_path / "job/submissions/0001/requeues.jsonl").exists()
    wait_until(lambda: not alive(everyone), 10, "processes left")


@pytest.mark.timeout(600)
def test_a_mistake_is_one_sentence_and_is_not_tried_again(tmp_path):
    one = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu"]
    succeed(*one, *settings(tmp_path / "first", "optimization.steps=4"))
    for tar in (tmp_path / "shards").glob("train*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    code, told = ended(launch(tmp_path))
    assert code == 1, told
    errors = [line for line in logs(tmp_path).splitlines() if line.startswith("error: ")]
    assert errors and len(set(errors)) == 1 and "damaged" in errors[0], logs(tmp_path)
    assert "Traceback" not in logs(tmp_path).split("submitit ERROR")[0]
    assert len(list((tmp_path / "job/attempts").glob("*.json"))) <= 1


def test_a_task_that_cannot_go_on_says_so_for_all(tmp_path, monkeypatch):
    """What has no word of its tasks is taken for lost, and would be tried again."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    place = SimpleNamespace(job_id="12", global_rank=1, num_tasks=2, cluster="slurm")
    task = Task(tmp_path / "run/submissions/0001", tmp_path, tmp_path / "config.yaml", tmp_path, 3)
    attempt = Attempt(task, place, None)
    attempt.give_up("task 1: OSError: no space left")
    assert told_verdict(attempt.failures) == (FAILED, "task 1: OSError: no space left")
    attempt.give_up("task 1: an echo")
    assert told_verdict(attempt.failures) == (FAILED, "task 1: OSError: no space left")


@pytest.mark.parametrize("work", ["raise SystemExit(1)", "import time\ntime.sleep(600)"], ids=["ended", "hangs"])
@pytest.mark.parametrize("late", [0.0, 2.0], ids=["found", "comes"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_whose_node_was_given_up_ends_when_the_job_goes_on_elsewhere(
    tmp_path, monkeypatch, capsys, rank, late, work
):
    """SLURM ends only what it knows of, and a lost node's tasks would wait for that; no word of theirs counts.

    Its rank may have seen a connection break, or wait for ever for one that is gone.
    """
    monkeypatch.setattr("src.cluster.task.give_back", lambda *_: None)  # there is no slurmctld to refuse it
    for seconds in ("WORD_SECONDS", "LOOK_SECONDS", "SELDOM_SECONDS"):
        monkeypatch.setattr(f"src.cluster.task.{seconds}", 1.0)
    (tmp_path / "main.py").write_text(work)
    place = SimpleNamespace(job_id="12", global_rank=rank, local_rank=0, num_tasks=2, num_nodes=2, cluster="slurm")
    task = Task(tmp_path / "run/submissions/0001", tmp_path, tmp_path / "config.yaml", tmp_path, 3)
    attempt = Attempt(task, place, SimpleNamespace(pass_on_to=lambda _: None, received=[]))
    successor = threading.Timer(late, (task.submission / "failures/12-1").mkdir)
    successor.start()
    successor.join(None if late == 0.0 else 0.0)
    with pytest.raises(SystemExit):
        attempt.run()
    assert "job 12 goes on elsewhere, as its attempt 1" in capsys.readouterr().out
    assert late or not list(attempt.words.iterdir())


def test_the_starts_of_a_job_on_this_machine_are_those_that_submitit_allows():
    assert inspect.signature(Controller.run).parameters["max_retry"].default == STARTS_HERE
