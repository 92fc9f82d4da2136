"""What breaks while a run reads: it goes on as if it had always been so, or all ranks end soon and one says why."""

import json
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from src.checkpoints.read import checkpoint_folders, open_checkpoint
from src.config.data import STANDARD_LEADS
from src.data.index import Labels, open_table, table_path
from src.data.make_index import make_index
from src.data.tars import TarWriter, tar_name
from src.data.write_shards import Description, Record, members
from tests.commands import (
    alive,
    audit,
    descendants,
    global_batches,
    kill_tree,
    lines,
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
STEPS, EVERY = 24, 4
SETTINGS = [
    "data.synthetic=null",
    "evaluation.every=null",
    "optimization.epochs=null",
    f"optimization.steps={STEPS}",
    f"checkpoint.every={EVERY}",
    "logging.every=1",
]


def make_shards(root, sizes):
    """Training tars with so many ECGs each, that are noise."""
    root.mkdir()
    rng = np.random.default_rng(0)
    description = Description(STANDARD_LEADS, 100.0, Labels(), {"made": "for a test"})
    tars, made = [], 0
    for size in sizes:
        tars.append(root / tar_name("train", len(tars)))
        tar = TarWriter(tars[-1])
        for number in range(made, made + size):
            signal_CT = rng.integers(-2000, 2000, (12, 420), np.int16)
            record = Record("train", f"e{number:04d}", signal_CT, {"id": str(number), "scale": [0.001] * 12})
            tar.add(record.key, members(record, description))
        tar.close()
        made += size
    make_index(root, {"train": tars}, description.contents())
    return root


def damage(root, keys):
    """Flip a byte of the signal of each of these samples."""
    for tar in root.glob("*.tar"):
        whole = bytearray(tar.read_bytes())
        for row in open_table(table_path(tar)):
            if row["key"].decode() in keys:
                whole[row["start"] + row["ecg.npy"]["offset"] + 500] ^= 1
        tar.write_bytes(whole)


def command(folder, shards, world_size, *settings):
    own = [f"logging.folder={folder}", f"data.root={shards}", *SETTINGS, *settings]
    return ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *["cpu"] * world_size, "--set", *own]


BROKEN = ("e0003", "e0017", "e0018", "e0031")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """50 samples in tars of very different sizes, four of them broken."""
    shards = make_shards(tmp_path_factory.mktemp("damaged") / "shards", [1, 30, 2, 17])
    damage(shards, BROKEN)
    return shards


@pytest.fixture(scope="module")
def undisturbed(damaged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    out = succeed(*command(folder, damaged, 1))
    assert "4 broken samples gave their places to others" in out
    return folder


def told(folder):
    """The list in the run folder, which must be that of the last checkpoint."""
    listed = lines(folder / "broken.jsonl")
    assert open_checkpoint(checkpoint_folders(folder / "checkpoints")[0]).manifest.state["broken"] == listed
    return listed


def test_broken_samples_are_listed_counted_and_told(undisturbed, damaged):
    listed = told(undisturbed)
    assert sorted(broken["key"] for broken in listed) == sorted(BROKEN)
    counts = [record["broken"] for record in metrics(undisturbed)]
    assert counts == [sum(broken["step"] <= step for broken in listed) for step in range(STEPS)]
    log = (undisturbed / "training.log").read_text()
    for broken in listed:
        assert f"{damaged / broken['shard']} is damaged at sample {broken['key']}" in broken["sentence"]
        assert f"warning: a broken sample is skipped from step {broken['step']} on: {broken['sentence']}" in log
    assert not {key for keys in global_batches(undisturbed).values() for key in keys} & set(BROKEN)


def killed_after(step, folder, *words):
    process = start(*words)
    wait_for_lines(process, folder, step)
    kill_tree(process.pid)
    process.communicate()


@pytest.mark.parametrize(("first", "then"), [(1, 0), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_a_killed_run_with_broken_samples_goes_on_bit_identically(undisturbed, damaged, tmp_path, first, then):
    killed_after(6, tmp_path, *command(tmp_path, damaged, 1, f"data.workers={first}"))
    assert checkpoint_folders(tmp_path / "checkpoints")
    succeed(*command(tmp_path, damaged, 1, f"data.workers={then}"))
    assert metrics(tmp_path) == metrics(undisturbed) and audit(tmp_path) == audit(undisturbed)
    assert told(tmp_path) == told(undisturbed)
    assert same_tensors(tmp_path, undisturbed)


def test_on_other_numbers_of_ranks_the_same_samples_take_the_same_slots(undisturbed, damaged, tmp_path):
    for world_size, step in ((2, 6), (4, 14)):
        killed_after(step, tmp_path, *command(tmp_path, damaged, world_size, "data.workers=1"))
    succeed(*command(tmp_path, damaged, 2))
    assert global_batches(tmp_path) == global_batches(undisturbed)
    assert told(tmp_path) == told(undisturbed)
    assert [record["broken"] for record in metrics(tmp_path)] == [record["broken"] for record in metrics(undisturbed)]
    losses = [[record["loss"] for record in metrics(folder)] for folder in (tmp_path, undisturbed)]
    assert np.allclose(*losses, rtol=1e-4)


def test_too_many_over_all_ranks_end_the_run_and_a_raised_limit_lets_it_go_on(undisturbed, damaged, tmp_path):
    words = command(tmp_path, damaged, 4)
    sentence = refuse(*words, "data.broken=3")
    assert "4 different broken samples and data.broken allows 3: repair the shards or raise data.broken" in sentence
    assert sum(key in sentence for key in BROKEN) == 3
    succeed(*words, "data.broken=4")
    assert global_batches(tmp_path) == global_batches(undisturbed)


def ends(process, seconds):
    """What a run that fails prints; all of its processes are gone within so many seconds."""
    members = descendants(process.pid)
    begun = time.monotonic()
    try:
        _, err = process.communicate(timeout=seconds + 10)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        raise
    assert time.monotonic() - begun < seconds and process.returncode == 1, err
    assert "Traceback" not in err, err
    wait_until(lambda: not alive(members), 10, "processes left")
    (sentence,) = [line for line in err.replace("\0", "").splitlines() if line.startswith("error: ")]
    return sentence


def endless(folder, shards, world_size, *settings):
    """A run that has begun and would go on for long."""
    own = ["optimization.steps=100000", "checkpoint.every=100000", "logging.audit=false", "logging.every=1", *settings]
    process = start(*command(folder, shards, world_size, *own))
    wait_for_lines(process, folder, 3)
    return process


def workers_of(process, rank):
    """The loader workers of a rank, in the order in which they were started."""
    ranks = sorted((p for p in descendants(process.pid) if p.ppid() == process.pid), key=lambda p: p.pid)
    return sorted(ranks[rank].children(), key=lambda worker: worker.pid)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """85 samples, in tars of which a reader can't keep all open."""
    return make_shards(tmp_path_factory.mktemp("whole") / "shards", [1] * 83 + [2])


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGBUS, marks=pytest.mark.slow)])
def test_a_dead_worker_ends_the_run_at_once_and_is_named(shards, tmp_path, number):
    process = endless(tmp_path, shards, 2, "data.workers=2")
    victim = workers_of(process, 1)[1]
    victim.send_signal(number)
    sentence = ends(process, 30)
    named = rf"error: rank 1: loader worker 1 \(process {victim.pid}\), last .*, was killed by {number.name} \(often: "
    assert re.match(named, sentence), sentence


