"""A process without a sign of life ends and says where it stood; one with them, or at rest, does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

from src.run.failure import STACKS_HEADER, describe_hang, hung_ranks

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys, time
from src.run.watchdog import Watchdog

def stand_still():
    time.sleep(30)

watchdog = Watchdog(0.5, 3)
watchdog.beat("in step 7")
{}
"""


def run(folder, body):
    """Run a script with a watchdog of half a second."""
    named = {"MEDSSL_FAILURES": str(folder)} if folder else {}
    words = [sys.executable, "-c", CODE.format(body)]
    return subprocess.run(words, cwd=ROOT, env=os.environ | named, capture_output=True, text=True, timeout=20)


def test_a_process_that_stands_still_is_ended_and_its_stacks_are_left(tmp_path):
    done = run(tmp_path, "stand_still()")
    assert done.returncode == 1 and not done.stderr
    ((rank, stacks),) = hung_ranks(tmp_path).items()
    assert rank == 3 and "in stand_still" in stacks
    assert describe_hang(hung_ranks(tmp_path)) == "rank 3 in step 7: no sign of life for 0.5 s (engine.timeout)"


def test_nothing_is_needed_from_the_interpreter(tmp_path):
    """A call in C that keeps the interpreter's lock, as a driver may."""
    assert run(tmp_path, "import ctypes; ctypes.PyDLL(None).sleep(30)").returncode == 1
    assert "<module>" in hung_ranks(tmp_path)[3]


def test_signs_of_life_and_rest_are_heeded(tmp_path):
    body = "for _ in range(50):\n    time.sleep(0.02)\n    watchdog.beat()\nwatchdog.rest()\ntime.sleep(1)\nsys.exit(5)"
    assert run(tmp_path, body).returncode == 5
    assert not hung_ranks(tmp_path) and (tmp_path / "rank-3.stacks").stat().st_size == STACKS_HEADER


def test_where_more_time_is_due_it_is_given_and_then_no_longer(tmp_path):
    body = 'watchdog.beat("in the meeting", at_least=2)\ntime.sleep(1)\n{}stand_still()'
    begun = time.monotonic()
    assert run(tmp_path, body.format("")).returncode == 1 and time.monotonic() - begun > 2
    assert describe_hang(hung_ranks(tmp_path)) == "rank 3 in the meeting: no sign of life for 2 s"
    assert run(tmp_path, body.format('watchdog.beat("in step 0")\n')).returncode == 1
    assert describe_hang(hung_ranks(tmp_path)) == "rank 3 in step 0: no sign of life for 0.5 s (engine.timeout)"


def test_without_a_folder_the_stacks_go_to_stderr():
    done = run(None, "stand_still()")
    assert done.returncode == 1 and "in stand_still" in done.stderr


def test_ranks_that_hung_at_the_same_place_are_told_together():
    hung = {0: "in step 3: x\nstack", 1: "in step 4: x\nstack", 2: "in step 3: x\nstack"}
    assert describe_hang(hung) == "ranks 0, 2 in step 3: x; rank 1 in step 4: x"
