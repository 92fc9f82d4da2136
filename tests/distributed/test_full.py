"""Whole runs: on real heartbeats (slow), and on GPUs (gpu)."""

import pytest
import torch

from tests.commands import metrics, succeed

DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml"]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_real_beats_train_from_the_command_line_alone(medssl_data, tmp_path):
    beats = medssl_data / "ecg" / "mitdb" / "beats.npz"
    succeed("tools.build_shards", "ecg", "--input", str(beats), "--output", str(tmp_path / "shards"), script="-m")
    words = ["--fname", "configs/jepa/ecg_mitdb_small.yaml", "--devices", "cpu", "cpu"]
    settings = [f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / 'run'}"]
    succeed(*words, "--set", *settings, timeout=1700)
    losses = [record["loss"] for record in metrics(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0] and (tmp_path / "run" / "encoder" / "model.safetensors").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_as_a_cpu_does(tmp_path, precision):
    """One GPU, and all of them, against the CPU: the same samples and masks, losses equal up to rounding."""
    count = torch.cuda.device_count()
    runs = {"cpu": ["cpu"], "one": ["cuda:0"], "all": [f"cuda:{number}" for number in range(count)]}
    losses = {}
    for name, devices in runs.items():
        settings = [f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / name}", "data.workers=1"]
        settings += [f"engine.precision={'fp32' if name == 'cpu' else precision}"]
        succeed(*DEBUG, "--devices", *devices, "--set", *settings)
        losses[name] = torch.tensor([record["loss"] for record in metrics(tmp_path / name)])
    tolerance = 1e-3 if precision == "fp32" else 2e-2
    for name in ("one", "all"):
        torch.testing.assert_close(losses[name], losses["cpu"], rtol=tolerance, atol=0)


@pytest.mark.gpu
def test_a_run_moves_from_gpu_to_cpu_and_back(tmp_path):
    settings = [f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / 'run'}"]
    succeed(*DEBUG, "--devices", "cuda:0", "--set", *settings)
    out = succeed(*DEBUG, "--devices", "cpu", "--set", *settings)
    assert "continuing from" in out and "finished 26 steps" in out
