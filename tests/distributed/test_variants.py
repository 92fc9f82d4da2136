"""What the configs offer besides the debug run's choices, and another launcher."""

import subprocess
import sys

import pytest

from tests.commands import ROOT, global_batches, metrics, succeed

pytestmark = pytest.mark.distributed
DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml"]
SHORT = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=6"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.mark.parametrize(
    "choice",
    [
        ["mask.style=complement", "mask.targets=3"],
        ["mask.style=legacy_ijepa", "mask.legacy_batch=16"],
        ["mask.style=runs", "mask.shortest=5"],
        ["loss.kind=l1"],
    ],
    ids=lambda choice: choice[0],
)
def test_every_mask_style_and_loss_trains(shards, tmp_path, choice):
    settings = ["--set", f"data.root={shards}", f"logging.folder={tmp_path}", *SHORT, *choice]
    succeed(*DEBUG, "--devices", "cpu", *settings)
    losses = [record["loss"] for record in metrics(tmp_path)]
    assert len(losses) == 6 and losses[-1] < losses[0]


def test_torchrun_starts_the_same_run(shards, tmp_path):
    settings = ["--set", f"data.root={shards}", *SHORT]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py"]
    words = [*DEBUG, *settings, f"logging.folder={tmp_path / 'torchrun'}"]
    done = subprocess.run([*torchrun, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    succeed(*DEBUG, "--devices", "cpu", "cpu", *settings, f"logging.folder={tmp_path / 'ours'}")
    assert global_batches(tmp_path / "torchrun") == global_batches(tmp_path / "ours")
    ours, theirs = ([record["loss"] for record in metrics(tmp_path / name)] for name in ("ours", "torchrun"))
    assert theirs == pytest.approx(ours, rel=1e-5)
