"""Killed and continued equals undisturbed, bit for bit, wherever and whenever the kill strikes."""

import json
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise

import psutil
import pytest

from src.checkpoints.read import checkpoint_folders
from tests.commands import (
    ROOT,
    alive,
    audit,
    descendants,
    global_batches,
    kill_tree,
    lines,
    logged,
    metrics,
    same_tensors,
    start,
    succeed,
    wait_for_lines,
    wait_until,
)

pytestmark = pytest.mark.distributed
STEPS, EVERY = 60, 4
ONE, TWO = (
    pytest.mark.parametrize("undisturbed", [ranks], ids=[name], indirect=True)
    for ranks, name in ((1, "one-rank"), (2, "two-ranks"))
)
SETTINGS = [
    "optimization.epochs=null",
    f"optimization.steps={STEPS}",
    f"checkpoint.every={EVERY}",
    "logging.every=1",
    "evaluation.every=null",  # those that are broken off are in test_stops_in_evaluation.py and test_takeover.py
]


def command(folder, shards, world_size, workers=0):
    settings = [f"logging.folder={folder}", f"data.root={shards}", f"data.workers={workers}", *SETTINGS]
    return ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *["cpu"] * world_size, "--set", *settings]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2], ids=["one-rank", "two-ranks"])
def undisturbed(request, shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed(*command(folder, shards, request.param))
    return request.param, folder


def family(process):
    """The launcher, its ranks and their loader workers."""
    return [psutil.Process(process.pid), *descendants(process.pid)]


def strike(process, target, members=None):
    """SIGKILL the launcher, one of its ranks, or all at once; everything must be gone soon after."""
    members = members or family(process)
    if target == "launcher":
        process.kill()
    elif target == "rank":
        random.choice([member for member in members[1:] if member.ppid() == process.pid]).kill()
    else:
        kill_tree(process.pid)
    assert process.wait(timeout=60) != 0
    process.communicate()
    wait_until(lambda: not alive(members), 10, f"processes left after killing the {target}")


def starts(folder):
    """The step that each attempt started from."""
    return [json.loads(path.read_text())["start"] for path in sorted((folder / "attempts").iterdir())]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("undisturbed", "kills"),
    [(2, 4), pytest.param(2, 10, marks=pytest.mark.slow), pytest.param(1, 10, marks=pytest.mark.slow)],
    indirect=["undisturbed"],
)
def test_kills_at_random_moments_change_nothing(undisturbed, kills, shards, tmp_path):
    world_size, reference = undisturbed
    chance = random.Random(20 + world_size)
    random.seed(world_size)
    reached = [0]
    for number, moment in enumerate(sorted(chance.sample(range(1, STEPS - 2), kills))):
        process = start(*command(tmp_path, shards, world_size, workers=number % 2))
        wait_for_lines(process, tmp_path, moment)
        time.sleep(chance.uniform(0, 0.02))
        strike(process, ["launcher", "rank", "tree"][number % 3])
        reached.append(logged(tmp_path))
    succeed(*command(tmp_path, shards, world_size))
    begun = starts(tmp_path)
    assert len(begun) == kills + 1
    for first, before in zip(begun, reached, strict=True):  # each goes on from the last checkpoint that was complete
        assert EVERY * ((before - 1) // EVERY) <= first <= before, (begun, reached)
    assert metrics(tmp_path) == metrics(reference)
    assert audit(tmp_path) == audit(reference)
    assert same_tensors(tmp_path, reference)


@pytest.mark.slow
def test_a_rank_of_two_threads_continues_bit_identically(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    steps = ["optimization.steps=12"]
    succeed(*command(tmp_path / "whole", shards, 1), *steps)
    process = start(*command(tmp_path / "killed", shards, 1), *steps)
    wait_for_lines(process, tmp_path / "killed", 6)
    strike(process, "tree")
    succeed(*command(tmp_path / "killed", shards, 1), *steps)
    assert starts(tmp_path / "killed")[1] >= EVERY
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert same_tensors(tmp_path / "killed", tmp_path / "whole")


def test_three_ranks_continue_bit_identically(shards, tmp_path):
    """From three ranks up the order in which they are added shows in the last bit."""
    batch = ["data.batch_size=12", "optimization.steps=24"]
    succeed(*command(tmp_path / "whole", shards, 3), *batch)
    process = start(*command(tmp_path / "killed", shards, 3), *batch)
    wait_for_lines(process, tmp_path / "killed", 8)
    strike(process, "tree")
    succeed(*command(tmp_path / "killed", shards, 3), *batch)
    assert starts(tmp_path / "killed")[1] >= EVERY
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert same_tensors(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(
            ["data.mixture.other={root: SHARDS, split: train, weight: 0.5}", "data.window=1"], marks=pytest.mark.slow
        ),
        pytest.param(["data.balance=labels"], marks=pytest.mark.slow),
        pytest.param(["data.balance=patients"], marks=pytest.mark.slow),
        ["data.window=1", "data.lanes=4"],
    ],
    ids=["mixture", "labels", "patients", "lanes"],
)
def test_other_orders_continue_on_other_ranks_and_workers(shards, tmp_path, order):
    order = [word.replace("SHARDS", str(shards)) for word in order]
    succeed(*command(tmp_path / "whole", shards, 2), *order)
    process = start(*command(tmp_path / "killed", shards, 2, workers=1), *order)
    wait_for_lines(process, tmp_path / "killed", 8)
    strike(process, "tree")
    succeed(*command(tmp_path / "killed", shards, 1), *order)
    assert starts(tmp_path / "killed")[1] >= EVERY
    assert global_batches(tmp_path / "killed") == global_batches(tmp_path / "whole")


@TWO
def test_two_runs_fit_on_one_machine(undisturbed, shards, tmp_path):
    _, reference = undisturbed
    both = [start(*command(tmp_path / name, shards, 2)) for name in ("one", "other")]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and not err, out + err
    assert global_batches(tmp_path / "one") == global_batches(tmp_path / "other") == global_batches(reference)
    assert same_tensors(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(
    ("undisturbed", "target"),
    [
        (2, "tree"),
        *(pytest.param(*which, marks=pytest.mark.slow) for which in ((1, "tree"), (2, "launcher"), (2, "rank"))),
    ],
    indirect=["undisturbed"],
)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one_whole(undisturbed, shards, tmp_path, target):
    world_size, reference = undisturbed
    checkpoints = tmp_path / "checkpoints"
    for step in (12, 24, 36, 48):  # a kill may come too late to hit the checkpoint; the next one is for that start
        process = start(*command(tmp_path, shards, world_size))
        wait_until(lambda it=process: len(family(it)) > world_size, 60, "ranks")
        members = family(process)
        wait_until(lambda at=step: list(checkpoints.glob(f"step-*{at}.attempt-*.partial")), 60, "a checkpoint")
        strike(process, target, members)
        if list(checkpoints.glob("*.partial")):
            break
    else:
        pytest.fail("no kill has hit a checkpoint")
    assert "continuing from" in succeed(*command(tmp_path, shards, world_size))
    assert metrics(tmp_path) == metrics(reference)
    assert same_tensors(tmp_path, reference)
    assert not list(checkpoints.glob("*.partial"))


@ONE
def test_a_run_moves_from_two_ranks_to_one_and_back_in_mid_epoch(undisturbed, shards, tmp_path):
    _, reference = undisturbed
    for world_size, moment in ((2, 10), (1, 30)):
        process = start(*command(tmp_path, shards, world_size))
        wait_for_lines(process, tmp_path, moment)
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


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_step_at_hand_and_leaves_nothing_running(shards, tmp_path, number):
    process = start(*command(tmp_path, shards, 2, workers=1), "checkpoint.every=1000", "optimization.steps=100000")
    wait_until(lambda: logged(tmp_path) > 2, 60, "training")
    members = descendants(process.pid)
    assert len(members) >= 4, "two ranks and their workers"
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        raise
    assert process.returncode == 128 + number and "Traceback" not in err
    wait_until(lambda: not alive(members), 10, "processes left")
    (saved,) = checkpoint_folders(tmp_path / "checkpoints")
    assert int(saved.name[5:13]) == len({record["step"] for record in lines(tmp_path / "metrics.jsonl")})


def test_a_signal_to_any_rank_stops_all_of_them_at_the_same_step_and_the_run_goes_on_from_there(
    undisturbed, shards, tmp_path
):
    world_size, reference = undisturbed
    never = "checkpoint.every=1000"
    for target in range(world_size):
        process = start(*command(tmp_path, shards, world_size, workers=1), never)
        wait_for_lines(process, tmp_path, 8 + 20 * target)
        rank = [member for member in descendants(process.pid) if member.ppid() == process.pid][target]
        rank.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM and err == "stopped by SIGTERM\n", out + err
        assert "which are saved; the same command goes on from there" in out
    succeed(*command(tmp_path, shards, world_size), never)
    begun = starts(tmp_path)
    assert len(begun) == world_size + 1 and all(first < second < STEPS for first, second in pairwise(begun))
    assert metrics(tmp_path) == metrics(reference)
    assert same_tensors(tmp_path, reference)


def test_a_second_signal_does_not_wait(shards, tmp_path):
    process = start(*command(tmp_path, shards, 2), "checkpoint.every=1000", "optimization.steps=100000")
    wait_until(lambda: logged(tmp_path) > 2, 60, "training")
    stuck = [member for member in descendants(process.pid) if member.ppid() == process.pid][1]
    stuck.suspend()  # the other waits for it in a collective
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 128 + signal.SIGTERM
    process.communicate()


def test_a_kill_while_the_first_checkpoint_is_under_way_in_the_background_starts_over(undisturbed, shards, tmp_path):
    world_size, reference = undisturbed
    words = [*command(tmp_path, shards, world_size), "checkpoint.background=true"]
    process = start(*words, "--fault", "slow_disk", script="tests/distributed/faulty_main.py")
    wait_for_lines(process, tmp_path, EVERY + 2)
    strike(process, "tree")
    assert list((tmp_path / "checkpoints").glob("*.partial")), "the kill came too late"
    succeed(*words)
    assert starts(tmp_path) == [0, 0]
    assert metrics(tmp_path) == metrics(reference) and same_tensors(tmp_path, reference)


def test_checkpoints_written_in_the_background_survive_kills_and_are_the_same_bits(undisturbed, shards, tmp_path):
    world_size, reference = undisturbed
    background = ["checkpoint.background=true"]
    for number, moment in enumerate((10, 24, 37)):
        process = start(*command(tmp_path, shards, world_size), *background)
        wait_for_lines(process, tmp_path, moment)
        strike(process, ["launcher", "rank", "tree"][number])
    succeed(*command(tmp_path, shards, world_size), *background)
    begun = starts(tmp_path)
    for first, moment in zip(begun[1:], (10, 24, 37), strict=True):  # one may be under way when the kill strikes
        assert EVERY * ((moment - 1) // EVERY) - EVERY <= first <= STEPS, begun
    assert begun == sorted(set(begun))
    assert metrics(tmp_path) == metrics(reference)
    assert same_tensors(tmp_path, reference)


def test_nohup_stays_nohup(shards, tmp_path):
    words = " ".join(command(tmp_path, shards, 1))
    process = subprocess.Popen(
        ["bash", "-c", f"trap '' HUP; exec {sys.executable} main.py {words}"], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    wait_for_lines(process, tmp_path, 1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0 and logged(tmp_path) == STEPS


def test_a_worker_whose_rank_is_gone_ends(tmp_path):
    """The rank may die between the fork of a worker and the worker's request to die with it."""
    code = (
        "import os, sys, time; from src.data.activity import Activity; from src.data.loader import _start_worker\n"
        "rank = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    while os.getppid() == rank: time.sleep(0.01)\n"
        "    open(sys.argv[1], 'w').close()\n"
        "    _start_worker(rank, Activity(1), 0)\n"
        "    open(sys.argv[1] + '.lives', 'w').close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "orphan")], cwd=ROOT, check=True)
    wait_until((tmp_path / "orphan").exists, 30, "the orphan asks")
    time.sleep(0.3)
    assert not (tmp_path / "orphan.lives").exists()
