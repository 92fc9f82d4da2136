"""A rank that waits for a batch learns what it waits for: dead workers at once, slow ones when the time is up."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch

from src.config.data import DataConfig
from src.data.ecg_shards import ECGShards
from src.data.loader import Loader
from src.data.write_shards import write_shards
from src.distributed.ranks import Ranks
from tests.commands import ROOT, alive, wait_until
from tests.data.conftest import LEADS, describe, records


class Collate:
    """Takes its time at a step; whatever happens before is in the past by then."""

    def __init__(self, slow_step=-1, seconds=0.0):
        self.slow_step, self.seconds = slow_step, seconds

    def __call__(self, step, samples, streams):
        if step == self.slow_step:
            time.sleep(self.seconds)
        return {"ecg": torch.from_numpy(np.stack([sample["ecg"] for sample in samples]))}


class Decoding(Collate):
    def prepare(self, sample, streams):
        if sample["key"] == "ecg-0003":
            time.sleep(60)
        return sample


@pytest.fixture
def folder(tmp_path):
    """30 training records in tars of 7."""
    write_shards(tmp_path / "shards", records(30, split="train"), describe(), samples_per_shard=7)
    return tmp_path / "shards"


def loader(root, collate=None, **settings):
    """One that knows all shards and has none of them open."""
    config = DataConfig(root="unused", batch_size=10, leads=LEADS, **settings)
    with ECGShards(root, "train", LEADS) as shards:
        shards.read(np.arange(30))
    return Loader(config, shards, collate or Collate(), Ranks(1, 2, torch.device("cpu")), seed=3)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No worker outlives a loader, and signals and alarms are as they were."""
    before = signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGALRM)
    alarmed = signal.getitimer(signal.ITIMER_REAL)[0]
    yield
    assert (signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGALRM)) == before
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (alarmed > 0)
    wait_until(lambda: not alive(workers()), 5, "workers left")


def workers():
    """In the order in which they were started; what earlier tests have left beside them is none."""
    return [psutil.Process(number) for number in sorted(child.pid for child in multiprocessing.active_children())]


def fifo(tar):
    """Whoever opens it waits for a writer that never comes."""
    tar.unlink()
    os.mkfifo(tar)


KILLED = {
    signal.SIGKILL: "was killed by SIGKILL (often: out of memory)",
    signal.SIGBUS: "was killed by SIGBUS (often: out of memory, or a file was cut while it was read)",
    signal.SIGSEGV: "was killed by SIGSEGV (often: a decoder came to grief on a damaged file)",
}


@pytest.mark.parametrize("number", KILLED)
def test_a_worker_that_dies_while_it_is_waited_for_is_named_at_once(folder, number):
    steps = loader(folder, Collate(slow_step=3, seconds=60), workers=2).steps(0, 20)
    for _ in range(3):
        next(steps)
    victim = workers()[1]  # makes steps 1, 3, ...
    killing = threading.Timer(0.3, victim.send_signal, [number])
    killing.start()
    begun = time.monotonic()
    with pytest.raises(ValueError) as raised:
        next(steps)
    killing.join()
    assert time.monotonic() - begun < 4
    expected = f"rank 1: loader worker 1 (process {victim.pid}), last collating step 3, {KILLED[number]}: lower"
    assert str(raised.value).startswith(expected)


def test_a_worker_that_dies_in_the_middle_of_a_training_step_is_named_at_the_next(folder):
    steps = loader(folder, workers=2).steps(0, 20)
    next(steps)
    workers()[0].kill()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        sum(range(1000))
    with pytest.raises(ValueError, match=r"^rank 1: loader worker 0 \(process \d+\), last .*, was killed by SIGKILL"):
        next(steps)


class Leaving(Collate):
    def __call__(self, step, samples, streams):
        os._exit(7)


def test_a_worker_that_leaves_is_named_with_its_code(folder):
    with pytest.raises(ValueError, match=r"loader worker 0 \(process \d+\), last collating step 0, ended with code 7"):
        next(loader(folder, Leaving(), workers=1).steps(0, 3))


class Unpicklable(Collate):
    def __call__(self, step, samples, streams):
        return {"made": lambda: step}


def test_a_batch_that_cannot_be_handed_over_ends_the_run_at_once(folder):
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=r"can't be handed from a loader worker to its rank \(.*lambda.*: let its coll"
    ):
        next(loader(folder, Unpicklable(), workers=1).steps(0, 3))
    assert time.monotonic() - begun < 4


class _Local(Collate):
    """Raises what no other process can read."""

    def __call__(self, step, samples, streams):
        class Unheard(Exception):
            pass

        raise Unheard(step)


