"""Signals at awkward moments: before the program stands, in a step that waits for a child, during a checkpoint, in the
last step, in the export; to whole jobs, and to what has nothing to save.
"""

import os
import signal
import socket
import subprocess
import sys

import pytest

from src.checkpoints.read import checkpoint_folders
from src.distributed.processes import STOPS, block_stops
from tests.commands import (
    FAULTY,
    LAUNCH_VARIABLES,
    ROOT,
    alive,
    audit,
    debug_run,
    descendants,
    environment,
    logged,
    metrics,
    same_tensors,
    start,
    succeed,
    wait_for_lines,
    wait_until,
)

pytestmark = pytest.mark.distributed
STEPS = 12


def command(folder, shards, world_size, *settings):
    return debug_run(folder, shards, world_size, STEPS, "evaluation.every=null", "checkpoint.every=4", *settings)


def equal(one, other):
    return metrics(one) == metrics(other) and audit(one) == audit(other) and same_tensors(one, other)


def saved(folder):
    """The step of the newest checkpoint."""
    return int(checkpoint_folders(folder / "checkpoints")[0].name[5:13])


def signalled_before_it_begins():
    """In the child, before exec: blocked, as a task starts its rank, and there already."""
    block_stops()
    os.kill(os.getpid(), signal.SIGTERM)


def start_ranks(words, world_size):
    """Ranks as a task starts them; the last one has a signal waiting for it from its first moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    outside = {name: value for name, value in os.environ.items() if name not in LAUNCH_VARIABLES}
    same = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    return [
        subprocess.Popen(
            [sys.executable, "main.py", *words],
            cwd=ROOT,
            env=outside | meeting | same | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=signalled_before_it_begins if rank == world_size - 1 else block_stops,
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_signal_before_the_program_stands_saves_its_first_step(undisturbed, shards, tmp_path, world_size):
    for rank in start_ranks(command(tmp_path, shards, 0, "data.workers=1"), world_size):
        _, err = rank.communicate(timeout=100)
        assert rank.returncode == 128 + signal.SIGTERM and not err, err
    assert saved(tmp_path) == 1
    succeed(*command(tmp_path, shards, world_size))
    assert equal(tmp_path, undisturbed(world_size))


def test_a_launcher_that_was_started_with_signals_blocked_hears_them(shards, tmp_path):
    words = command(tmp_path, shards, 2)
    blocked = subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=ROOT,
        env=environment(),
        preexec_fn=signalled_before_it_begins,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert blocked.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM" in blocked.stderr, blocked
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_check_saves_nothing_and_ends_at_once(shards, tmp_path):
    (rank,) = start_ranks([*command(tmp_path, shards, 0), "--check"], 1)
    _, err = rank.communicate(timeout=100)
    assert rank.returncode == 128 + signal.SIGTERM and err == "stopped by SIGTERM\n"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)])
def test_a_rank_of_a_probe_that_is_asked_to_stop_ends_its_job_with_a_line(undisturbed, shards, tmp_path, number):
    words = ["--fname", "configs/probe/ecg_debug.yaml", "--devices", "cpu", "cpu", "--set", f"data.root={shards}"]
    words += [f"init_from={undisturbed(1)}", f"logging.folder={tmp_path}", "--fault", "slow_fit"]
    process = start(*words, script=FAULTY)
    assert any(line.startswith("fit_head in") for line in iter(process.stdout.readline, ""))
    first = next(rank for rank in descendants(process.pid) if rank.environ().get("RANK") == "0")
    first.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and err == f"stopped by {number.name}\n"
    assert not (tmp_path / "results.json").exists()


def send_all(pid, number):
    """To every process of a job, as SLURM does, but for its launcher."""
    everyone = {process: process.cmdline() for process in descendants(pid)}
    for process in everyone:
        process.send_signal(number)
    return everyone


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_of_a_job_spares_those_that_a_step_waits_for(undisturbed, shards, tmp_path, number):
    process = start(*command(tmp_path, shards, 1, "data.workers=1"), "--fault", "with_a_child", script=FAULTY)
    assert "a child is there\n" in iter(process.stdout.readline, "")
    wait_until(lambda: "cat" in [one.name() for one in descendants(process.pid) if one.cmdline()], 20, "its words")
    everyone = send_all(process.pid, number)
    assert ["cat"] in everyone.values() and len(everyone) > 2, "the rank, its worker, the child"
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in err, err
    assert saved(tmp_path) == 3
    wait_until(lambda: not alive([*everyone]), 10, "processes left")
    succeed(*command(tmp_path, shards, 1))
    assert equal(tmp_path, undisturbed(1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_a_signal_to_all_processes_while_the_first_step_is_compiled(shards, tmp_path, monkeypatch, device):
    """A compiler that dies would leave its block as it is, and say so."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = command(tmp_path / "run", shards, 1, "engine.compile=on", "model.encoder.depth=1")
    words[words.index("cpu")] = device
    process = start(*words)

    def compiling():
        compilers = ("cc1plus", "compile_worker")
        return [one for one in descendants(process.pid) if any(word in str(one.cmdline()) for word in compilers)]

    wait_until(lambda: compiling() or process.poll() is not None, 120, "a compiler")
    seen, everyone = compiling(), send_all(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert seen and process.returncode == 128 + signal.SIGTERM, err
    assert "WON'T CONVERT" not in err and saved(tmp_path / "run") == logged(tmp_path / "run") == 1
    wait_until(lambda: not alive([*everyone]), 60, "processes left")


def test_a_stop_that_a_library_has_let_through_is_noted(tmp_path):
    """As Python's resource tracker does when it starts, with SIGINT and SIGTERM."""
    code = (
        "import os, signal, time; from src.distributed.processes import unblock_stops, watch_stops; noted = []\n"
        "from tests.commands import wait_until\n"
        "watch_stops(noted.append); unblock_stops(); os.kill(os.getpid(), signal.SIGTERM)\n"
        "wait_until(lambda: len(noted) == 1, 20, 'the first')\n"
        "watch_stops(lambda number: noted.append(-number)); os.kill(os.getpid(), signal.SIGUSR1)\n"
        "wait_until(lambda: len(noted) == 2, 20, 'the second')\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.5)\n"
        "assert noted == [signal.SIGTERM, -signal.SIGUSR1], noted"
    )

    def no_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, preexec_fn=no_interrupts)


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_signal_while_a_checkpoint_is_written(undisturbed, shards, tmp_path, background):
    words = command(tmp_path, shards, 1, f"checkpoint.background={background}")
    process = start(*words, "--fault", "slow_disk", script=FAULTY)
    wait_until(lambda: list((tmp_path / "checkpoints").glob("step-*4.attempt-1.partial")), 60, "a checkpoint")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert 4 < saved(tmp_path) < STEPS and not list((tmp_path / "checkpoints").glob("*.partial"))
    succeed(*words)
    assert equal(tmp_path, undisturbed(1))


