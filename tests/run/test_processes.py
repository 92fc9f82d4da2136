"""What is asked to stop and has nothing to save ends, whoever listens."""

import os
import signal
import subprocess
import sys

import pytest

from tests.commands import ROOT

NOTHING_TO_SAVE = """
import time
from src.distributed.processes import end_on_stops

end_on_stops()
print("on", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("heard", [True, False])
def test_a_process_that_saves_nothing_ends_at_once_though_its_terminal_is_gone(heard):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", NOTHING_TO_SAVE], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, text=True
    )
    os.close(writing)
    assert process.stdout.readline() == "on\n"
    if not heard:
        os.close(reading)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    if heard:
        assert os.read(reading, 100) == b"stopped by SIGTERM\n"
        os.close(reading)
    process.stdout.close()
