"""The cache: each file is fetched once, is whole or not there, and never more bytes lie there than were allowed."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from src.config.data import CacheConfig
from src.data import storage as storage_module
from src.data.cache import PARTIAL, Cache
from src.data.storage import RemoteFile, Storage, StorageError
from tests.commands import ROOT, wait_until
from tests.data.servers import WebServer, taken

FILES, BYTES = 12, 400_000
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def served(tmp_path):
    """Twelve files of 400 kB, and what they hold by name."""
    folder = tmp_path / "served"
    folder.mkdir()
    contents = {f"{number}.tar": np.random.default_rng(number).bytes(BYTES) for number in range(FILES)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder, contents


@pytest.fixture
def serve(served, tmp_path, monkeypatch):
    """Starts a server of them."""
    monkeypatch.setattr(storage_module, "PIECE", 2**16)
    monkeypatch.setattr(storage_module, "PAUSES", (0.01, 0.02, 0.04, 0.08, 0.16))
    started = []

    def start(**faults):
        started.append(WebServer(served[0], tmp_path / "log", **faults))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def make_cache(tmp_path, files=100.0):
    """A cache in which so many of the files fit."""
    return Cache(CacheConfig(folder=str(tmp_path / "cache"), size=files * BYTES / 1e9))


def listed(server, served, number, size=BYTES):
    name = f"{number}.tar"
    return RemoteFile(Storage(server.address), name, hashlib.sha256(served[1][name]).hexdigest(), size)


def content(descriptor):
    try:
        return os.pread(descriptor, 10 * BYTES, 0)
    finally:
        os.close(descriptor)


def in_processes(count, work, *arguments):
    """Run the work in processes of its own; each must end well."""
    processes = [FORK.Process(target=work, args=(number, *arguments)) for number in range(count)]
    for process in processes:
        process.start()
    return processes


def joined(processes):
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0


@pytest.mark.parametrize("size", [BYTES, None])
def test_a_file_is_fetched_once_and_read_again_without_the_server(serve, served, tmp_path, size):
    server, cache = serve(), make_cache(tmp_path)
    wanted = [listed(server, served, number, size) for number in range(3)]
    for number, file in enumerate(wanted):
        assert content(cache.open(file)) == served[1][f"{number}.tar"]
    server.kill()
    for number, file in enumerate(wanted):
        assert content(cache.open(file)) == served[1][f"{number}.tar"]
        assert server.bytes_of(file.name) == BYTES


def read_all(seed, cache, server, served, rounds):
    for number in np.random.default_rng(seed).permutation(FILES * rounds) % FILES:
        assert content(cache.open(listed(server, served, number))) == served[1][f"{number}.tar"]


@pytest.mark.parametrize("delay", [0.0, 0.005])
def test_processes_that_want_the_same_files_fetch_each_once(serve, served, tmp_path, delay):
    server, rounds = serve(delay=delay), 2
    for number in range(rounds):
        cache = make_cache(tmp_path / str(number))
        joined(in_processes(4, read_all_in_order, cache, server, served))
    assert {name: server.bytes_of(name) for name in served[1]} == dict.fromkeys(served[1], BYTES * rounds)


def test_who_looked_before_another_had_finished_does_not_fetch_again(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path)
    file = listed(server, served, 0)
    os.close(cache.open(file))
    assert cache._fetch(file, wait=True) is None  # what follows when the look came too early
    assert server.bytes_of(file.name) == BYTES and not list(cache.folder.glob(f"*{PARTIAL}"))


def read_all_in_order(_, cache, server, served):
    for number in range(FILES):
        assert content(cache.open(listed(server, served, number))) == served[1][f"{number}.tar"]


def test_the_folder_never_holds_more_than_its_size_and_no_reader_breaks(serve, served, tmp_path):
    """Four processes, five files' room for twelve files, a server that drops connections."""
    server, cache = serve(drop=9), make_cache(tmp_path, files=5.5)
    processes = in_processes(4, read_all, cache, server, served, 6)
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, taken(cache.folder))
    joined(processes)
    assert 4 * BYTES < most <= cache.size


def test_runs_of_two_sizes_stay_below_the_larger_and_the_smaller_has_its_way(serve, served, tmp_path):
    server, large, small = serve(), make_cache(tmp_path, files=8.5), make_cache(tmp_path, files=3.5)
    read_all(0, large, server, served, 1)
    assert 7 * BYTES <= taken(large.folder) <= large.size
    os.close(small.open(listed(server, served, next(n for n in range(FILES) if not in_cache(large, served, n)))))
    assert taken(small.folder) <= small.size
    read_all(0, large, server, served, 1)
    assert taken(large.folder) <= large.size


