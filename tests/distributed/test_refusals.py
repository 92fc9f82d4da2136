"""What a user can get wrong: one sentence each, no traceback, and nothing that was whole is lost."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.checkpoints.manifest import read_manifest, write_manifest
from src.checkpoints.read import checkpoint_folders
from src.config.identity import identity
from src.config.load import load_config
from src.run.belongs import refuse_another_run
from ssls.objectives import schema_of
from tests.commands import (
    descendants,
    kill_tree,
    lines,
    logged,
    metrics,
    refuse,
    run,
    same_tensors,
    start,
    succeed,
    tensors,
    wait_until,
)
from tools.parity import ENGINES

pytestmark = pytest.mark.distributed
DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu"]


def settings(folder, shards, *extra):
    return ["--set", f"logging.folder={folder}", f"data.root={shards}", "evaluation.every=null", *extra]


def contents(folder):
    """Every file's checksum, but for the lock and the log of attempts."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("owner.lock", "training.log")
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished debug run and its shards."""
    root = tmp_path_factory.mktemp("trained")
    succeed(*DEBUG, *settings(root / "run", root / "shards"))
    return root


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that run that a test may harm."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def damage(folder, how):
    path = next(folder.glob("*.safetensors"))
    if how == "byte":
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
    else:
        path.unlink()
    return path


@pytest.mark.parametrize("how", ["byte", "file"])  # other damage: tests/checkpoints
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_continues(copy, trained, how):
    damaged = damage(checkpoint_folders(copy / "checkpoints")[0], how)
    out = succeed(*DEBUG, *settings(copy, trained / "shards"))
    assert f"warning: a damaged checkpoint is skipped and set aside: {damaged}" in out
    assert "continuing from" in out and "step-00000025" in out
    assert metrics(copy) == metrics(trained / "run")
    assert same_tensors(copy, trained / "run")


def test_all_checkpoints_damaged_stops_before_anything_is_touched(copy, trained):
    damaged = [damage(folder, "byte") for folder in checkpoint_folders(copy / "checkpoints")]
    before = contents(copy)
    sentence = refuse(*DEBUG, *settings(copy, trained / "shards"))
    assert "is whole" in sentence and all(str(path) in sentence for path in damaged)
    assert contents(copy) == before


def test_lost_checkpoints_do_not_start_a_trained_run_over(copy, trained):
    shutil.rmtree(copy / "checkpoints")
    before = contents(copy)
    sentence = refuse(*DEBUG, *settings(copy, trained / "shards"))
    assert f"{copy} has trained up to step 25 but holds no checkpoint" in sentence
    assert contents(copy) == before


def test_a_changed_config_is_refused_and_touches_nothing(copy, trained):
    before = contents(copy)
    sentence = refuse(*DEBUG, *settings(copy, trained / "shards", "optimization.lr=0.5"))
    assert "optimization.lr = 0.001, but the config says 0.5" in sentence and "logging.folder" in sentence
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimization.lr=0.5", "optimization.lr = 0.001, but the config says 0.5"),
        ("model.encoder.depth=3", "model.encoder.depth = 2, but the config says 3"),
        ("seed=7", "seed = 0, but the config says 7"),
        ("mask.style=complement", "mask.style = multiblock"),
    ],
)
def test_a_changed_config_is_refused_by_its_key(change, told):
    trained, changed = (load_config(Path(DEBUG[1]), words, schema_of) for words in ([], [change]))
    with pytest.raises(ValueError, match=re.escape(told)):
        refuse_another_run(Path("run"), identity(trained), "", changed, None)


def halfway(folder, shards, *extra):
    """A run killed after its first checkpoints."""
    process = start(*DEBUG, *settings(folder, shards, *extra))
    wait_until(lambda: logged(folder) >= 12, 60, "training")
    kill_tree(process.pid)
    process.communicate()
    return logged(folder)


def test_changes_that_do_not_change_the_run_are_welcome(trained, tmp_path):
    halfway(tmp_path, trained / "shards")
    changes = ["data.workers=1", "data.micro_batch_size=16", "checkpoint.every=7", "engine.name=ddp"]
    out = succeed(*DEBUG, *settings(tmp_path, trained / "shards", *changes))
    assert "continuing from" in out and "warning: engine.name is ddp" in out
    assert metrics(tmp_path) == metrics(trained / "run")
    assert same_tensors(tmp_path, trained / "run")


def test_a_config_changed_before_the_first_checkpoint_is_refused_too(trained, tmp_path):
    halfway(tmp_path, trained / "shards", "checkpoint.every=1000")
    before = contents(tmp_path)
    sentence = refuse(*DEBUG, *settings(tmp_path, trained / "shards", "checkpoint.every=1000", "seed=9"))
    assert f"{tmp_path} was trained with seed = 0, but the config says 9" in sentence
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_may_save_more_often(trained, tmp_path):
    reached = halfway(tmp_path, trained / "shards", "checkpoint.every=1000")
    assert reached > 10
    succeed(*DEBUG, *settings(tmp_path, trained / "shards", "checkpoint.every=5"))
    assert metrics(tmp_path) == metrics(trained / "run")


SHARING = ["fsdp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "zero1", "zero3"))]


@pytest.mark.parametrize("engine", SHARING)
def test_weights_of_another_size_are_refused_by_name_under_every_engine(trained, tmp_path, engine):
    changes = [f"init_from={trained / 'run'}", "model.encoder.width=48", *ENGINES[engine]]
    sentence = refuse(*DEBUG, "cpu", *settings(tmp_path / "run", trained / "shards", *changes))
    assert re.search(r"model \S+ has shape \[.*\], the model wants \[.*\]", sentence), sentence


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("zero3", "byte"),
        *(
            pytest.param(*which, marks=pytest.mark.slow)
            for which in (("ddp", "byte"), ("fsdp", "byte"), ("fsdp", "file"))
        ),
    ],
)  # a file that is missing is found before any engine reads
def test_a_damaged_checkpoint_is_named_under_every_engine(copy, trained, engine, how):
    damaged = [damage(folder, how) for folder in checkpoint_folders(copy / "checkpoints")]
    sentence = refuse(*DEBUG, "cpu", *settings(copy, trained / "shards", *ENGINES[engine]))
    assert all(str(path) in sentence for path in damaged)


def test_a_checkpoint_of_a_newer_format_is_told(copy, trained):
    newest = checkpoint_folders(copy / "checkpoints")[0]
    write_manifest(newest, replace(read_manifest(newest), format=99))
    assert "format 99, this version reads 1" in refuse(*DEBUG, *settings(copy, trained / "shards"))


def test_other_shards_are_refused(copy, trained, tmp_path):
    shutil.copytree(trained / "shards", tmp_path / "shards")
    index = tmp_path / "shards" / "index.json"
    index.write_text(index.read_text().replace('"fast"', '"quick"'))
    before = contents(copy)
    sentence = refuse(*DEBUG, *settings(copy, tmp_path / "shards", "data.synthetic.samples=64"))
    assert "was trained on other shards" in sentence and str(tmp_path / "shards") in sentence
    assert contents(copy) == before


def test_two_runs_into_one_folder_are_refused_and_the_first_goes_on(trained, tmp_path):
    endless = ["optimization.epochs=null", "optimization.steps=100000", "logging.every=1", "checkpoint.every=100000"]
    first = start(*DEBUG, *settings(tmp_path, trained / "shards", *endless))
    try:
        wait_until(lambda: logged(tmp_path) > 1, 60, "training")
        sentence = refuse(*DEBUG, *settings(tmp_path, trained / "shards", *endless))
        assert f"{tmp_path} is in use by process {descendants(first.pid)[0].pid} on " in sentence
        reached = logged(tmp_path)
        wait_until(lambda: logged(tmp_path) > reached, 60, "the first run goes on")
    finally:
        kill_tree(first.pid)
        first.communicate()


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_flipped_byte_in_a_shard_is_named(trained, tmp_path, workers):
    shutil.copytree(trained / "shards", tmp_path / "shards")
    tar = next((tmp_path / "shards").glob("train-*.tar"))
    whole = bytearray(tar.read_bytes())
    whole[len(whole) // 3] ^= 4
    tar.write_bytes(whole)
    none = ["data.broken=0", f"data.workers={workers}"]
    sentence = refuse(*DEBUG, *settings(tmp_path / "run", tmp_path / "shards", *none))
    assert str(tar) in sentence and "damaged" in sentence and "data.broken allows 0" in sentence


def test_a_flipped_byte_ends_an_evaluation_whatever_training_skips(trained, tmp_path):
    shutil.copytree(trained / "shards", tmp_path / "shards")
    tar = next((tmp_path / "shards").glob("val-*.tar"))
    whole = bytearray(tar.read_bytes())
    whole[len(whole) // 3] ^= 4
    tar.write_bytes(whole)
    sentence = refuse(*DEBUG, *settings(tmp_path / "run", tmp_path / "shards", "data.broken=10", "evaluation.every=5"))
    assert f"{tar} is damaged at sample synthetic-" in sentence


def test_a_truncated_tar_is_named_before_anything_starts(trained, tmp_path):
    shutil.copytree(trained / "shards", tmp_path / "shards")
    tar = next((tmp_path / "shards").glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes()[:-2000])
    sentence = refuse(*DEBUG, *settings(tmp_path / "run", tmp_path / "shards"))
    assert str(tar) in sentence and "bytes" in sentence
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--set", "data.bath_size=4"], ["data.bath_size", "data.batch_size"]),
        (["--set", "optimization.lr=fast"], ["optimization.lr", "fast"]),
        (["--set", "data.batch_size=15", "--devices", "cpu", "cpu"], ["data.batch_size 15", "multiple of 2"]),
        (["--set", "engine.name=plain", "--devices", "cpu", "cpu"], ["engine.name is plain", "ddp"]),
        (
            ["--set", "engine.name=fsdp", "engine.replicas=2", "data.batch_size=15", "--devices", "cpu", "cpu", "cpu"],
            ["engine.replicas 2", "3 devices"],
        ),
        (["--set", "engine.name=ddp", "engine.offload.optimizer=true"], ["engine", "offload.optimizer", "zero_stage"]),
        (["--set", "engine.name=deepspeed", "engine.zero_stage=4"], ["engine.zero_stage", "4"]),
        (
            ["--set", "engine.name=deepspeed", "engine.deepspeed={bf16}", "logging.folder={tmp}/x"],
            ["engine.deepspeed", "enables bf16", "teachers"],
        ),
        (
            ["--set", "engine.name=deepspeed", "engine.deepspeed={typo}", "logging.folder={tmp}/x"],
            ["engine.deepspeed: DeepSpeed refuses {tmp}/typo.json", "reduce_bucket_sise"],
        ),
        (
            ["--set", 'optimization.networks={"studnet": {"lr": 0.1}}', "logging.folder={tmp}/x"],
            ["optimization.networks.studnet", "it trains predictor, student"],
        ),
        (["--set", "objective=jepo"], ["jepo", "jepa"]),
        (["--devices", "gpu"], ["--devices: gpu", "cuda:0"]),
        (["--set", "data.leads=[I]"], ["model.encoder.leads is 12", "data.leads names 1"]),
        (["--set", "init_from=nowhere", "logging.folder={tmp}/x"], ["init_from: nowhere"]),
        (["--set", "mask.target_scale=[0.5, 0.2]"], ["mask.target_scale"]),
        (["--set", "optimization.steps=5"], ["optimization.epochs", "optimization.steps"]),
        (
            ["--set", "data.root={tmp}", "data.synthetic=null", "logging.folder={tmp}/x"],
            ["{tmp}", "tools.build_shards"],
        ),
    ],
)
def test_a_wrong_word_is_answered_with_one_sentence(words, parts, tmp_path, trained):
    (tmp_path / "bf16.json").write_text('{"bf16": {"enabled": true}}')
    (tmp_path / "typo.json").write_text('{"zero_optimization": {"reduce_bucket_sise": 5}}')
    places = {"{tmp}": tmp_path, "{bf16}": tmp_path / "bf16.json", "{typo}": tmp_path / "typo.json"}
    for place, path in places.items():
        words = [word.replace(place, str(path)) for word in words]
    base = ["--fname", "configs/jepa/ecg_debug.yaml", "--set", f"data.root={trained / 'shards'}"]
    sentence = refuse(*base, *([] if "--devices" in words else ["--devices", "cpu"]), *words)
    for part in parts:
        assert part.replace("{tmp}", str(tmp_path)) in sentence


def test_a_rank_of_another_job_does_not_silently_ignore_devices(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.commands.LAUNCH_VARIABLES", set())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "unset them, or leave --devices out" in refuse(*DEBUG, *settings(tmp_path / "run", trained / "shards"))
    succeed("--fname", "configs/jepa/ecg_debug.yaml", *settings(tmp_path / "run", trained / "shards"))


def test_a_run_folder_that_is_a_file_is_told(trained, tmp_path):
    (tmp_path / "run").write_text("")
    assert "can't be used as a run folder" in refuse(*DEBUG, *settings(tmp_path / "run", trained / "shards"))


def test_a_missing_config_file_is_named():
    assert "configs/none.yaml" in refuse("--fname", "configs/none.yaml")


@pytest.mark.parametrize("devices", [pytest.param(["cpu"], marks=pytest.mark.slow), ["cpu", "cpu"]])
def test_check_says_what_would_run_and_leaves_the_run_folder_alone(trained, tmp_path, devices):
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--check", "--devices", *devices]
    out = succeed(*words, *settings(tmp_path / "run", trained / "shards"))
    assert "check passed" in out and f"{len(devices)} x cpu" in out and "trainable" in out and "GiB" in out
    assert not (tmp_path / "run").exists()
    assert "would continue at step 26" in succeed(*words, *settings(trained / "run", trained / "shards"))


def test_init_from_gives_all_ranks_the_same_weights_while_its_source_trains_on(trained, tmp_path):
    """Every rank loads what rank 0 found, not what is newest when its own, later turn comes."""
    endless = ["optimization.epochs=null", "optimization.steps=100000", "checkpoint.every=1"]
    source = start(*DEBUG, *settings(tmp_path / "source", trained / "shards", *endless, "checkpoint.keep_last=100000"))
    try:
        wait_until(lambda: len(checkpoint_folders(tmp_path / "source" / "checkpoints")) > 2, 60, "checkpoints")
        still = ["optimization.epochs=null", "optimization.steps=1", "optimization.warmup_epochs=null"]
        still += ["optimization.lr=1e-12", "optimization.weight_decay=0.0", f"init_from={tmp_path / 'source'}"]
        words = [*DEBUG, "cpu", "--fault", "late_init", *settings(tmp_path / "run", trained / "shards", *still)]
        out = succeed(*words, script="tests/distributed/faulty_main.py")
    finally:
        kill_tree(source.pid)
        source.communicate()
    taken = re.search(r"starting from the weights of \S+step-(\d+)", out)
    assert taken is not None
    began, ended = tensors(tmp_path / "source", int(taken[1])), tensors(tmp_path / "run")
    for key, value in ended.items():
        if key[0] == "model" and key[1].startswith("student."):
            torch.testing.assert_close(value, began[key], rtol=0, atol=1e-8)


def test_init_from_starts_a_new_run_from_old_weights(trained, tmp_path):
    words = [f"init_from={trained / 'run'}", "optimization.lr=1e-9"]
    out = succeed(*DEBUG, *settings(tmp_path / "run", trained / "shards", *words))
    assert "starting from the weights of" in out
    first, last = metrics(tmp_path / "run")[0]["loss"], metrics(trained / "run")[-1]["loss"]
    fresh = metrics(trained / "run")[0]["loss"]
    assert abs(first - last) < abs(first - fresh)


def test_a_rank_that_fails_ends_the_job_with_its_error(trained, tmp_path):
    words = [*DEBUG, "cpu", "--fault", "rank_1_fails", *settings(tmp_path, trained / "shards")]
    done = run(*words, script="tests/distributed/faulty_main.py", timeout=60)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "error: rank 1: the third step went wrong" in done.stderr
    assert len(metrics(tmp_path)) <= 3


def test_gradients_that_stay_infinite_stop_all_ranks_and_name_rank_and_samples(trained, tmp_path):
    settled = settings(tmp_path, trained / "shards", "optimization.max_skipped=3", "checkpoint.every=1")
    words = [*DEBUG, "cpu", "--fault", "nan_on_rank_1", *settled]
    sentence = refuse(*words, script="tests/distributed/faulty_main.py")
    assert "step 4: the gradient was not finite for 3 steps in a row" in sentence
    named = re.search(r"last seen in rank 1: (\S+), ", sentence)
    assert named is not None and named[1] in lines(tmp_path / "audit" / "rank-1.jsonl")[4]["keys"]
    assert [record["skipped_steps"] for record in metrics(tmp_path)] == [0, 0, 1, 2]
    before, after = tensors(tmp_path, 2), tensors(tmp_path, 4)
    assert all(torch.equal(before[key], after[key]) for key in before)