def test_a_worker_that_is_stuck_ends_the_run_with_what_each_is_at(shards, tmp_path):
    process = endless(tmp_path, shards, 2, "data.workers=2", "data.timeout=6")
    workers = workers_of(process, 1)
    workers[0].suspend()
    sentence = ends(process, 30)
    assert re.match(r"error: rank 1 has waited 6 s for the batch of step \d+ \(data\.timeout\): worker 0 ", sentence)
    assert f"worker 0 (process {workers[0].pid}) has been " in sentence and "and is stopped; worker 1 (p" in sentence
    assert f"worker 1 (process {workers[1].pid}) has been waiting for work for " in sentence


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_shards_that_vanish_in_mid_run_end_it_with_the_file_and_the_cause(shards, tmp_path, workers):
    shutil.copytree(shards, tmp_path / "shards")
    process = endless(tmp_path / "run", tmp_path / "shards", 2, f"data.workers={workers}")
    for tar in (tmp_path / "shards").glob("*.tar"):
        tar.unlink()
    sentence = ends(process, 60)
    tar = rf"{re.escape(str(tmp_path / 'shards'))}/train-0000\d\d\.tar"
    assert re.match(rf"error: {tar} can't be read \(No such file or directory\) at 4 tries in 13 s: see to", sentence)


def test_shards_that_come_back_are_read_on_as_if_nothing_had_been(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "shards")
    steps = ["optimization.steps=200", "checkpoint.every=1000"]
    succeed(*command(tmp_path / "whole", shards, 2, *steps))
    process = start(*command(tmp_path / "run", tmp_path / "shards", 2, *steps))
    wait_for_lines(process, tmp_path / "run", 6)
    (tmp_path / "shards").rename(tmp_path / "away")
    time.sleep(3)
    reached = logged(tmp_path / "run")
    (tmp_path / "away").rename(tmp_path / "shards")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and reached < 200, out + err
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.parametrize(
    "sizes", [pytest.param([40], marks=pytest.mark.slow), [1, 1, 37, 1]], ids=["one-shard", "unequal"]
)
def test_four_ranks_make_equal_steps_of_any_shards(tmp_path, sizes):
    root = make_shards(tmp_path / "shards", sizes)
    succeed(*command(tmp_path / "four", root, 4, "optimization.steps=10"))
    succeed(*command(tmp_path / "one", root, 1, "optimization.steps=10"))
    assert all(len(rank) == 10 for rank in audit(tmp_path / "four").values())
    assert global_batches(tmp_path / "four") == global_batches(tmp_path / "one")


def test_an_empty_shard_can_not_be_in_an_index(tmp_path):
    root = make_shards(tmp_path / "shards", [20, 4])
    index = json.loads((root / "index.json").read_text())
    index["splits"]["train"][1]["samples"] = 0
    (root / "index.json").write_text(json.dumps(index))
    sentence = refuse(*command(tmp_path / "run", root, 1))
    assert "index.json is damaged (splits.train.1.samples: Input should be greater than 0" in sentence
