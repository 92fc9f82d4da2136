"""Training from an address is training from the folder: the same numbers, through kills and bad lines."""

import shutil
import time

import pytest

from src.data.write_shards import write_shards
from tests.commands import descendants, metrics, refuse, run, same_tensors, start, succeed, wait_for_lines, wait_until
from tests.data.conftest import LEADS, describe, records
from tests.data.servers import WebServer, taken

pytestmark = pytest.mark.distributed
EPOCHS = 3
SETTINGS = [
    "data.synthetic=null",
    f"data.leads=[{','.join(LEADS)}]",
    f"model.encoder.leads={len(LEADS)}",
    "data.window=2",
    "data.workers=2",
    f"optimization.epochs={EPOCHS}",
    "evaluation.every=10",
    "checkpoint.every=4",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """96 records of 500 values, 72 of them for training in 12 shards."""
    folder = tmp_path_factory.mktemp("remote") / "shards"
    write_shards(folder, records(96, samples=500), describe(), samples_per_shard=6)
    return folder


def command(folder, root, *settings, devices=("cpu",)):
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *devices, "--set"]
    return [*words, f"data.root={root}", f"logging.folder={folder}", *SETTINGS, *settings]


def cache_of(tmp_path, shards, share=0.5):
    return [f"data.cache.folder={tmp_path / 'cache'}", f"data.cache.size={size_of(shards) * share / 1e9:.9f}"]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    """The run from the folder."""
    folder = tmp_path_factory.mktemp("local") / "run"
    succeed(*command(folder, shards))
    return folder


def test_a_run_from_an_address_is_bit_identical_to_one_from_the_folder(shards, undisturbed, tmp_path):
    """On a bad line, and with another run on other shards of the same cache, which is never above its size."""
    with WebServer(shards, tmp_path / "log", drop=7, busy=5) as server:
        cache = cache_of(tmp_path, shards)
        one = start(*command(tmp_path / "run", server.address, *cache))
        other = start(*command(tmp_path / "other", server.address, *cache, "seed=1"))
        most = 0
        while one.poll() is None or other.poll() is None:
            most = max(most, taken(tmp_path / "cache"))
            time.sleep(0.01)
        (out, err), _ = one.communicate(), other.communicate()
        assert (one.returncode, other.returncode) == (0, 0), out + err
    assert "warning" not in out + err
    assert metrics(tmp_path / "run") == metrics(undisturbed)
    assert same_tensors(tmp_path / "run", undisturbed)
    assert 0.3 * size_of(shards) < most <= 0.5 * size_of(shards)


def test_a_run_without_window_is_warned_once(shards, tmp_path):
    with WebServer(shards, tmp_path / "log") as server:
        words = command(tmp_path / "run", server.address, *cache_of(tmp_path, shards), "data.window=null")
        done = run(*words, "optimization.epochs=null", "optimization.steps=2", "optimization.warmup_epochs=0")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("set data.window") == 1


def test_a_killed_run_continues_bit_identically_from_the_cache_it_left(shards, undisturbed, tmp_path):
    words = command(tmp_path / "run", "{}", *cache_of(tmp_path, shards))
    with WebServer(shards, tmp_path / "log", delay=0.02) as server:
        words = [word.format(server.address) if word == "data.root={}" else word for word in words]
        process = start(*words)
        wait_for_lines(process, tmp_path / "run", 5)
        ranks = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not any(rank.is_running() for rank in ranks), 20, "the end of all processes")
        succeed(*words)
    assert metrics(tmp_path / "run") == metrics(undisturbed)
    assert same_tensors(tmp_path / "run", undisturbed)


def test_two_ranks_and_their_workers_fetch_each_shard_once(shards, tmp_path):
    with WebServer(shards, tmp_path / "log") as server:
        words = command(tmp_path / "run", server.address, *cache_of(tmp_path, shards, 2.0), devices=("cpu", "cpu"))
        succeed(*words, "evaluation.every=null")
        tars = {path.name: path.stat().st_size for path in shards.glob("train-*.tar")}
        assert {name: server.bytes_of(name) for name in tars} == tars
    succeed(*command(tmp_path / "local", shards, "evaluation.every=null", devices=("cpu", "cpu")))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "local")


def test_a_storage_that_dies_ends_the_run_with_a_sentence(shards, tmp_path):
    with WebServer(shards, tmp_path / "log", delay=0.02) as server:
        settings = [*cache_of(tmp_path, shards, 0.3), "optimization.epochs=300", "evaluation.every=null"]
        process = start(*command(tmp_path / "run", server.address, *settings))
        wait_for_lines(process, tmp_path / "run", 1)
        server.kill()
        out, err = process.communicate(timeout=90)
    assert process.returncode == 1, out + err
    assert "Traceback" not in err
    [error] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "could not be read in 6 attempts over" in error and server.address in error


def test_what_a_config_can_not_mean_is_refused(shards, tmp_path):
    assert "data.cache is missing though data.root is an address" in refuse(*command(tmp_path, "https://host/x"))
    assert "data.cache does nothing" in refuse(*command(tmp_path, shards, *cache_of(tmp_path, shards)))
    secret = refuse(*command(tmp_path, "https://anna:hunter2@host/x", *cache_of(tmp_path, shards)))
    assert "was given with a user" in secret and "hunter2" not in secret
    assert not (tmp_path / "attempts").exists()


@pytest.mark.parametrize("name", ["index.json", "train-000000.tar"])
def test_what_is_missing_or_wrong_at_the_address_is_told(shards, tmp_path, name):
    shutil.copytree(shards, tmp_path / "shards")
    (tmp_path / "shards" / name).unlink()
    with WebServer(tmp_path / "shards", tmp_path / "log") as server:
        error = refuse(*command(tmp_path / "run", server.address, *cache_of(tmp_path, shards)))
    assert f"{server.address}" in error and name in error
