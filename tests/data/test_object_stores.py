"""Shards in S3 and Google Cloud Storage, from servers that speak their protocols."""

import multiprocessing
import os

import fsspec
import numpy as np
import pytest

from src.config.data import CacheConfig
from src.data import storage as storage_module
from src.data.ecg_shards import ECGShards
from src.data.shards import Shards
from src.data.storage import Storage, StorageError
from tests.data.conftest import LEADS


def serve_s3(port):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port.put(server.get_host_and_port()[1])
    server._thread.join()


def serve_gs(port):
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="archive")
    server.start()
    port.put(server._api._httpd.server_port)
    multiprocessing.Event().wait()


@pytest.fixture
def store(request, folder, monkeypatch):
    """The folder of shards in a bucket of its own server: the protocol, its address, and the server's process."""
    protocol = request.param
    for package in {"s3": ("s3fs", "moto", "flask"), "gs": ("gcsfs", "gcp_storage_emulator")}[protocol]:
        pytest.importorskip(package, reason=f"needs {package} of requirements-dev.txt")
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    process = context.Process(target=serve_s3 if protocol == "s3" else serve_gs, args=(port,), daemon=True)
    process.start()
    address = f"http://127.0.0.1:{port.get(timeout=60)}"
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": address,
    }.items():
        monkeypatch.setenv(name, value)
    upload(protocol, folder)
    fsspec.get_filesystem_class(protocol).clear_instance_cache()  # it knows the server of another test
    yield f"{protocol}://archive/ecgs", process
    process.kill()
    process.join()


def upload(protocol, folder):
    """With the protocol's own library; a process of its own leaves no connections here."""
    process = multiprocessing.get_context("spawn").Process(target=put, args=(protocol, folder))
    process.start()
    process.join()
    assert process.exitcode == 0


def put(protocol, folder):
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    filesystem = fsspec.filesystem(protocol)
    if protocol == "s3":
        filesystem.mkdir("archive")
    for path in folder.iterdir():
        filesystem.pipe_file(f"archive/ecgs/{path.name}", path.read_bytes())
    os._exit(0)


def cache(tmp_path):
    return CacheConfig(folder=str(tmp_path / "cache"), size=1.0)


@pytest.mark.parametrize("store", ["s3", "gs"], indirect=True)
def test_shards_in_a_bucket_are_those_of_the_folder(store, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "PIECE", 5000)
    address, server = store
    local, remote = ECGShards(folder, "train", LEADS), ECGShards(address, "train", LEADS, cache(tmp_path))
    assert remote.sha256 == local.sha256
    samples = np.random.default_rng(0).permutation(len(local))
    for mine, theirs in zip(remote.read(samples), local.read(samples), strict=True):
        assert mine["key"] == theirs["key"] and np.array_equal(mine["ecg"], theirs["ecg"])
    with pytest.raises(ValueError, match=rf"{address}/absent holds no index\.json"):
        Shards(f"{address}/absent", "train", cache(tmp_path))
    with pytest.raises(ValueError, match=r"://nowhere holds no index\.json"):
        Shards(f"{address.split(':')[0]}://nowhere", "train", cache(tmp_path))


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_bucket_that_does_not_answer_any_more_is_told(store, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES", (0.01,))
    address, server = store
    server.kill()
    server.join()
    with pytest.raises(StorageError, match=r"s3://archive/ecgs/index\.json could not be read in 2 attempts") as raised:
        Storage(address).read("index.json")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("store", ["s3", "gs"], indirect=True)
def test_a_process_forked_after_reading_reads_on(store, folder, tmp_path):
    address, _ = store
    shards = Shards(address, "train", cache(tmp_path))
    shards.read(np.arange(3))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=read_on, args=(shards, answers))
    process.start()
    assert answers.get(timeout=60) == [sample["key"] for sample in Shards(folder, "train").read(np.arange(14))]
    process.join(timeout=60)
    assert [sample["key"] for sample in shards.read(np.arange(14))]


def read_on(shards, answers):
    answers.put([sample["key"] for sample in shards.read(np.arange(14))])


def test_missing_credentials_are_told_at_once(tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="needs s3fs of requirements-dev.txt")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nothing listens there, and nothing is sent
    monkeypatch.setattr(storage_module, "PAUSES", (600.0,))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError, match=r"s3://archive/index\.json needs credentials \(NoCredentialsError"):
        Storage("s3://archive").read("index.json")


def test_missing_credentials_of_google_are_known_by_their_name():
    exceptions = pytest.importorskip("google.auth.exceptions", reason="needs gcsfs of requirements-dev.txt")
    assert exceptions.DefaultCredentialsError.__name__ in storage_module.NO_CREDENTIALS
