"""Signals at random moments at random processes of a job: nothing is lost, nothing hangs, nothing starts over."""

import random
import signal
import time

import psutil
import pytest

from src.run.launch import STOPS
from tests.commands import logged, wait_until
from tests.slurm.cluster import LOST
from tests.slurm.jobs import END_SECONDS, STEPS, same_run, starts, stops, submit, words

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
KINDS = ["task", "rank", "worker"]
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


def shoot(cluster, job, folder, chance, count):
    """Send up to so many signals to a job, fewer if it ends before; returns who got which, and after how many steps."""
    sent = []
    while len(sent) < count:
        wait_for_a_moment(cluster, job, folder, chance)
        if cluster.state(job) in LOST:
            break
        kind, number = chance.choice(KINDS), signal.Signals(chance.choice(STOPS))
        members = cluster.members(job, kind)
        if not members:  # in the queue, or not so far
            continue
        member = chance.choice(members)
        try:
            member.process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        sent.append((kind, member.rank, number.name, logged(folder)))
    return sent


def survive(cluster, shards, reference, folder, chance, count):
    """One run under up to so many signals; returns how many it was, and after which steps they have stopped it."""
    run = folder / "run"
    job = submit(cluster, words(run, shards, "data.workers=1"), folder / "logs", *FLAGS)
    sent = shoot(cluster, job, run, chance, count)
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    begun, saved, restarts = starts(run), stops(run), int(cluster.show(job)["Restarts"])
    told = f"{sent}, attempts from {begun}, saved at {saved}, {restarts} restarts\n{cluster.logs(job)}"
    print(told.splitlines()[0])
    assert list(dict.fromkeys(begun)) == list(dict.fromkeys([0, *saved])), told
    assert restarts <= sum(kind != "worker" for kind, *_ in sent), told
    assert len(begun) <= restarts + 1, told
    same_run(run, reference)
    return len(sent), saved


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_signals_at_random_moments_at_random_processes(cluster, undisturbed, shards, tmp_path, count):
    chance, runs, stopped = random.Random(count), 0, []
    reference = undisturbed(2)
    while count > 0:
        runs += 1
        sent, saved = survive(cluster, shards, reference, tmp_path / str(runs), chance, min(count, 12))
        count, stopped = count - sent, stopped + saved
    assert len({step for step in stopped if 0 < step < STEPS}) >= 2, stopped
