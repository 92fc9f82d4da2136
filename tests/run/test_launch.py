"""What --devices may say."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.run.launch import parse_devices

ROOT = Path(__file__).resolve().parents[2]


def test_each_entry_is_one_process():
    assert parse_devices(["cpu", "cpu"]) == ["cpu", "cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_without_the_flag_a_machine_without_gpus_is_one_cpu_process():
    assert parse_devices([]) == ["cpu"]


@pytest.mark.parametrize("words", [["gpu"], ["cuda:x"], ["cpu:0"], ["cuda:99"], ["cpu", "cuda:0"]])
def test_what_is_not_a_device_here_is_refused(words):
    with pytest.raises(ValueError, match="--devices"):
        parse_devices(words)


def test_the_launcher_of_a_cpu_run_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['main.py', '--fname', 'configs/jepa/ecg_debug.yaml', '--devices', 'cpu'];"
        "import main; main.launch = lambda devices: 0; assert main.main() == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
