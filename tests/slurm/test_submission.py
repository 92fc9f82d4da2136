"""main_distributed.py on a cluster: what it queues, what it refuses, and how jobs end that do not end well."""

import re
import sys
import time

import pytest
import yaml

from src.checkpoints.read import checkpoint_folders
from tests.commands import metrics
from tests.slurm.jobs import END_SECONDS, same_run, starts, submit, submit_all, submit_faulty, wait_for_steps, words

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SHORT = "optimization.steps=40"
MAIN = ["--partition", "main"]


def log_of(cluster, job):
    """All that the tasks of a job wrote."""
    return cluster.logs(job, lines=10_000)


def test_six_seeds_are_an_array_of_six_runs(cluster, undisturbed, shards, tmp_path):
    seeds = [str(seed) for seed in range(6)]
    jobs = submit_all(cluster, words(tmp_path, shards, SHORT), tmp_path / "logs", *MAIN, "--seeds", *seeds)
    assert [job.split("_")[1] for job in jobs] == seeds and len({job.split("_")[0] for job in jobs}) == 1
    for job in jobs:
        cluster.wait_for(job, "COMPLETED", END_SECONDS)
    losses = [metrics(tmp_path / f"seed-{seed}")[-1]["loss"] for seed in seeds]
    assert len(set(losses)) == 6
    same_run(tmp_path / "seed-3", undisturbed(1, SHORT, "seed=3"))


def test_one_config_with_an_error_keeps_all_from_being_queued(cluster, shards, tmp_path):
    good = {"fname": "configs/jepa/ecg_debug.yaml", "set": [f"data.root={shards}", f"logging.folder={tmp_path}/good"]}
    bad = {**good, "set": [*good["set"][:1], f"logging.folder={tmp_path}/bad", "optimization.stepss=3"]}
    (tmp_path / "batch.yaml").write_text(yaml.safe_dump([good, bad]))
    before = cluster.queue()
    flags = ["--batch-launch", str(tmp_path / "batch.yaml"), "--folder", str(tmp_path / "logs"), *MAIN]
    done = cluster.attempt(sys.executable, "main_distributed.py", *flags)
    assert done.returncode == 1 and "optimization.stepss" in done.stderr and "Traceback" not in done.stderr
    assert cluster.queue() == before
    assert [path.name for path in tmp_path.iterdir()] == ["batch.yaml"]


def test_waiting_tells_a_job_that_never_starts_from_one_that_runs(cluster, shards, tmp_path):
    waiting = {}
    for partition in ("down", "main"):
        run = words(tmp_path / partition, shards, SHORT)
        flags = ["--folder", str(tmp_path / "logs"), "--partition", partition, "--wait"]
        waiting[partition] = cluster.start(sys.executable, "main_distributed.py", *run, *flags)
    out, err = waiting["main"].communicate(timeout=END_SECONDS)
    assert waiting["main"].returncode == 0 and "RUNNING on n" in out and "COMPLETED" in out, out + err
    assert "will not start by itself" not in out
    (submission,) = (tmp_path / "down" / "submissions").iterdir()
    job = (submission / "job").read_text().split()[1]
    assert waiting["down"].poll() is None and cluster.state(job) == "PENDING"
    cluster.scancel(job)
    out, _ = waiting["down"].communicate(timeout=60)
    assert waiting["down"].returncode == 1
    assert "PENDING, PartitionDown" in out and "will not start by itself: the partition is down" in out
    assert "RUNNING" not in out and "CANCELLED" in out


def test_cancelled_stays_cancelled_and_goes_on_by_hand(cluster, undisturbed, shards, tmp_path):
    job = submit(cluster, words(tmp_path / "run", shards), tmp_path / "logs", *MAIN)
    wait_for_steps(cluster, job, tmp_path / "run", 20)
    cluster.scancel(job)
    cluster.wait_for(job, "CANCELLED", 60)
    (again,) = tmp_path.glob("run/submissions/*/submit.sh")
    time.sleep(8)  # longer than a requeued job waits
    assert cluster.state(job) == "CANCELLED" and cluster.show(job)["Restarts"] == "0"
    assert not cluster.members(job)
    second = re.search(r"^  (\d+) ", cluster.run("sh", str(again), timeout=60), flags=re.MULTILINE)[1]
    cluster.wait_for(second, "COMPLETED", END_SECONDS)
    assert len(starts(tmp_path / "run")) == 2 and starts(tmp_path / "run")[1] >= 20
    same_run(tmp_path / "run", undisturbed(2))


def test_a_rank_that_raises_fails_the_job_with_its_sentence_and_is_not_tried_again(cluster, shards, tmp_path):
    job = submit_faulty(cluster, "rank_1_fails", words(tmp_path / "run", shards, SHORT), tmp_path, *MAIN)
    cluster.wait_for(job, "FAILED", END_SECONDS)
    assert cluster.show(job)["Restarts"] == "0" and len(starts(tmp_path / "run")) == 1
    log = log_of(cluster, job)
    assert "error: rank 1: the third step went wrong" in log
    assert "RuntimeError: the third step went wrong" in log, "the traceback"


def test_a_hung_rank_leaves_all_stacks_and_is_tried_again_as_often_as_was_said(cluster, shards, tmp_path):
    run = words(tmp_path / "run", shards, SHORT, "engine.timeout=20", "data.timeout=15")
    job = submit_faulty(cluster, "rank_1_hangs", run, tmp_path, *MAIN, "--retries", "1")
    cluster.wait_for(job, "FAILED", 2 * END_SECONDS)
    assert cluster.show(job)["Restarts"] == "1"
    log = log_of(cluster, job)
    for rank in (0, 1):
        assert f"--- rank {rank} ---\nin step 2: no sign of life for 20 s (engine.timeout)" in log
    assert 'faulty_main.py", line' in log, "the line that hangs"
    assert f"error: job {job} has hung" in log and "--retries 1" in log


def test_the_code_that_runs_is_that_which_was_submitted(cluster, shards, tmp_path):
    """A job in the queue does not see what becomes of the checkout: it loads nothing from there."""
    run = words(tmp_path / "run", shards, SHORT)
    job = submit(cluster, run, tmp_path / "logs", *MAIN, nodes=1, tasks=2)
    wait_for_steps(cluster, job, tmp_path / "run", 1)
    ranks = cluster.members(job, "rank")
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    assert all(str(tmp_path) in rank.command for rank in ranks)
    assert checkpoint_folders(tmp_path / "run" / "checkpoints")
