"""Signals at random moments at random processes of a job: nothing is lost, nothing hangs, nothing starts over."""

import random
import signal
import time
from collections import Counter
from itertools import product

import psutil
import pytest

from src.run.launch import STOPS
from tests.commands import logged, wait_until
from tests.slurm.cluster import LOST
from tests.slurm.jobs import END_SECONDS, START_SECONDS, STEPS, same_run, starts, stops, submit, words

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
KINDS = ["script", "srun", "task", "rank", "worker"]
UNMOVED = ["script", "worker"]
"""Kinds that no signal ends."""
MOST = 12
"""Signals to one job."""
FLAGS = ["--partition", "main", "--retries", "100"]
SOON, LATER, FURTHER = 0.5, 6.0, 20
"""Seconds and steps that a signal comes after the one before, at most."""


def wait_for_a_moment(cluster, job, folder, chance):
    """In start-up, in training, in the queue, or while the job saves because of the signal before."""
    kind = chance.choice(["soon", "later", "in training"])
    if kind != "in training":
        time.sleep(chance.uniform(0, SOON if kind == "soon" else LATER))
        return
    wanted = logged(folder) + chance.randint(1, FURTHER)
    wait_until(lambda: logged(folder) >= wanted or cluster.state(job) in LOST, END_SECONDS, "further steps")


def moment_of(folder, attempt, earlier):
    """What the attempt with these processes is at; `earlier` are the numbers of attempts that had a signal before."""
    if attempt[0].restart in earlier:
        return "stopping"
    since = min(member.process.create_time() for member in attempt)
    trains = any(path.stat().st_mtime > since for path in (folder / "attempts").glob("*"))
    return "training" if trains else "starting"


def shoot(cluster, job, folder, chance, shots):
    """Send a job some of the signals in `shots`, which leave it, each to a process of its kind that is there already.

    Returns who got which, and when.
    """
    sent = []
    while shots and len(sent) < MOST:
        wait_for_a_moment(cluster, job, folder, chance)
        if cluster.state(job) in LOST:
            break
        attempt = cluster.members(job)
        shot = next((shot for shot in shots if shot[0] in {member.kind for member in attempt}), None)
        if shot is None:  # in the queue, or not so far
            continue
        kind, number = shot
        member = chance.choice([member for member in attempt if member.kind == kind])
        try:
            moment = moment_of(folder, attempt, [restart for told, *_, restart in sent if told not in UNMOVED])
            member.process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        shots.remove(shot)
        sent.append((kind, number.name, moment, logged(folder), member.restart))
    return sent


def survive(cluster, shards, reference, folder, chance, shots):
    """One run under some of the signals in `shots`; returns those, and after which steps they have stopped it."""
    run = folder / "run"
    job = submit(cluster, words(run, shards, "data.workers=1"), folder / "logs", *FLAGS)
    sent = shoot(cluster, job, run, chance, shots)
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    begun, saved, restarts = starts(run), stops(run), int(cluster.show(job)["Restarts"])
    told = f"{sent}, attempts from {begun}, saved at {saved}, {restarts} restarts\n{cluster.logs(job)}"
    print(told.splitlines()[0])
    assert begun[0] == 0 and begun == sorted(begun), told
    untold = {number for number in begun if number not in (0, *saved)}  # srun killed what may just have saved
    assert len(untold) <= sum(kind == "srun" for kind, *_ in sent), told
    assert set(saved) <= {*begun, STEPS}, told
    assert restarts <= sum(kind not in UNMOVED for kind, *_ in sent), told
    assert len(begun) <= restarts + 1, told
    same_run(run, reference)
    return sent, saved


SLOW = """
import os, time
from pathlib import Path

words = Path("/proc/self/cmdline").read_bytes()
if b"submitit.core._submit" in words and "SLURM_PROCID" in os.environ:
    name = "-".join(os.environ.get(key, "0") for key in ("SLURM_RESTART_COUNT", "SLURM_PROCID"))
    Path("{folder}", "asleep-" + name).touch()
    while os.environ.get("SLURM_RESTART_COUNT", "0") in "01" and not Path("{folder}", "go-" + name).exists():
        time.sleep(0.05)
"""


def test_signals_to_tasks_that_still_start_are_answered_after_the_first_step(
    cluster, undisturbed, shards, tmp_path, monkeypatch
):
    """submitit itself would answer SIGUSR2, and nobody the others."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW.format(folder=tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    plain = ["optimization.steps=40", "evaluation.every=null"]
    run = words(tmp_path / "run", shards, *plain)
    job = submit(cluster, run, tmp_path / "logs", "--partition", "main", "--retries", "0")
    for restart, (rank, number) in enumerate([(0, signal.SIGUSR2), (1, signal.SIGTERM)]):
        for task in range(2):
            wait_until((tmp_path / f"asleep-{restart}-{task}").exists, START_SECONDS, "tasks start")
        (task,) = [member.process for member in cluster.members(job, "task") if member.rank == rank]
        task.send_signal(number)
        for task in range(2):
            (tmp_path / f"go-{restart}-{task}").touch()
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    assert cluster.show(job)["Restarts"] == "2"
    first, second, third = starts(tmp_path / "run")
    assert first == 0 and 0 < second <= 2 and second < third <= second + 2
    same_run(tmp_path / "run", undisturbed(2, *plain))


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_signals_at_random_moments_at_random_processes(cluster, undisturbed, shards, tmp_path, count):
    """Each kind of process gets each signal as often as the others."""
    chance, runs, sent, stopped = random.Random(count), 0, [], []
    pairs = list(product(KINDS, [signal.Signals(number) for number in STOPS]))
    shots = chance.sample(pairs * max(1, count // len(pairs)), count)
    reference = undisturbed(2)
    while shots:
        runs += 1
        more, saved = survive(cluster, shards, reference, tmp_path / str(runs), chance, shots)
        sent, stopped = sent + more, stopped + saved
    print(Counter(f"{kind}, {moment}" for kind, _, moment, *_ in sent))
    assert len({step for step in stopped if 0 < step < STEPS}) >= 2, stopped
