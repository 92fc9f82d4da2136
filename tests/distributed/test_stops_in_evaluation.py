"""A stop that comes while the representation is measured, or in the last step and after it, loses nothing."""

import signal
import time

import numpy as np
import pytest

from src.checkpoints.read import checkpoint_folders, open_checkpoint
from src.evaluation.encoder import load_encoder
from tests.commands import FAULTY, debug_run, health, metrics, same_tensors, start, succeed, wait_for_lines, wait_until

pytestmark = pytest.mark.distributed
STEPS, LOOK = 14, 6


def command(folder, shards, world_size):
    own = ["data.micro_batch_size=2", f"evaluation.every={LOOK}", "checkpoint.every=1000"]
    return debug_run(folder, shards, world_size, STEPS, *own)


def stopped(process):
    """Send SIGTERM, which must end the run well; returns what it said."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err, out + err
    return out


def stopped_in_first_evaluation(folder, words):
    process = start(*words, "--fault", "slow_evaluation", script=FAULTY)
    wait_for_lines(process, folder, LOOK)
    time.sleep(0.3)
    assert f"stopped after {LOOK} steps, which are saved" in stopped(process)


def owed(folder):
    return open_checkpoint(checkpoint_folders(folder / "checkpoints")[0]).manifest.state["owed_evaluation"]


def equals(folder, reference):
    assert metrics(folder) == metrics(reference)
    assert health(folder) == health(reference)
    assert same_tensors(folder, reference)
    with np.load(folder / "embeddings.npz") as one, np.load(reference / "embeddings.npz") as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert load_encoder(folder).sha256() == load_encoder(reference).sha256()


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_evaluation_that_a_stop_breaks_off_is_made_up_for(undisturbed, shards, tmp_path, world_size):
    reference = undisturbed(world_size)
    words = command(tmp_path, shards, world_size)
    stopped_in_first_evaluation(tmp_path, words)
    assert owed(tmp_path) == metrics(reference)[LOOK - 1]["loss"] and not health(tmp_path)
    succeed(*words)
    assert owed(tmp_path) is None
    equals(tmp_path, reference)


def test_an_owed_evaluation_that_is_broken_off_again_and_killed_is_made_up_for_once(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, 2)
    stopped_in_first_evaluation(tmp_path, words)
    again = start(*words, "--fault", "slow_evaluation", script=FAULTY)
    wait_until(lambda: (tmp_path / "attempts" / "0002.json").exists(), 60, "the second attempt")
    time.sleep(0.3)
    assert f"stopped after {LOOK} steps, which are saved" in stopped(again) and not health(tmp_path)
    killed = start(*words, "--fault", "slow_evaluation", script=FAULTY)
    wait_until(lambda: health(tmp_path), 60, "the owed evaluation")
    killed.kill()
    killed.communicate()
    succeed(*words)
    equals(tmp_path, undisturbed(2))


def test_a_stop_in_the_last_evaluation_leaves_a_run_that_ends_when_it_is_started_again(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, 2)
    process = start(*words, "--fault", "slow_last_evaluation", script=FAULTY)
    wait_for_lines(process, tmp_path, STEPS)
    time.sleep(0.3)
    assert f"stopped after {STEPS} steps, which are saved" in stopped(process)
    assert not (tmp_path / "encoder").exists() and len(health(tmp_path)) == 2
    for _ in range(2):
        assert f"finished {STEPS} steps" in succeed(*words)
        equals(tmp_path, undisturbed(2))


def test_an_owed_evaluation_is_made_up_for_on_another_number_of_ranks(undisturbed, shards, tmp_path):
    reference = undisturbed(2)
    stopped_in_first_evaluation(tmp_path, command(tmp_path, shards, 2))
    succeed(*command(tmp_path, shards, 1))
    one, other = health(tmp_path), health(reference)
    assert [line["step"] for line in one] == [line["step"] for line in other] == [LOOK - 1, 2 * LOOK - 1, STEPS - 1]
    assert one[0]["loss"] == other[0]["loss"]
    assert one[0]["rankme"] == pytest.approx(other[0]["rankme"], rel=1e-5)


def test_a_stop_while_the_random_encoder_is_measured_ends_the_run_before_its_first_step(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, 2)
    process = start(*words, "--fault", "slow_baseline", script=FAULTY)
    wait_until(lambda: (tmp_path / "training.log").exists(), 60, "the run's start")
    time.sleep(0.3)
    assert "stopped before the first step; the same command starts over" in stopped(process)
    assert not (tmp_path / "attempts" / "0001.json").exists()
    succeed(*words)
    equals(tmp_path, undisturbed(2))


def test_a_stop_in_the_last_step_leaves_its_evaluation_to_the_next_start(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, 2)
    process = start(*words, "--fault", "slow_steps", script=FAULTY)
    wait_for_lines(process, tmp_path, STEPS - 1)
    assert f"stopped after {STEPS} steps, which are saved" in stopped(process)
    succeed(*words)
    equals(tmp_path, undisturbed(2))


@pytest.mark.parametrize(
    ("fault", "word", "times"), [("slow_probe", "_probe", 4), ("slow_export", "export_encoder", 1)]
)
def test_a_stop_behind_the_last_point_that_counts_lets_the_run_end(undisturbed, shards, tmp_path, fault, word, times):
    process = start(*command(tmp_path, shards, 2), "--fault", fault, script=FAULTY)
    told = iter(process.stdout.readline, "")
    for _ in range(times):
        assert any(line == f"{word} in 3 s\n" for line in told)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err, out + err
    equals(tmp_path, undisturbed(2))
