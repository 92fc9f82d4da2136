"""What is wrong is told before anything is queued: all of it, by file, and nothing is written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.cluster.check import Check
from src.cluster.wanted import Wanted
from src.config import load_config
from src.config.data import STANDARD_LEADS, SyntheticConfig
from src.data.synthetic import make_synthetic
from src.run.belongs import probe_identity
from ssls.objectives import schema_of
from tests.cluster.calls import DEBUG, PROBE, call, files
from tests.commands import ROOT


@pytest.fixture
def shards(tmp_path):
    make_synthetic(tmp_path / "shards", SyntheticConfig(samples=16), STANDARD_LEADS)
    return tmp_path / "shards"


def faults(*overrides, config=DEBUG, processes=1, folder=None):
    check = Check(processes, schema_of)
    place = [f"logging.folder={folder}"] if folder else []
    found = check.configs([Wanted(Path(config), (*place, *overrides))])
    assert bool(found) != bool(check.faults)
    return check.faults


def test_the_submitting_side_does_without_torch():
    code = "import sys, main_distributed; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_config_that_makes_its_own_samples_needs_none(tmp_path):
    assert faults(folder=tmp_path / "run") == []


def test_shards_are_counted(tmp_path, shards):
    check = Check(1, schema_of)
    settings = (f"data.root={shards}", "data.synthetic=null", f"logging.folder={tmp_path}/run")
    (checked,) = check.configs([Wanted(Path(DEBUG), settings)])
    index = json.loads((shards / "index.json").read_text())
    assert checked.samples == sum(shard["samples"] for shard in index["splits"]["train"])


def test_what_is_wrong_with_shards_is_told(tmp_path, shards):
    real = [f"data.root={shards}", "data.synthetic=null"]
    (told,) = faults("data.synthetic=null", f"data.root={tmp_path}/no", folder=tmp_path / "run")
    assert told.startswith(f"{DEBUG}: {tmp_path}/no holds no index.json")
    (told,) = faults(*real, "data.split=trian", folder=tmp_path / "run")
    assert f"{shards} has no split trian: set data.split to one of train, val" in told
    (told,) = faults(*real, f"data.mixture.b.root={shards}", "data.mixture.b.split=x", folder=tmp_path / "run")
    assert "set data.mixture.b.split to one of" in told
    next(shards.glob("train*.tar")).unlink()
    (told,) = faults(*real, folder=tmp_path / "run")
    assert "is missing though" in told


def test_an_address_is_asked_too(tmp_path):
    settings = ["data.synthetic=null", "data.root=http://user:secret@127.0.0.1/x", "data.cache={folder: c, size: 1}"]
    (told,) = faults(*settings, folder=tmp_path / "run")
    assert "leave credentials to the environment" in told and "secret" not in told


def test_a_probe_needs_its_splits_and_its_encoder(tmp_path, shards):
    real = [f"data.root={shards}", f"init_from={tmp_path}/encoder", "data.tests={other: {split: val}}"]
    told = faults(*real, "data.train=tain", config=PROBE, folder=tmp_path / "run")
    assert len(told) == 2
    assert "init_from" in told[0] and "an exported encoder/" in told[0]
    assert "set data.train to one of" in told[1]
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").touch()
    assert faults(*real, config=PROBE, folder=tmp_path / "run") == []


def test_weights_to_start_from_must_be_there(tmp_path):
    (told,) = faults(f"init_from={tmp_path}/gone", folder=tmp_path / "run")
    assert f"init_from: {tmp_path}/gone is not there" in told
    checkpoint = tmp_path / "gone" / "checkpoints" / "step-00000005.attempt-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").touch()
    assert faults(f"init_from={tmp_path}/gone", folder=tmp_path / "run") == []


def test_a_batch_must_be_shared_equally_by_all_tasks(tmp_path):
    (told,) = faults(folder=tmp_path / "run", processes=6)
    assert "data.batch_size 16 cannot be shared equally by 6" in told


def test_a_run_folder_must_be_writable(tmp_path):
    (tmp_path / "file").touch()
    (told,) = faults(folder=tmp_path / "file" / "run")
    assert f"because {tmp_path}/file is not a folder" in told


def test_a_run_folder_of_another_experiment_is_refused(tmp_path):
    run = tmp_path / "run"
    check = Check(1, schema_of)
    (checked,) = check.configs([Wanted(Path(DEBUG), (f"logging.folder={run}",))])
    from src.config.identity import identity
    from src.run.folder import Attempt, RunFolder

    folder = RunFolder(run)
    folder.attempts.mkdir(parents=True)
    folder.record_attempt(Attempt(1, 0, 5, 1, identity(checked.config), "x", {}))
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    assert faults(folder=run) == []
    (told,) = faults("optimization.lr=2e-3", folder=run)
    assert f"{run} was trained with optimization.lr = 0.001, but the config says 0.002" in told


def test_a_run_folder_of_another_probe_is_refused(tmp_path, shards):
    run, encoder = tmp_path / "run", tmp_path / "model.safetensors"
    encoder.touch()
    settings = [f"init_from={tmp_path}", f"data.root={shards}"]
    config = load_config(Path(PROBE), [*settings, f"logging.folder={run}"], schema_of)
    run.mkdir()
    found = {"identity": probe_identity(config) | {"data_sha256": {"train": "1"}, "weights_sha256": ["2"]}}
    (run / "results.json").write_text(json.dumps(found))
    assert faults(*settings, config=PROBE, folder=run) == []
    (told,) = faults(*settings, "head.folds=7", config=PROBE, folder=run)
    assert f"{run}/results.json holds the results of a probe with head.folds = 5, but the config says 7" in told
    (run / "results.json").unlink()
    (run / "checkpoints").mkdir()
    (told,) = faults(*settings, config=PROBE, folder=run)
    assert f"logging.folder: {run} is the folder of a training run; name another for the probe" in told


def test_two_jobs_can_not_share_a_run_folder(tmp_path):
    check = Check(1, schema_of)
    place = f"logging.folder={tmp_path}/run"
    check.configs([Wanted(Path(DEBUG), (place,)), Wanted(Path(DEBUG), (f"{place}/../run", "seed=1"))])
    assert len(check.faults) == 1 and f"is that of {DEBUG} too; give each one of its own" in check.faults[0]


def test_all_errors_of_a_batch_are_told_at_once_and_nothing_is_written(tmp_path):
    (tmp_path / "b.yaml").write_text(
        f"- {DEBUG}\n- nothere.yaml\n- {{fname: {DEBUG}, set: [optimization.lrr=1]}}\n"
        f"- {{fname: {DEBUG}, set: [init_from=gone, logging.folder=runs/b]}}\n"
    )
    before = files(tmp_path)
    for cluster in ("local", "slurm"):
        done = call(
            tmp_path,
            "--batch-launch",
            "b.yaml",
            "--cluster",
            cluster,
            "--time",
            "1",
            sbatch="exit 9",
            srun="",
            sinfo="echo main",
        )
        lines = done.stderr.splitlines()
        assert done.returncode == 1 and done.stdout == ""
        assert lines[0] == "error: 4 things are wrong, nothing was submitted:"
        for word in ("--signal-delay", "nothere.yaml does not exist", "optimization.lrr", "init_from: gone"):
            assert any(word in line for line in lines), word
        assert files(tmp_path) == before


def test_a_fault_that_a_sweep_has_in_common_is_told_once(tmp_path):
    check = Check(1, schema_of)
    settings = (f"logging.folder={tmp_path}", "data.synthetic=null", f"data.root={tmp_path}/no")
    check.configs([Wanted(Path(DEBUG), settings, (f"seed={seed}",), f"seed-{seed}") for seed in range(5)])
    assert len(check.faults) == 1
    check.configs([Wanted(Path(DEBUG), (), ("seed=x",), "seed-x")])
    assert check.faults[1].startswith("--sweep seed=x: seed must be")


def test_an_unknown_partition_is_refused_before_anything_is_queued(tmp_path):
    done = call(tmp_path, "--fname", DEBUG, "--partition", "mian", sbatch="exit 9", srun="", sinfo="echo 'main|gpu:2'")
    assert done.returncode == 1
    assert done.stderr == "error: --partition mian: the cluster has main; did you mean main?\n"


def test_without_slurm_a_sentence_says_so(tmp_path):
    done = call(tmp_path, "--fname", DEBUG)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --cluster slurm: sbatch and srun not on PATH")


def test_a_run_that_is_in_the_queue_already_is_not_queued_again(tmp_path):
    submission = tmp_path / "runs" / "jepa_ecg_debug" / "submissions" / "0001"
    submission.mkdir(parents=True)
    (submission / "job").write_text("slurm 12_3\n")
    row = "12_3".ljust(40) + "PENDING".ljust(20) + "Resources".ljust(80) + "0".ljust(12)
    done = call(tmp_path, "--fname", DEBUG, sbatch="exit 9", srun="", squeue=f"echo '{row}'")
    assert done.returncode == 1
    assert "job 12_3 is PENDING with the same run folder" in done.stderr and "`scancel 12_3`" in done.stderr
