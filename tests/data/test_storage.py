"""Files over HTTP from a real server: whole and right however it behaves, or one sentence in bounded time."""

import base64
import hashlib
import json
import pickle
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.config.data import CacheConfig, DataConfig
from src.data import storage as storage_module
from src.data.broken import BrokenSample
from src.data.ecg_shards import ECGShards
from src.data.shards import Shards
from src.data.storage import Storage, StorageError
from src.data.write_shards import write_shards
from tests.commands import ROOT
from tests.data.conftest import LEADS, describe, records
from tests.data.servers import WebServer

DATA = np.random.default_rng(0).bytes(3_000_001)
IMPATIENT = (0.01, 0.02, 0.04, 0.08, 0.16)


@pytest.fixture
def serve(tmp_path):
    """Starts a server of a folder with data.bin in it."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.bin").write_bytes(DATA)
    started = []

    def start(folder=tmp_path / "served", **faults):
        started.append(WebServer(folder, tmp_path / "log", **faults))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(storage_module, "PIECE", 2**20)
    monkeypatch.setattr(storage_module, "PAUSES", IMPATIENT)


def fetched(server, more=0):
    return b"".join(Storage(server.address).pieces("data.bin", len(DATA) + more))


@pytest.mark.parametrize(
    "faults",
    [{}, {"drop": 2}, {"busy": 2}, {"drop": 3, "busy": 2}, {"most": 300_000}, {"delay": 0.01}, {"ranges": False}],
    ids=str,
)
def test_a_file_comes_whole_from_a_server_that_behaves_badly(serve, faults):
    assert fetched(serve(**faults)) == DATA


def test_a_dropped_connection_costs_a_piece_and_not_the_file(serve):
    server = serve(drop=3)
    assert fetched(server) == DATA
    assert server.bytes_of("data.bin") < len(DATA) + storage_module.PIECE


def test_a_server_that_is_restarted_is_found_again(serve, monkeypatch):
    server = serve()
    pieces = Storage(server.address).pieces("data.bin", len(DATA))
    begin = next(pieces)
    server.restart()
    assert begin + b"".join(pieces) == DATA


def test_a_server_that_is_gone_is_given_up_with_a_sentence(serve):
    server = serve()
    server.kill()
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"data\.bin could not be read in 6 attempts over \d+ s \(.*\): start again"):
        fetched(server)
    assert time.monotonic() - begun < 5


def test_a_server_that_hangs_is_given_up_too(serve, monkeypatch):
    monkeypatch.setattr(storage_module, "SILENT_SECONDS", 0.2)
    server = serve()
    server.hang()
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"could not be read in 6 attempts .*Timeout"):
        fetched(server)
    assert time.monotonic() - begun < 10
    server.wake()


def test_a_file_that_is_shorter_than_it_was_is_told(serve):
    with pytest.raises(StorageError, match=r"data\.bin could not be read"):
        fetched(serve(), more=1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_told_at_once(serve, status, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES", (60.0,))
    with pytest.raises(StorageError, match=rf"data\.bin is refused \(.*{status}"):
        fetched(serve(status=status))


def test_a_name_and_a_password_come_from_netrc(serve, tmp_path, monkeypatch):
    server = serve(secret=base64.b64encode(b"anna:hunter2").decode())
    with pytest.raises(StorageError, match=r"data\.bin is refused \(.*401"):
        fetched(server)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetched(server) == DATA


def test_what_is_not_there_is_not_asked_for_twice(serve, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES", (60.0,))
    with pytest.raises(FileNotFoundError, match=r"http://127.*/absent"):
        Storage(serve().address).read("absent")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("https://anna:hunter2@host/shards", "https://host/shards was given with a user"),
        ("https://host/shards?X-Amz-Signature=hunter2", "https://host/shards was given with"),
        ("ftp://host/shards", r"ftp://host/shards can't be read: an address starts with http, https, s3, gs or file"),
    ],
)
def test_an_address_that_can_not_be_used_is_refused_and_its_secret_not_repeated(address, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        Storage(address)
    assert "hunter2" not in str(raised.value)


def test_a_package_that_is_missing_is_named():
    code = "import sys; sys.modules['s3fs'] = None; from src.data.storage import Storage; Storage('s3://a/b')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ValueError: s3://a/b can't be read (" in done.stderr and done.stderr.rstrip().endswith("pip install s3fs")


def test_a_cause_is_told_without_what_a_redirect_may_have_signed():
    told = storage_module._cause(OSError("503, url='https://a:hunter2@host/x?Signature=hunter2&b=1'"))
    assert told == "OSError 503, url='https://host/x'"


def test_shards_behind_an_address_are_those_of_the_folder(serve, folder, tmp_path):
    server = serve(folder, drop=4, busy=3)
    local = ECGShards(folder, "train", LEADS)
    remote = ECGShards(server.address + "/", "train", LEADS, CacheConfig(folder=str(tmp_path / "cache"), size=1.0))
    assert remote.sha256 == local.sha256
    samples = np.random.default_rng(1).permutation(len(local))
    for mine, theirs in zip(remote.read(samples), local.read(samples), strict=True):
        assert mine["key"] == theirs["key"] and np.array_equal(mine["ecg"], theirs["ecg"])
    again = pickle.loads(pickle.dumps(remote))  # noqa: S301
    server.kill()
    assert again.keys(samples) == local.keys(samples)


def test_an_address_that_begins_with_file_is_a_folder(folder):
    assert Shards(f"file://{folder}", "train").keys(np.arange(3)) == Shards(folder, "train").keys(np.arange(3))


def test_the_config_of_the_docs_is_one():
    [snippet] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "storage.md").read_text(), re.DOTALL)
    data = DataConfig.model_validate({**yaml.safe_load(snippet)["data"], "batch_size": 8})
    assert data.cache.size == 500.0 and data.window == 64


def test_an_address_needs_a_cache(serve, folder):
    with pytest.raises(ValueError, match="is an address: copy its shards"):
        Shards(serve(folder).address, "train")


def test_an_address_without_index_says_so(serve, tmp_path):
    with pytest.raises(ValueError, match=r"http://127.*:\d+ holds no index\.json: build"):
        Shards(serve().address, "train", CacheConfig(folder=str(tmp_path / "cache"), size=1.0))


def test_a_shard_that_was_not_uploaded_is_told_when_it_is_read(serve, folder, tmp_path):
    (folder / "train-000001.tar").unlink()
    shards = Shards(serve(folder).address, "train", CacheConfig(folder=str(tmp_path / "cache"), size=1.0))
    assert len(shards.read(np.arange(6))) == 6
    with pytest.raises(StorageError, match=r"train-000001\.tar is missing though the index\.json beside it lists it"):
        shards.read(np.arange(7))


def test_a_damaged_table_in_the_cache_is_fetched_again(serve, folder, tmp_path):
    cache = tmp_path / "cache"
    server = serve(folder)
    shards = Shards(server.address, "train", CacheConfig(folder=str(cache), size=1.0))
    keys = shards.keys(np.arange(len(shards)))
    for path in cache.iterdir():
        data = bytearray(path.read_bytes())
        if data[:6] == b"\x93NUMPY":
            data[-1] ^= 1
            path.write_bytes(data)
    again = pickle.loads(pickle.dumps(shards))  # noqa: S301
    assert again.keys(np.arange(len(shards))) == keys
    assert sum(path.startswith("/train-000000.index") for path, _, _ in server.given()) == 2


HOSTILE = [
    ("sha256", "../precious"),
    ("index_sha256", "../precious"),
    ("sha256", "/etc/precious"),
    ("sha256", "A" * 64),
    ("sha256", "0" * 64 + "\n"),
    ("name", "../other/train-000000.tar"),
    ("name", "/other/train-000000.tar"),
    ("name", "train-000000.tar/.."),
    ("name", "train-000000.tar\n"),
    ("name", "train-000000"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_an_index_can_not_name_files_elsewhere(serve, folder, tmp_path, field, value):
    (tmp_path / "precious").write_text("mine")
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"][0][field] = value
    (folder / "index.json").write_text(json.dumps(index))
    for root in (folder, serve(folder).address):
        with pytest.raises(ValueError, match=rf"/index\.json is damaged \(splits\.train\.0\.{field}: .*pattern"):
            Shards(root, "train", CacheConfig(folder=str(tmp_path / "cache"), size=1.0)).read(np.arange(1))
    assert (tmp_path / "precious").read_text() == "mine"


def held(folder):
    """Bytes of tars that lie in a folder no more, but are open in this process."""
    gone = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(link.readlink()).startswith(str(folder)) and link.stat().st_nlink == 0:
                gone[link.stat().st_ino] = link.stat().st_size
    return sum(gone.values())


def test_a_reader_closes_what_was_evicted_when_it_opens_a_shard(serve, tmp_path):
    write_shards(tmp_path / "many", records(40, split="train"), describe(), samples_per_shard=1)
    sizes = [path.stat().st_size for path in (tmp_path / "many").glob("*.tar")]
    config = CacheConfig(folder=str(tmp_path / "cache"), size=sum(sizes) / 8e9)
    shards, local = Shards(serve(tmp_path / "many").address, "train", config), Shards(tmp_path / "many", "train")
    for sample in np.random.default_rng(0).integers(1, 40, (60, 1)):
        assert shards.keys(sample) == local.keys(sample)
        assert held(tmp_path / "cache") == 0
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    assert shards.keys(sample) == local.keys(sample) and held(tmp_path / "cache") > 3 * max(sizes)
    assert shards.keys(np.arange(1)) == local.keys(np.arange(1)) and held(tmp_path / "cache") == 0


def damage(tar):
    """Flip a bit of the first sample's content; returns the tar's sha256."""
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_a_sample_that_is_broken_in_the_storage_is_not_fetched_again_and_again(serve, folder, tmp_path):
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"][0]["sha256"] = damage(folder / "train-000000.tar")
    (folder / "index.json").write_text(json.dumps(index))
    server = serve(folder)
    shards = Shards(server.address, "train", CacheConfig(folder=str(tmp_path / "cache"), size=1.0))
    for _ in range(3):
        with pytest.raises(BrokenSample):
            shards.read(np.arange(6))
    assert server.bytes_of("train-000000.tar") == (folder / "train-000000.tar").stat().st_size


def test_a_copy_with_another_bit_is_fetched_again(serve, folder, tmp_path):
    server = serve(folder)
    shards = Shards(server.address, "train", CacheConfig(folder=str(tmp_path / "cache"), size=1.0))
    shards.keys(np.arange(6))
    damage(tmp_path / "cache" / shards.index.splits["train"][0].sha256)
    assert len(shards.read(np.arange(6))) == 6
    assert server.bytes_of("train-000000.tar") == 2 * (folder / "train-000000.tar").stat().st_size
