"""Whole runs: on real heartbeats (slow), and on GPUs (gpu)."""

import pytest
import torch

from src.data.ecg_shards import ECGShards
from tests.commands import lines, metrics, start, succeed, wait_until
from tests.health import variance_between_samples

DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml"]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_real_beats_train_from_the_command_line_alone_and_do_not_collapse(medssl_data, tmp_path):
    """0.76 was measured; 0.15 where the encoder had learned the positions alone."""
    beats = medssl_data / "ecg" / "mitdb" / "beats.npz"
    succeed("tools.build_shards", "ecg", "--input", str(beats), "--output", str(tmp_path / "shards"), script="-m")
    words = ["--fname", "configs/jepa/ecg_mitdb_small.yaml", "--devices", "cpu", "cpu"]
    settings = [f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / 'run'}"]
    succeed(*words, "--set", *settings, timeout=1700)
    losses = [record["loss"] for record in metrics(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]
    with ECGShards(tmp_path / "shards", "test", ("ECG1", "ECG2")) as shards:
        assert variance_between_samples(tmp_path / "run" / "encoder", shards) > 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gpus_train_as_a_cpu_does(tmp_path, precision, count):
    """The same samples and masks, and losses equal up to rounding; two GPUs talk through NCCL."""
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs")
    losses = {}
    for name, devices in {"cpu": ["cpu"], "gpu": [f"cuda:{number}" for number in range(count)]}.items():
        settings = [f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / name}", "data.workers=1"]
        settings += [f"engine.precision={'fp32' if name == 'cpu' else precision}"]
        succeed(*DEBUG, "--devices", *devices, "--set", *settings)
        losses[name] = torch.tensor([record["loss"] for record in metrics(tmp_path / name)])
    tolerance = 1e-3 if precision == "fp32" else 2e-2
    torch.testing.assert_close(losses["gpu"], losses["cpu"], rtol=tolerance, atol=0)


@pytest.mark.gpu
def test_a_run_moves_from_gpu_to_cpu_and_back(tmp_path):
    settings = ["--set", f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / 'run'}"]
    settings += ["optimization.epochs=null", "optimization.steps=400"]
    for device, reached in (("cuda:0", 50), ("cpu", 150)):
        process = start(*DEBUG, "--devices", device, *settings)
        wait_until(lambda goal=reached: len(lines(tmp_path / "run" / "metrics.jsonl")) >= goal, 120, f"step {reached}")
        process.kill()
        process.communicate()
    out = succeed(*DEBUG, "--devices", "cuda:0", *settings)
    assert "continuing from" in out and "finished 400 steps" in out