def in_cache(cache, served, number):
    return (cache.folder / hashlib.sha256(served[1][f"{number}.tar"]).hexdigest()).exists()


def test_what_was_not_used_for_longest_makes_room(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path, files=4.5)
    for number in (0, 1, 2, 3, 0, 1):
        os.close(cache.open(listed(server, served, number)))
    os.close(cache.open(listed(server, served, 4)))
    assert [number for number in range(FILES) if in_cache(cache, served, number)] == [0, 1, 3, 4]


def test_an_evicted_file_can_be_read_by_who_has_it_open(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path, files=1.5)
    descriptor = cache.open(listed(server, served, 0))
    os.close(cache.open(listed(server, served, 1)))
    assert not in_cache(cache, served, 0)
    assert content(descriptor) == served[1]["0.tar"]


def fetch_one(_, cache, file):
    os.close(cache.open(file))


def partials(cache):
    return [path for path in cache.folder.glob(f"*{PARTIAL}") if path.stat().st_size]


def test_who_is_killed_while_fetching_leaves_nothing_that_matters(serve, served, tmp_path):
    server, cache = serve(delay=0.05), make_cache(tmp_path, files=2.5)
    [process] = in_processes(1, fetch_one, cache, listed(server, served, 0))
    wait_until(lambda: cache.folder.exists() and partials(cache), 20, "a partial")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(partials(cache)) == 1
    server.restart()
    os.close(cache.open(listed(server, served, 1)))  # there is room for both
    os.close(cache.open(listed(server, served, 2)))  # and now for one of them: the dead one goes first
    assert not partials(cache) and in_cache(cache, served, 1) and in_cache(cache, served, 2)
    assert content(cache.open(listed(server, served, 0))) == served[1]["0.tar"]
    assert taken(cache.folder) <= cache.size


def test_killed_again_and_again_the_cache_stays_right(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path, files=4.5)
    rng = np.random.default_rng(0)
    for seed in range(12):
        processes = in_processes(2, read_all, cache, server, served, 4)
        time.sleep(rng.uniform(0.02, 0.3))
        for process in processes:
            process.kill()
            process.join()
        assert taken(cache.folder) <= cache.size, seed
    read_all(0, cache, server, served, 1)


def test_who_waits_for_a_process_that_is_killed_takes_over(serve, served, tmp_path):
    server, cache = serve(delay=0.05), make_cache(tmp_path)
    file = listed(server, served, 0)
    [first] = in_processes(1, fetch_one, cache, file)
    wait_until(lambda: cache.folder.exists() and partials(cache), 20, "a partial")
    second = in_processes(1, fetch_one, cache, file)
    time.sleep(0.2)
    first.kill()
    joined(second)
    assert content(cache.open(file)) == served[1]["0.tar"]


def test_fetching_ahead_does_not_wait_for_another_process(serve, served, tmp_path):
    server, cache = serve(delay=0.2), make_cache(tmp_path)
    file = listed(server, served, 0)
    processes = in_processes(1, fetch_one, cache, file)
    wait_until(lambda: cache.folder.exists() and partials(cache), 20, "a partial")
    begun = time.monotonic()
    cache.fetch(file)
    assert time.monotonic() - begun < 0.2
    joined(processes)


def test_who_finds_no_room_because_of_others_waits_for_them(serve, served, tmp_path):
    server, cache = serve(delay=0.02), make_cache(tmp_path, files=1.2)
    joined(in_processes(4, read_all, cache, server, served, 1))
    assert taken(cache.folder) <= cache.size


def test_other_bytes_than_those_that_were_indexed_are_refused_and_not_kept(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path)
    file = listed(server, served, 0)
    (served[0] / "0.tar").write_bytes(served[1]["1.tar"])
    with pytest.raises(StorageError, match=r"0\.tar is not the file that its index lists \(sha256 .*upload it again"):
        cache.open(file)
    assert taken(cache.folder) == 0


def test_a_copy_that_lost_bytes_is_fetched_again(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path)
    file = listed(server, served, 0)
    os.close(cache.open(file))
    os.truncate(cache.folder / file.sha256, 100)
    assert content(cache.open(file)) == served[1]["0.tar"]


def test_a_file_larger_than_the_cache_is_refused(serve, served, tmp_path):
    with pytest.raises(ValueError, match=r"0\.tar has 400,000 bytes and data\.cache\.size is 0\.0002 GB: raise it"):
        make_cache(tmp_path, files=0.5).open(listed(serve(), served, 0))


