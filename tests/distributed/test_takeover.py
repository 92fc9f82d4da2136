"""A job that is started again takes its folder from an orphan, which ends by itself and leaves no trace in it."""

import csv
import json

import pytest

from src.checkpoints.read import checkpoint_folders
from tests.commands import (
    FAULTY,
    alive,
    audit,
    debug_run,
    descendants,
    health,
    kill_tree,
    logged,
    metrics,
    refuse,
    same_tensors,
    start,
    succeed,
    wait_for_lines,
    wait_until,
)

pytestmark = pytest.mark.distributed
STEPS, EVERY, LOOK = 24, 4, 6


def command(folder, shards, world_size):
    own = ["data.micro_batch_size=4", f"evaluation.every={LOOK}", f"checkpoint.every={EVERY}"]
    return debug_run(folder, shards, world_size, STEPS, *own)


@pytest.fixture
def started(monkeypatch):
    """Says which start of which job the commands that follow belong to."""

    def say(job, restart):
        monkeypatch.setenv("MEDSSL_JOB", job)
        monkeypatch.setenv("MEDSSL_RESTART", str(restart))

    return say


def ends_by_itself(orphan, folder):
    """With one sentence that names its successor, whose run has all of its processes gone."""
    members = descendants(orphan.pid)
    try:
        _, err = orphan.communicate(timeout=60)
    except Exception:
        kill_tree(orphan.pid)
        raise
    assert orphan.returncode == 1 and "Traceback" not in err, err
    sentence = f"error: {folder} was taken over by process "
    assert err.startswith(sentence) and "(job 7, restart 1), which goes on; this attempt ends" in err, err
    wait_until(lambda: not alive(members), 10, "processes left")


def equals(folder, reference):
    assert metrics(folder) == metrics(reference)
    assert audit(folder) == audit(reference)
    assert health(folder) == health(reference)
    assert same_tensors(folder, reference)
    with (folder / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(STEPS))
    assert not list(folder.rglob("*.partial")) and not list(folder.rglob("*.draft"))


def test_the_next_start_of_a_job_goes_on_while_the_one_before_still_trains(undisturbed, shards, tmp_path, started):
    words = command(tmp_path, shards, 2)
    started("7", 0)
    orphan = start(*words, "--fault", "slow_steps", script=FAULTY)
    wait_for_lines(orphan, tmp_path, 1)
    started("7", 1)
    assert "continuing from" in succeed(*words)
    ends_by_itself(orphan, tmp_path)
    first, second = (json.loads(path.read_text())["start"] for path in sorted((tmp_path / "attempts").iterdir()))
    assert first == 0 and EVERY <= second < STEPS, "from the orphan's last checkpoint"
    equals(tmp_path, undisturbed(2))


MOMENTS = {
    "checkpoint": (2, "slow_disk", lambda run: list(run.glob("checkpoints/step-*8.attempt-1.partial"))),
    "background": (1, "slow_disk", lambda run: list(run.glob("checkpoints/step-*8.attempt-1.partial"))),
    "evaluation": (2, "slow_evaluation", lambda run: logged(run) == LOOK),
    "start": (1, "slow_baseline", lambda run: (run / "owner.lock").exists() and (run / "training.log").exists()),
    "export": (1, "slow_export", lambda run: list(run.glob(f"checkpoints/step-*{STEPS}.attempt-1"))),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_orphan_that_wakes_up_later_touches_nothing(undisturbed, shards, tmp_path, started, moment):
    world_size, fault, reached = MOMENTS[moment]
    words = [*command(tmp_path, shards, world_size), f"checkpoint.background={str(moment == 'background').lower()}"]
    started("7", 0)
    orphan = start(*words, "--fault", fault, script=FAULTY)
    wait_until(lambda: reached(tmp_path) or orphan.poll() is not None, 240, moment)
    members = descendants(orphan.pid)
    for member in members:
        member.suspend()
    assert orphan.poll() is None and reached(tmp_path), "the orphan was stopped too late"
    if moment == "start":
        started("8", 3)
        assert "(job 7, restart 0); stop that run or set another logging.folder" in refuse(*words)
    started("7", 1)
    succeed(*words)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for member in members:
        member.resume()
    ends_by_itself(orphan, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    numbers = {int(path.name.split("-")[-1]) for path in checkpoint_folders(tmp_path / "checkpoints")}
    assert 2 in numbers or moment == "export"
    equals(tmp_path, undisturbed(world_size))
