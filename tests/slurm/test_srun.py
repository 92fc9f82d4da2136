"""Plain `srun python main.py`, without main_distributed.py."""

import subprocess
import sys

import pytest

from src.distributed.slurm import hosts
from tests.slurm.jobs import same_run, words

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
STEPS = 40
SHORT = f"optimization.steps={STEPS}"


def test_four_tasks_on_two_nodes_train_as_four_local_ranks_do(cluster, undisturbed, shards, tmp_path):
    step = ["srun", "--nodes=2", "--ntasks=4", sys.executable, "main.py"]
    out = cluster.run(*step, *words(tmp_path, shards, SHORT), timeout=240)
    assert out.count(f"finished {STEPS} steps") == 1
    same_run(tmp_path, undisturbed(4, SHORT))


def test_one_task_is_the_local_launcher(cluster, undisturbed, shards, tmp_path):
    devices = ["--devices", "cpu", "cpu"]
    cluster.run("srun", sys.executable, "main.py", *words(tmp_path, shards, SHORT), *devices, timeout=240)
    same_run(tmp_path, undisturbed(2, SHORT))


def test_uneven_nodes_and_a_second_step_of_the_same_job_train(cluster, undisturbed, shards, tmp_path):
    """Each step meets at a port of its own."""
    steps = [
        " ".join(["srun", "--overlap", *flags, sys.executable, "main.py", *words(tmp_path / name, shards, SHORT), "&"])
        for name, flags in (("uneven", ["-N3", "-n4"]), ("second", ["-N2", "-n2"]))
    ]
    script = tmp_path / "job.sh"
    script.write_text("\n".join(["#!/bin/bash", *steps, "wait -n && wait -n"]))
    job = cluster.run("sbatch", "--parsable", "-N3", "-n8", f"--output={tmp_path}/%j.log", str(script)).strip()
    cluster.wait_for(job, "COMPLETED", 240)
    same_run(tmp_path / "uneven", undisturbed(4, SHORT))
    same_run(tmp_path / "second", undisturbed(2, SHORT))


@pytest.mark.parametrize("names", ["n[1-3,07],b", "a", "a[01-03]b[1-2],c-1", "gpu-[9-11]"])
def test_hosts_are_listed_as_slurm_lists_them(cluster, names):
    assert hosts(names) == cluster.run("scontrol", "show", "hostnames", names).split()


def test_srun_ended_by_a_mistake_tells_it_once(cluster, shards, tmp_path):
    done = cluster.attempt(
        "srun", "-N2", "-n2", sys.executable, "main.py", *words(tmp_path, shards, "optimization.stepss=3")
    )
    assert isinstance(done, subprocess.CompletedProcess) and done.returncode != 0
    assert "Traceback" not in done.stderr and "optimization.stepss" in done.stderr