def test_a_signal_while_the_last_checkpoint_is_written_comes_too_late(undisturbed, shards, tmp_path):
    words = command(tmp_path, shards, 1, f"checkpoint.every={STEPS}")
    process = start(*words, "--fault", "slow_disk", script=FAULTY)
    wait_until(lambda: list((tmp_path / "checkpoints").glob("*.partial")), 60, "the checkpoint")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0 and not err and f"finished {STEPS} steps" in out, out + err
    assert equal(tmp_path, undisturbed(1)) and (tmp_path / "encoder" / "model.safetensors").exists()


def test_a_signal_while_the_encoder_is_exported_comes_too_late(undisturbed, shards, tmp_path):
    process = start(*command(tmp_path, shards, 1), "--fault", "slow_export", script=FAULTY)
    wait_for_lines(process, tmp_path, STEPS)
    wait_until(lambda: list((tmp_path / "checkpoints").glob(f"step-{STEPS:08d}.attempt-1")), 60, "the last checkpoint")
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0 and not err and f"finished {STEPS} steps" in out, out + err
    assert equal(tmp_path, undisturbed(1)) and (tmp_path / "encoder" / "model.safetensors").exists()


@pytest.mark.parametrize("blocked", [True, False])
def test_who_leaves_signals_to_others_neither_dies_of_them_nor_keeps_them(blocked):
    code = (
        "import os, signal, sys; from src.distributed.processes import STOPS, ignore_signals; ignore_signals()\n"
        "for number in STOPS: os.kill(os.getpid(), number)\n"
        "sys.exit(3 if signal.sigpending() or signal.pthread_sigmask(signal.SIG_BLOCK, []) else 5)"
    )
    before = signalled_before_it_begins if blocked else None
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=before).returncode == 5
    assert not set(STOPS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
