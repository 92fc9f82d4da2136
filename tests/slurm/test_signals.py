"""Signals at random moments at random processes of a job: nothing is lost, nothing hangs, nothing starts over."""

import random
import signal
import time

import psutil
import pytest

from src.run.launch import STOPS
from tests.slurm.cluster import LOST
from tests.slurm.jobs import END_SECONDS, same_run, starts, stops, submit, words

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
KINDS = ["task", "rank", "worker"]
FLAGS = ["--partition", "main", "--retries", "100"]
LONGEST = 6.0
"""Seconds between signals: one may strike in start-up, in training, or when the job is saving because of another."""


def shoot(cluster, job, chance, count):
    """Send up to so many signals to a job, fewer if it ends before; returns who got which."""
    sent = []
    while len(sent) < count and cluster.state(job) not in LOST:
        time.sleep(chance.uniform(0, LONGEST))
        kind = chance.choice(KINDS)
        members = cluster.members(job, kind)
        if not members:  # in the queue, or not so far
            continue
        member, number = chance.choice(members), signal.Signals(chance.choice(STOPS))
        try:
            member.process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        sent.append((kind, member.rank, number.name))
    return sent


def survive(cluster, shards, reference, folder, chance, count):
    """One run under up to so many signals; returns how many it was."""
    job = submit(cluster, words(folder / "run", shards, "data.workers=1"), folder / "logs", *FLAGS)
    sent = shoot(cluster, job, chance, count)
    cluster.wait_for(job, "COMPLETED", END_SECONDS)
    begun, saved, restarts = starts(folder / "run"), stops(folder / "run"), int(cluster.show(job)["Restarts"])
    told = f"{sent}, attempts from {begun}, saved at {saved}, {restarts} restarts\n{cluster.logs(job)}"
    assert list(dict.fromkeys(begun)) == list(dict.fromkeys([0, *saved])), told
    assert restarts <= sum(kind != "worker" for kind, _, _ in sent), told
    assert len(begun) <= restarts + 1, told
    same_run(folder / "run", reference)
    return len(sent)


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_signals_at_random_moments_at_random_processes(cluster, undisturbed, shards, tmp_path, count):
    chance, runs = random.Random(count), 0
    reference = undisturbed(2)
    while count > 0:
        runs += 1
        count -= survive(cluster, shards, reference, tmp_path / str(runs), chance, min(count, 12))
