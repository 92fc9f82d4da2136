"""Whose a run folder is: who may take it from whom, and what an orphan finds."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from src.run import owner as owner_module
from src.run.folder import RunFolder
from src.run.owner import Owner, read_owner
from tests.conftest import ROOT

HOLD = (
    "from pathlib import Path; from src.run.folder import RunFolder; import sys\n"
    "folder = RunFolder(Path(sys.argv[1]))\n"
    "print(folder.claim(), flush=True)\n"
    "for line in sys.stdin: print(folder.owner.superseded(), flush=True)\n"
)


@contextmanager
def living_owner(root, job=None, restart=0):
    """Another process that has claimed the folder; asked with a line, it says whether it was superseded."""
    start_of = {"MEDSSL_JOB": job, "MEDSSL_RESTART": str(restart)} if job else {}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        cwd=ROOT,
        env=os.environ | start_of,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().strip().isdigit()
    yield process
    process.kill()
    process.communicate()


def answer(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.fixture
def started(monkeypatch):
    """Says which start of which job this process is."""
    monkeypatch.setattr(owner_module, "PATIENCE_SECONDS", 0.2)

    def say(job, restart=0):
        monkeypatch.setenv("MEDSSL_JOB", job)
        monkeypatch.setenv("MEDSSL_RESTART", str(restart))

    return say


@pytest.mark.parametrize(("job", "restart"), [(None, 0), ("8", 5), ("7", 1), ("7", 0), ("7_1", 2)])
def test_only_a_later_start_of_the_same_job_takes_a_living_owners_folder(tmp_path, started, job, restart):
    if job:
        started(job, restart)
    with living_owner(tmp_path, "7", 1) as owner:
        with pytest.raises(ValueError) as raised:
            RunFolder(tmp_path).claim()
        whose = f"process {owner.pid} on {socket.gethostname()} (job 7, restart 1)"
        assert str(raised.value) == f"{tmp_path} is in use by {whose}; stop that run or set another logging.folder"
        assert answer(owner) == "False"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempts", "owner.lock"]


def test_a_living_owner_is_superseded_at_once_and_by_a_third_as_well(tmp_path, started):
    with living_owner(tmp_path, "7", 0) as first, living_owner(tmp_path, "7", 1) as second:
        assert [answer(first), answer(second)] == ["True", "False"]
        started("7", 2)
        third = RunFolder(tmp_path)
        assert third.claim() == 3, "attempts that have left no record are counted"
        assert [answer(first), answer(second), third.owner.superseded()] == ["True", "True", False]
        assert third.owner.rivalled
        inodes = {path.stat().st_ino for path in tmp_path.glob("owner.lock*")}
        assert len(inodes) == 3, "an orphan's inode is never that of a later owner.lock"


def test_a_dead_owner_frees_the_folder_at_once(tmp_path, started):
    with living_owner(tmp_path, "7", 3):
        pass
    folder = RunFolder(tmp_path)
    assert folder.claim() == 1 and not folder.owner.rivalled
    assert read_owner(tmp_path / "owner.lock") == Owner(os.getpid(), socket.gethostname(), None, 0, 1)


def test_what_was_locked_from_another_machine_may_have_an_orphan_there(tmp_path):
    (tmp_path / "owner.lock").write_text(json.dumps({"process": 12, "host": "node3", "attempt": 4}))
    folder = RunFolder(tmp_path)
    assert folder.claim() == 5 and folder.owner.rivalled


def test_one_of_many_that_come_at_once_gets_the_folder(tmp_path):
    code = HOLD.replace("import sys", "import sys; from src.run import owner; owner.PATIENCE_SECONDS = 0.5")
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(5)
    ]
    told = [process.stdout.readline().strip() for process in many]
    assert sorted(told) == ["", "", "", "", "1"]
    winner = many[told.index("1")]
    assert answer(winner) == "False" and read_owner(tmp_path / "owner.lock").process == winner.pid
    for process in many:
        process.kill()
        process.communicate()


def test_content_of_earlier_versions_is_read_and_what_a_kill_left_is_nobody(tmp_path):
    path = tmp_path / "owner.lock"
    assert read_owner(path) is None
    for text, expected in (
        ("process 12 on node3", Owner(12, "node3")),
        ("", None),
        ('{"process": 12, "ho', None),
        ("3", None),
    ):
        path.write_text(text)
        assert read_owner(path) == expected
    assert str(Owner(12, "node3")) == "process 12 on node3"


@pytest.fixture
def lockless(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)


def test_without_locks_only_what_is_known_to_be_over_is_taken(tmp_path, lockless, started):
    path = tmp_path / "owner.lock"
    folder = RunFolder(tmp_path)
    assert folder.claim() == 1
    path.write_text(json.dumps({"process": 12, "host": "node3", "job": "7", "restart": 1, "attempt": 1}))
    started("8", 9)
    with pytest.raises(
        ValueError, match="was last used by process 12 on node3 .job 7, restart 1., and its file system"
    ):
        RunFolder(tmp_path).claim()
    started("7", 2)
    folder = RunFolder(tmp_path)
    assert folder.claim() == 2 and folder.owner.rivalled
    folder.owner.release()
    assert not path.exists() and RunFolder(tmp_path).claim() == 1

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.write_text(f"process {ended.pid} on {socket.gethostname()}")
    assert RunFolder(tmp_path).claim() == 1
    path.write_text(f"process {os.getppid()} on {socket.gethostname()}")
    with pytest.raises(ValueError, match=r"remove .*owner\.lock when it is dead, or set another logging\.folder"):
        RunFolder(tmp_path).claim()


def test_with_locks_nothing_is_removed_at_the_end(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim()
    folder.owner.release()
    assert (tmp_path / "owner.lock").exists()


def test_an_owner_whose_file_is_removed_goes_on_until_another_comes(tmp_path):
    with living_owner(tmp_path) as owner:
        (tmp_path / "owner.lock").unlink()
        assert answer(owner) == "False"
        RunFolder(tmp_path).claim()
        assert answer(owner) == "True"


def test_what_a_successor_cuts_an_orphan_no_longer_writes_into(tmp_path, started):
    with living_owner(tmp_path, "7", 0):
        lines = "".join(json.dumps({"step": step}) + "\n" for step in range(8))
        (tmp_path / "metrics.jsonl").write_text(lines)
        (tmp_path / "training.log").write_text("told\n")
        with (tmp_path / "metrics.jsonl").open("a") as metrics, (tmp_path / "training.log").open("a") as log:
            started("7", 1)
            folder = RunFolder(tmp_path)
            folder.claim()
            folder.cut_logs(5)
            for file in (metrics, log):
                file.write('{"step": 8}\n')
    assert (tmp_path / "metrics.jsonl").read_text() == lines[: lines.index('{"step": 5}')]
    assert (tmp_path / "training.log").read_text() == "told\n"
    assert not list(tmp_path.glob("*.draft"))


def test_ranks_of_a_dead_owner_write_no_line_into_what_the_next_start_of_its_job_has(tmp_path, started):
    """Rank 0 was on this machine and has ended; rank 1 lives on, on another one."""
    with living_owner(tmp_path, "7", 0):
        pass
    line = json.dumps({"step": 0}) + "\n"
    audit = tmp_path / "audit" / "rank-1.jsonl"
    audit.parent.mkdir()
    audit.write_text(line)
    with audit.open("a") as orphan:
        started("7", 1)
        folder = RunFolder(tmp_path)
        assert folder.claim() == 2
        folder.cut_logs(1)
        orphan.write('{"step": 1}\n')
    assert audit.read_text() == line


def test_a_draft_does_not_take_the_place_of_a_successors_file(tmp_path, monkeypatch):
    orphan, path = RunFolder(tmp_path), tmp_path / "embeddings.npz"
    orphan.claim()
    with orphan.replacing(path) as draft:
        draft.write_text("first")
    with pytest.raises(ValueError, match="was taken over by process"), orphan.replacing(path) as draft:
        draft.write_text("orphan's")
        successor = RunFolder(tmp_path)
        successor.claim()
        with successor.replacing(path) as other:
            other.write_text("successor's")
    assert path.read_text() == "successor's" and not list(tmp_path.glob("*.draft"))
