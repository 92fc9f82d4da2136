"""W&B when asked: real offline runs, read back from what W&B wrote; no account and no network is needed."""

import json
import struct
import time

import psutil
import pytest

from src.config import load_config
from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from tests.commands import alive, descendants, lines, refuse, start, succeed, wait_for_lines, wait_until

pytestmark = pytest.mark.distributed
DEBUG = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu"]
SHORT = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=24"]
REMOTE = "https://user:secret@example.org/private.git"
BLOCK, HEADER = 32768, struct.Struct("<IHB")  # of a LevelDB log: checksum, length, kind of each piece of a record


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    """No account, and a git remote that nobody else should read."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COUNT": "1", "KEY_0": "remote.origin.url", "VALUE_0": REMOTE}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


def command(folder, shards, *extra):
    return [*DEBUG, "--set", f"logging.folder={folder}", f"data.root={shards}", *SHORT, *extra]


def wandb_files(folder):
    """The .wandb file of each attempt, oldest first."""
    return sorted((folder / "wandb").glob("*run-*/run-*.wandb"))


def records(path):
    """The whole records of a .wandb file: protobuf messages in the format of a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, message = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + HEADER.size <= len(data):
        if BLOCK - position % BLOCK < HEADER.size:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        message += data[position + HEADER.size :][:length]
        position += HEADER.size + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(message)
            message = b""


def of_kind(path, kind):
    return [getattr(record, kind) for record in records(path) if record.WhichOneof("record_type") == kind]


def history(path):
    """The rows that were logged, without W&B's own columns."""
    rows = [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
            for row in of_kind(path, "history")]  # fmt: skip
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def logged(folder):
    """The newest row of metrics of each step, over all attempts."""
    rows = {row["step"]: row for path in wandb_files(folder) for row in history(path) if "loss" in row}
    return [rows[step] for step in sorted(rows)]


def logged_health(folder):
    """The newest rows of health, as the lines of health.jsonl without what is no number."""
    rows = {row["step"]: row for path in wandb_files(folder) for row in history(path) if "loss" not in row}
    return [{name.removeprefix("health/"): value for name, value in rows[step].items()} for step in sorted(rows)]


def core(process):
    """W&B's own process."""
    return next(child for child in descendants(process.pid) if child.name().startswith("wandb-core"))


def killed_at(step, folder, *words):
    """Start a run, SIGKILL its launcher at a step, and wait until everything that it started is gone."""
    process = start(*words)
    wait_for_lines(process, folder, step)
    members = [psutil.Process(process.pid), *descendants(process.pid)]
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(members), 10, f"processes left: {alive(members)}")
    return members


def test_a_killed_run_goes_on_as_one_wandb_run_with_every_step(shards, tmp_path):
    from ssls.objectives import schema_of

    folder = tmp_path / "run"
    words = command(
        folder,
        shards,
        "logging.wandb.mode=offline",
        "logging.wandb.tags=[a, b]",
        "data.workers=1",
        "evaluation.every=8",
    )
    members = killed_at(12, folder, *words)
    assert len(members) >= 4, "launcher, rank, loader worker, wandb-core"
    identity = (folder / "wandb_id").read_text()
    succeed(*words)
    first, second = wandb_files(folder)
    assert (folder / "wandb_id").read_text() == identity
    assert first.name == second.name == f"run-{identity}.wandb"

    described = of_kind(second, "run")[0]
    assert (described.run_id, described.project, described.display_name) == (identity, "medssl", "run")
    assert described.resume and list(described.tags) == ["a", "b"]
    config = {update.key: json.loads(update.value_json) for update in described.config.update}
    resolved = load_config(folder / "config.yaml", [], schema_of).model_dump(mode="json")
    assert {key: value for key, value in config.items() if key != "_wandb"} == resolved
    axes = [(metric.name or metric.glob_name, metric.step_metric) for metric in of_kind(second, "metric")]
    assert axes == [("step", ""), ("*", "step")]

    assert len(logged(folder)) == 24
    assert logged(folder) == lines(folder / "metrics.jsonl")
    health = [{k: v for k, v in line.items() if k != "alarms"} for line in lines(folder / "health.jsonl")]
    assert len(health) == 3 and logged_health(folder) == health
    assert [ending.exit_code for ending in of_kind(second, "exit")] == [0]


