"""Killed and continued equals undisturbed, bit for bit, wherever and whenever the kill strikes."""

import random
import signal
import time
from itertools import pairwise

import psutil
import pytest

from tests.commands import (
    alive,
    audit,
    descendants,
    global_batches,
    kill_tree,
    lines,
    metrics,
    same_tensors,
    start,
    succeed,
    wait_until,
)

pytestmark = pytest.mark.distributed
STEPS = 60
SETTINGS = ["optimization.epochs=null", f"optimization.steps={STEPS}", "checkpoint.every=4", "logging.every=1"]


def command(folder, shards, world_size, workers=0):
    settings = [f"logging.folder={folder}", f"data.root={shards}", f"data.workers={workers}", *SETTINGS]
    return ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *["cpu"] * world_size, "--set", *settings]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module", params=[1, 2], ids=["one-rank", "two-ranks"])
def undisturbed(request, shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed(*command(folder, shards, request.param))
    return request.param, folder


def logged(folder):
    return len(lines(folder / "metrics.jsonl"))


def wait_for_step(process, folder, step):
    wait_until(lambda: logged(folder) >= step or process.poll() is not None, 60, f"step {step}")
    assert process.poll() is None, process.communicate()


def strike(process, target):
    """SIGKILL the launcher, one of its ranks, or all at once; everything must be gone soon after."""
    family = [psutil.Process(process.pid), *descendants(process.pid)]
    ranks = psutil.Process(process.pid).children()
    if target == "launcher":
        process.kill()
    elif target == "rank":
        random.choice(ranks).kill()
    else:
        kill_tree(process.pid)
    assert process.wait(timeout=60) != 0
    process.communicate()
    wait_until(lambda: not alive(family), 10, f"processes left after killing the {target}")


def test_ten_kills_at_random_moments_change_nothing(undisturbed, shards, tmp_path):
    world_size, reference = undisturbed
    chance = random.Random(20 + world_size)
    random.seed(world_size)
    struck = []
    for number, moment in enumerate(sorted(chance.sample(range(1, STEPS - 2), 10))):
        process = start(*command(tmp_path, shards, world_size, workers=number % 2))
        wait_for_step(process, tmp_path, moment)
        time.sleep(chance.uniform(0, 0.02))
        target = ["launcher", "rank", "tree"][number % 3]
        strike(process, target)
        struck.append((target, logged(tmp_path)))
    succeed(*command(tmp_path, shards, world_size))
    assert all(before[1] <= after[1] + 4 for before, after in pairwise(struck)), struck  # none started over
    assert metrics(tmp_path) == metrics(reference)
    assert audit(tmp_path) == audit(reference)
    assert same_tensors(tmp_path, reference)
    assert len(list((tmp_path / "attempts").iterdir())) == 11


@pytest.mark.parametrize("target", ["launcher", "rank", "tree"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one_whole(undisturbed, shards, tmp_path, target):
    world_size, reference = undisturbed
    process = start(*command(tmp_path, shards, world_size))
    checkpoints = tmp_path / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("step-*2.attempt-*.partial")), 60, "a checkpoint being written")
    strike(process, target)
    assert list(checkpoints.glob("*.partial")), "the kill came too late to hit the checkpoint"
    assert "continuing from" in succeed(*command(tmp_path, shards, world_size))
    assert metrics(tmp_path) == metrics(reference)
    assert same_tensors(tmp_path, reference)
    assert not list(checkpoints.glob("*.partial"))


def test_a_run_moves_from_two_ranks_to_one_and_back_in_mid_epoch(undisturbed, shards, tmp_path):
    _, reference = undisturbed
    for world_size, moment in ((2, 10), (1, 30)):
        process = start(*command(tmp_path, shards, world_size))
        wait_for_step(process, tmp_path, moment)
        strike(process, "tree")
    succeed(*command(tmp_path, shards, 2))
    batches = global_batches(tmp_path)
    assert batches == global_batches(reference)
    sequence = [key for keys in batches.values() for key in keys]
    samples = len(set(sequence))
    for epoch in range(len(sequence) // samples):
        assert len(set(sequence[epoch * samples : (epoch + 1) * samples])) == samples


def test_the_same_command_again_after_the_end_changes_nothing(undisturbed, shards):
    world_size, reference = undisturbed
    before = metrics(reference)
    assert f"finished {STEPS} steps" in succeed(*command(reference, shards, world_size))
    assert metrics(reference) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_running(shards, tmp_path, number):
    process = start(*command(tmp_path, shards, 2, workers=1), "checkpoint.every=1000", "optimization.steps=100000")
    wait_until(lambda: logged(tmp_path) > 2, 60, "training")
    family = descendants(process.pid)
    assert len(family) >= 4, "two ranks and their workers"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "Traceback" not in err
    wait_until(lambda: not alive(family), 10, "processes left")
