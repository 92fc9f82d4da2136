"""The code that runs is the code that was submitted."""

import os
import subprocess
import sys

import pytest

from src.cluster import snapshot
from src.cluster.snapshot import code_files, share_snapshot, take_snapshot
from tests.commands import ROOT


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for name in ("main.py", "src/a.py", "src/__pycache__/a.pyc", "src/big.npy", "runs/x.json", "configs/c.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("__pycache__/\n*.npy\n/runs/\n")
    return root


def names(root):
    return sorted(str(path.relative_to(root)) for path in code_files(root))


def test_outside_a_checkout_everything_but_leftovers_is_copied(tree):
    assert names(tree) == ["configs/c.yaml", "main.py", "src/a.py", "src/big.npy"]


def test_in_a_checkout_new_files_are_copied_ignored_and_deleted_ones_are_not(tree):
    git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "main.py", "src/a.py"], check=True)
    (tree / "main.py").unlink()
    (tree / "src" / "new.py").touch()
    assert names(tree) == ["configs/c.yaml", "src/a.py", "src/new.py"]


def test_a_snapshot_says_which_commit_it_is_of_wherever_it_lies(tmp_path):
    code = tmp_path / "code"
    take_snapshot(code)
    told = "from src.run.environment import code_version; print(code_version())"
    versions = [
        subprocess.check_output([sys.executable, "-B", "-c", told], cwd=folder, env=_plain(), text=True)
        for folder in (ROOT, code)
    ]
    assert versions[0] == versions[1] == (code / "COMMIT").read_text()
    assert not list(code.rglob("__pycache__")) and not (code / "tests").exists()


def test_jobs_that_are_submitted_together_share_the_files_and_not_the_folder(tmp_path):
    take_snapshot(tmp_path / "one")
    share_snapshot(tmp_path / "one", tmp_path / "two")
    first, second = tmp_path / "one" / "src" / "files.py", tmp_path / "two" / "src" / "files.py"
    assert first.samefile(second) and (tmp_path / "two" / "COMMIT").is_file()
    first.unlink()
    assert second.read_text() == (ROOT / "src" / "files.py").read_text()


def test_where_files_can_not_be_linked_they_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    take_snapshot(tmp_path / "one")
    monkeypatch.setattr(snapshot.os, "link", refuse)
    share_snapshot(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "main.py").read_text() == (ROOT / "main.py").read_text()


def _plain():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