def test_nothing_but_config_and_metrics_is_kept_for_sending(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    folder = tmp_path / "run"
    out = succeed(*command(folder, shards, "logging.wandb.mode=offline"))
    assert [line for line in out.splitlines() if "wandb" in line.lower()] == [
        f"W&B: offline, to be sent with wandb sync {folder}/wandb/offline-run-*"
    ]
    kinds = {record.WhichOneof("record_type") for record in records(wandb_files(folder)[0])}
    assert kinds == {"header", "run", "metric", "history", "summary", "telemetry", "exit"}
    assert not of_kind(wandb_files(folder)[0], "run")[0].HasField("git")
    kept = b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())
    keys = ECGShards(str(shards), "train", STANDARD_LEADS).read(range(4))
    for secret in ("0123456789" * 4, "example.org", "step 24/24", *(sample["key"] for sample in keys)):
        assert secret.encode() not in kept, secret
    assert b"JEPA" not in kept, "code"


def test_switched_on_for_a_resume_it_gets_the_whole_past(shards, tmp_path):
    succeed(*command(tmp_path, shards, "optimization.steps=8"))
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "wandb_id").exists()
    words = command(tmp_path, shards, "optimization.steps=8", "logging.wandb.mode=offline")
    succeed(*words, "--devices", "cpu", "cpu")
    assert len(wandb_files(tmp_path)) == 1, "rank 0 alone"
    assert logged(tmp_path) == lines(tmp_path / "metrics.jsonl")


def test_a_run_that_fails_says_so_and_keeps_its_rows(shards, tmp_path):
    words = command(
        tmp_path, shards, "logging.wandb.mode=offline", "optimization.lr=1e30", "optimization.max_skipped=1"
    )
    assert "the gradient was not finite" in refuse(*words)
    (path,) = wandb_files(tmp_path)
    assert [ending.exit_code for ending in of_kind(path, "exit")] == [1]
    finite = [{k: v for k, v in row.items() if v is not None} for row in lines(tmp_path / "metrics.jsonl")]
    assert history(path) == finite and finite


def test_a_run_survives_the_death_of_wandb(shards, tmp_path):
    process = start(*command(tmp_path, shards, "logging.wandb.mode=offline"))
    wait_for_lines(process, tmp_path, 4)
    core(process).kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and not err, out + err
    assert len([line for line in out.splitlines() if line.startswith("warning: W&B failed at step")]) == 1
    assert "finished 24 steps" in out and len(lines(tmp_path / "metrics.jsonl")) == 24


@pytest.mark.parametrize(
    ("key", "reason"),
    [(None, "no W&B account is set up here"), ("short", "WANDB_API_KEY invalid")],
    ids=["none", "bad"],
)
def test_online_without_an_account_is_told_at_once(shards, tmp_path, monkeypatch, key, reason):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    begun = time.monotonic()
    sentence = refuse(*command(tmp_path / "run", shards, "logging.wandb.mode=online"))
    assert time.monotonic() - begun < 25, "no network, no prompt"
    for part in ("logging.wandb.mode is online", reason, "`wandb login`", "WANDB_API_KEY", "offline"):
        assert part in sentence
    assert not (tmp_path / "run").exists()


def test_without_the_package_it_is_told_too_and_nobody_else_needs_it(shards, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise ImportError(\"No module named 'wandb'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sentence = refuse(*command(tmp_path / "run", shards, "logging.wandb.mode=offline"))
    assert "logging.wandb.mode is offline" in sentence and "pip install wandb" in sentence
    assert not (tmp_path / "run").exists()
    succeed(*command(tmp_path / "run", shards, "optimization.steps=2"))


def test_the_check_of_a_config_looks_for_the_account_and_writes_nothing(shards, tmp_path):
    assert "no W&B account" in refuse(*command(tmp_path / "run", shards, "logging.wandb.mode=online"), "--check")
    succeed(*command(tmp_path / "run", shards, "logging.wandb.mode=offline"), "--check")
    assert not (tmp_path / "run").exists()