def test_an_error_that_cannot_be_told_ends_the_run_at_once(folder, capfd):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"worker 0 \(process \d+\), last handing over a batch \(.*Unheard.*code 1: "):
        next(loader(folder, _Local(), workers=1).steps(0, 3))
    assert time.monotonic() - begun < 4
    assert "Traceback" in capfd.readouterr().err


LARGE = """
import pathlib, sys
import torch
from tests.data.test_watch import Collate, loader
class Large(Collate):
    def __call__(self, step, samples, streams):
        return {"large": torch.full((4_000_000,), step)}
batches = loader(pathlib.Path(sys.argv[1]), Large(), workers=1).steps(0, 5)
print([int(batch["large"][-1]) for (batch,) in batches])
"""
TINY = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]


@pytest.mark.skipif(subprocess.run([*TINY, "true"], capture_output=True).returncode != 0, reason="may not mount")
def test_large_batches_need_no_room_in_dev_shm(folder):
    command = [*TINY, sys.executable, "-c", LARGE, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 1, 2, 3, 4]\n", done


def test_a_worker_that_dies_before_its_first_line_is_named(folder, monkeypatch):
    """Ten times: it may be dead before the rank knows its process, while the rank starts another, or later."""
    monkeypatch.setattr("src.data.loader.die_with_parent", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    begun = time.monotonic()
    for _ in range(10):
        with pytest.raises(
            ValueError, match=r"^rank 1: loader worker \d \(process \d+\), last starting, was killed by"
        ):
            next(loader(folder, workers=2).steps(0, 3))
    assert time.monotonic() - begun < 10


class Sloth:
    def __del__(self):
        time.sleep(1.2)


class Tidying(Collate):
    def __call__(self, step, samples, streams):
        Sloth()
        time.sleep(60)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_that_a_destructor_swallows_comes_again(folder):
    sentence = waited(folder, Tidying(), workers=0)
    assert re.search(r"the rank itself has been collating step 0 for [12] s", sentence)


def waited(root, collate=None, harm=None, steps=6, **settings):
    """The sentence with which a wait of a second ended."""
    waiting = loader(root, collate, timeout=1.0, **settings)
    if harm is not None:
        harm()
    begun = time.monotonic()
    with pytest.raises(ValueError) as raised:
        for _ in waiting.steps(0, steps):
            begun = time.monotonic()
    assert 0.9 < time.monotonic() - begun < 5
    return str(raised.value)


ROW = r"worker \d \(process \d+\) has been {} for [01] s"


def test_a_slow_shard_is_named(folder):
    sentence = waited(folder, harm=lambda: fifo(folder / "train-000002.tar"), workers=2)
    assert re.match(r"rank 1 has waited 1 s for the batch of step \d \(data\.timeout\): worker 0 ", sentence)
    assert re.search(ROW.format(r"reading train-000002\.tar"), sentence)


def test_a_slow_sample_is_named(folder):
    sentence = waited(folder, Decoding(), steps=20, workers=2)
    assert re.search(ROW.format("decoding sample ecg-0003"), sentence)


def test_a_slow_batch_is_named_and_who_is_done_says_so(folder):
    sentence = waited(folder, Collate(slow_step=1, seconds=60), steps=20, workers=2)
    assert "rank 1 has waited 1 s for the batch of step 1 (" in sentence
    assert re.search(f"{ROW.format('waiting for work')}; {ROW.format('collating step 1')}: see to", sentence)


def test_a_worker_that_is_stopped_is_told_as_such(folder):
    steps = loader(folder, workers=1, timeout=1.0).steps(0, 100)
    next(steps)
    workers()[0].suspend()
    with pytest.raises(ValueError, match=r"worker 0 \(process \d+\) has been .* for \d s, and is stopped: see to"):
        for _ in steps:
            pass


def test_a_rank_without_workers_looks_after_itself(folder):
    sentence = waited(folder, harm=lambda: fifo(folder / "train-000002.tar"), workers=0)
    assert re.search(r"the rank itself has been reading train-000002\.tar for [01] s: see to", sentence)


def test_a_rank_that_no_signal_reaches_ends_all_the_same():
    """As in a read from dead storage that the kernel does not let go of; here the signals are blocked."""
    code = (
        "import signal, time\n"
        "from src.data import watch\n"
        "from src.data.activity import Activity\n"
        "watch.GRACE_SECONDS = watch.POLL_SECONDS = 0.5\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "over = watch.Watch(Activity(1), 0, 0.5, alone=True)\n"
        "with over.on_duty(), over.waiting(3): time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("error: rank 0 has waited 0.5 s for the batch of step 3 (data.timeout): ")


def test_a_wait_leaves_an_alarm_of_others_running(folder):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        for _ in loader(folder, Collate(slow_step=1, seconds=0.2)).steps(0, 3):
            pass
        deadline = time.monotonic() + 2
        while not rung and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)
    assert rung == [1]
