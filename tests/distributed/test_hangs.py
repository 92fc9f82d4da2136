"""A rank that never comes to a collective ends the run within a stated time, with the stacks of all."""

import time

import pytest

from tests.commands import (
    FAULTY,
    alive,
    audit,
    descendants,
    lines,
    metrics,
    refuse,
    run,
    same_tensors,
    start,
    succeed,
    wait_for_lines,
    wait_until,
)

pytestmark = pytest.mark.distributed
IMPATIENT = ["engine.timeout=15", "data.timeout=12"]


def command(folder, shards, *settings):
    own = [f"logging.folder={folder}", f"data.root={shards}", "optimization.epochs=2", "checkpoint.every=2"]
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "cpu"]
    return [*words, "--set", *own, "evaluation.every=null", *settings]


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    succeed(*command(folder, shards))
    return folder


def stacks_of(rank, err):
    return err.split(f"--- rank {rank} ---\n")[1].split("--- rank")[0]


def test_a_hung_rank_ends_the_run_with_the_stacks_of_all_and_it_goes_on(undisturbed, shards, tmp_path):
    begun = time.monotonic()
    done = run(*command(tmp_path, shards, *IMPATIENT), "--fault", "rank_1_hangs", script=FAULTY, timeout=110)
    assert done.returncode == 1 and time.monotonic() - begun < 75
    assert "src/distributed/ranks.py" in stacks_of(0, done.stderr), "rank 0 waits in a collective"
    assert "faulty_main.py" in stacks_of(1, done.stderr) and " in step" in stacks_of(1, done.stderr)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "in step 2: no sign of life for 15 s (engine.timeout)" in sentence
    assert len(lines(tmp_path / "metrics.jsonl")) == 2
    assert "continuing from" in succeed(*command(tmp_path, shards))
    assert metrics(tmp_path) == metrics(undisturbed) and audit(tmp_path) == audit(undisturbed)
    assert same_tensors(tmp_path, undisturbed)


def test_ranks_that_have_met_and_do_not_come_together_end_with_their_stacks(shards, tmp_path):
    words = command(tmp_path, shards, "engine.timeout=6", "data.timeout=5")
    done = run(*words, "--fault", "rank_1_never_joins", script=FAULTY, timeout=110)
    assert done.returncode == 1 and "in init_process_group" in stacks_of(0, done.stderr)
    assert "faulty_main.py" in stacks_of(1, done.stderr)
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "ranks 0, 1 before the first step: no sign of life for 6 s (engine.timeout)" in sentence
    assert not (tmp_path / "owner.lock").exists()


def test_a_rank_that_can_not_even_tell_is_not_waited_for(shards, tmp_path):
    words = command(tmp_path, shards, *IMPATIENT, "optimization.epochs=100000", "checkpoint.every=100000")
    process = start(*words)
    wait_for_lines(process, tmp_path, 3)
    members = descendants(process.pid)
    sorted((member for member in members if member.ppid() == process.pid), key=lambda rank: rank.pid)[1].suspend()
    _, err = process.communicate(timeout=110)
    assert process.returncode == 1
    assert stacks_of(1, err).startswith("no word of it\n") and "most recent call first" in stacks_of(0, err)
    wait_until(lambda: not alive(members), 10, "processes left")


def test_who_waits_for_data_must_be_able_to_say_so(shards, tmp_path):
    sentence = refuse(*command(tmp_path, shards, "engine.timeout=600"))
    assert "data.timeout 600 must be below engine.timeout 600" in sentence
