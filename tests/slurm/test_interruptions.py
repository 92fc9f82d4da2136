"""Whatever ends an attempt of a job, the run ends COMPLETED, with nothing repeated and nothing skipped."""

import pytest

from tests.commands import alive, lines, logged, wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import (
    END_SECONDS,
    EVERY,
    STEPS,
    same_run,
    starts,
    stops,
    submit,
    submit_faulty,
    wait_for_steps,
    words,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
LONG = "optimization.steps=1300"
"""At a tenth of a second each they outlast two limits."""


def test_preempted_by_a_partition_of_higher_priority(cluster, undisturbed, shards, tmp_path):
    job = submit(cluster, words(tmp_path / "run", shards), tmp_path / "logs", "--partition", "low")
    wait_for_steps(cluster, job, tmp_path / "run", 20)
    flags = ["--partition=main", "--nodes=4", "--exclusive", "--output=/dev/null"]
    other = cluster.run("sbatch", "--parsable", *flags, "--wrap", "sleep 2").strip()
    cluster.wait_for(other, "COMPLETED", 60)
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    assert cluster.show(job)["Restarts"] == "1"
    assert starts(tmp_path / "run") == [0, *stops(tmp_path / "run")] and len(stops(tmp_path / "run")) == 1
    same_run(tmp_path / "run", undisturbed(2))


def test_a_node_is_lost_and_its_task_runs_on(cluster, undisturbed, shards, tmp_path):
    """Held still while its successor trains, the orphan wakes up when the run has another owner."""
    run = words(tmp_path / "run", shards, "data.workers=1")
    job = submit(cluster, run, tmp_path / "logs", "--partition", "main")
    wait_for_steps(cluster, job, tmp_path / "run", 20)
    orphans = cluster.members(job, "task", "rank", "worker")
    held = [member.process for member in orphans if member.kind != "worker"]
    for process in held:
        process.suspend()
    (node,) = {member.node for member in orphans if member.rank == 0}
    cluster.kill_node(node)
    before = logged(tmp_path / "run")
    wait_until(lambda: int(cluster.show(job)["Restarts"]) == 1, 90, "the job is given back to the queue")
    wait_until(lambda: len(list((tmp_path / "run" / "attempts").iterdir())) == 2, 60, "the next attempt trains")
    for process in alive(held):
        process.resume()
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    wait_until(lambda: not alive([member.process for member in orphans]), 60, f"the orphans {orphans} end")
    cluster.start_node(node)
    cluster.wait_for_nodes("idle", cluster.nodes, 60)
    first, second = starts(tmp_path / "run")
    assert first == 0 and (before - 1) // EVERY * EVERY <= second <= before
    same_run(tmp_path / "run", undisturbed(2))


def test_a_node_dies_with_all_that_ran_on_it(cluster, undisturbed, shards, tmp_path):
    """The rank on the other node sees a connection break, long before SLURM knows why."""
    job = submit(cluster, words(tmp_path / "run", shards), tmp_path / "logs", "--partition", "main")
    wait_for_steps(cluster, job, tmp_path / "run", 20)
    (rank,) = [member for member in cluster.members(job, "rank") if member.rank == 1]
    task = rank.process.parent()
    cluster.kill_node(rank.node)
    for process in (task.parent(), task, rank.process):  # the step's own daemon would tell srun
        process.kill()
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    cluster.start_node(rank.node)
    cluster.wait_for_nodes("idle", cluster.nodes, 60)
    assert cluster.show(job)["Restarts"] == "1"
    first, second = starts(tmp_path / "run")
    assert first == 0 and second >= 10
    same_run(tmp_path / "run", undisturbed(2))


def end_srun(cluster, job):
    """It kills its tasks at once."""
    for srun in cluster.members(job, "srun"):
        srun.process.terminate()


def kill_step(cluster, job):
    """As SLURM does when a step has no memory left."""
    for member in cluster.members(job, "task", "rank", "worker"):
        member.process.kill()


def test_attempts_that_end_before_they_can_save(cluster, undisturbed, shards, tmp_path):
    """`scontrol requeue` gives SIGTERM and KillWait seconds; the other two give nothing, and tasks leave no word."""
    job = submit(cluster, words(tmp_path / "run", shards), tmp_path / "logs", "--partition", "main")
    for count, end in enumerate([Cluster.requeue, end_srun, kill_step], 1):
        wait_for_steps(cluster, job, tmp_path / "run", 25 * count)
        end(cluster, job)
        wait_until(lambda: cluster.show(job)["Restarts"] == str(count), 60, "the job goes back")  # noqa: B023
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    assert cluster.show(job)["Restarts"] == "3"
    (submission,) = (tmp_path / "run" / "submissions").iterdir()
    assert [told["outcome"] for told in lines(submission / "requeues.jsonl")][-2:] == ["lost", "lost"]
    begun = starts(tmp_path / "run")
    assert begun[0] == 0 and all(step >= 20 for step in begun[1:]) and begun == sorted(begun) and begun[3] >= 70
    same_run(tmp_path / "run", undisturbed(2))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_out_of_time_twice(cluster, undisturbed, shards, tmp_path):
    """SLURM looks at limits every 30 s: a job of two minutes is told 60 s before their end, or up to 30 s earlier."""
    flags = ["--partition", "main", "--time", "2", "--signal-delay", "60"]
    job = submit_faulty(cluster, "paced_steps", words(tmp_path / "run", shards, LONG), tmp_path, *flags)
    cluster.wait_for(job, "COMPLETED", 900)
    assert int(cluster.show(job)["Restarts"]) >= 2
    assert starts(tmp_path / "run") == [0, *stops(tmp_path / "run")]
    same_run(tmp_path / "run", undisturbed(2, LONG))


def test_stopped_in_its_last_steps(cluster, undisturbed, shards, tmp_path):
    """A stop that comes when all is done ends nothing."""
    job = submit(cluster, words(tmp_path / "run", shards), tmp_path / "logs", "--partition", "main")
    wait_for_steps(cluster, job, tmp_path / "run", STEPS - 3)
    for rank in cluster.members(job, "rank"):
        rank.process.terminate()
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    same_run(tmp_path / "run", undisturbed(2))