def test_a_folder_that_can_not_be_used_is_told(serve, served, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(
        ValueError, match=r"data\.cache\.folder .*cache can't be used \(.*\): name a folder of your own"
    ):
        make_cache(tmp_path).open(listed(serve(), served, 0))


FULL_DISK = """
import sys
from src.config.data import CacheConfig
from src.data.cache import Cache
from src.data.storage import RemoteFile, Storage
folder, address, sha256 = sys.argv[1:]
Cache(CacheConfig(folder=folder, size=1.0)).open(RemoteFile(Storage(address), "0.tar", sha256, 400_000))
"""


def test_a_full_disk_is_told_before_anything_is_fetched(serve, served, tmp_path):
    """A disk of 200 kB of its own, where this machine lets a user mount one."""
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=200k none {tmp_path / 'disk'}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    server = serve()
    file = listed(server, served, 0)
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path / "disk"), server.address, file.sha256]
    done = subprocess.run(
        [*inside, f"{mount} && {shlex.join(words)}; ls {tmp_path / 'disk'}"], capture_output=True, text=True, cwd=ROOT
    )
    assert re.search(r"ValueError: the disk of data\.cache\.folder .* is full .* 0\.tar does not fit", done.stderr)
    assert done.stdout.split() == ["lock", "turn"] and not server.given()


def test_what_others_put_into_the_folder_stays(serve, served, tmp_path):
    server, cache = serve(), make_cache(tmp_path, files=1.5)
    mine = [cache.folder / name for name in ("results.csv", "large.iso.partial", "paper/draft.txt", f"{'0' * 63}.tar")]
    (cache.folder / "paper").mkdir(parents=True)
    for path in mine:
        path.write_bytes(b"mine" * BYTES)
        os.utime(path, (1, 1))
    read_all_in_order(0, cache, server, served)
    assert all(path.read_bytes() == b"mine" * BYTES for path in mine)
    assert sum(path.stat().st_size for path in cache.folder.iterdir() if len(path.name) == 64) <= cache.size


def fetch_anew(number, cache, server, served):
    """Fetch for ever: files of this process alone, each dropped when it is there."""
    while True:
        for file in range(1 + 2 * number, 3 + 2 * number):
            os.close(cache.open(listed(server, served, file)))
            cache.drop(listed(server, served, file))


def test_a_run_with_a_smaller_cache_gets_its_turn(serve, served, tmp_path):
    """Four processes have files in hand at any time, and one of these fills the smaller cache."""
    server, large, small = serve(delay=0.01), make_cache(tmp_path, files=10.0), make_cache(tmp_path, files=1.5)
    fetching = in_processes(4, fetch_anew, large, server, served)
    try:
        wait_until(lambda: large.folder.exists() and len(partials(large)) > 2, 20, "partials")
        [waiting] = in_processes(1, fetch_one, small, listed(server, served, 0))
        waiting.join(timeout=10)
        assert waiting.exitcode == 0
    finally:
        for process in (*fetching, waiting):
            process.kill()
            process.join()


def test_a_disk_without_locks_is_told_at_once(serve, served, tmp_path, monkeypatch):
    """As a network file system without a lock daemon answers; nothing is left behind."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    cache, file = make_cache(tmp_path), listed(serve(), served, 0)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ValueError, match=r"cache can't be used \(No locks available\): .* which grants locks"):
        cache.open(file)


OTHER_USER = """
import os, sys
from src.config.data import CacheConfig
from src.data.cache import Cache
from src.data.storage import RemoteFile, Storage
folder, address, sha256 = sys.argv[1:]
cache, file = Cache(CacheConfig(folder=folder, size=1.0)), RemoteFile(Storage(address), "0.tar", sha256, 400_000)
os.setgid(65534)
os.setuid(65534)
before = len(os.listdir("/proc/self/fd"))
try:
    cache.open(file)
except ValueError as error:
    print(error)
assert len(os.listdir("/proc/self/fd")) == before
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_folder_of_another_user_is_told_and_no_descriptor_stays(serve, served):
    server = serve()
    with tempfile.TemporaryDirectory() as room:
        os.chmod(room, 0o755)  # noqa: PTH101
        cache = make_cache(Path(room))
        file = listed(server, served, 0)
        os.close(cache.open(file))
        words = [sys.executable, "-c", OTHER_USER, str(cache.folder), server.address, file.sha256]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"data\.cache\.folder .* can't be used \(.*\): name a folder of your own .*\n", done.stdout)
