"""What a rank leaves: on its node while it runs, for all to read afterwards."""

import os
import subprocess
import sys

from src.cluster.left import left_by_rank
from src.run.failure import STACKS_HEADER
from tests.commands import ROOT

HEADER = b"in step 2".ljust(STACKS_HEADER)


def test_what_is_worth_keeping_comes_to_the_others_and_nothing_stays_on_the_node(tmp_path):
    for rank, stacks in ((0, b"Thread 0x1"), (1, b"")):
        with left_by_rank(tmp_path, rank) as folder:
            assert not folder.is_relative_to(tmp_path)
            (folder / f"rank-{rank}.stacks").write_bytes(HEADER + stacks)
            (folder / f"rank-{rank}.json").write_text("{}")
            assert not any(path.name.startswith(f"rank-{rank}") for path in tmp_path.iterdir())
        assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"rank-0.stacks", "rank-0.json", "rank-1.json"}
    assert (tmp_path / "rank-0.stacks").read_bytes() == HEADER + b"Thread 0x1"


def test_what_the_shared_disk_cannot_take_is_told(tmp_path, capfd):
    """A folder in the place of the copy stands for a disk that is full."""
    (tmp_path / ".rank-0.json").mkdir()
    with left_by_rank(tmp_path, 0) as folder:
        (folder / "rank-0.json").write_text('{"message": "the disk is full"}')
    assert not folder.exists() and not (tmp_path / "rank-0.json").exists()
    told = capfd.readouterr().err
    assert "can't take rank-0.json" in told and "the disk is full" in told


FULL = """
import resource, sys
from pathlib import Path
from src.cluster.left import left_by_rank

resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
with left_by_rank(Path(sys.argv[1]), 0) as folder:
    print(folder)
"""


def test_a_node_without_room_for_stacks_writes_where_all_read(tmp_path):
    """A limit on the size of files stands for a full disk. The stacks of a rank that still runs stay."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "node").mkdir()
    for rank in range(2):
        (tmp_path / "shared" / f"rank-{rank}.stacks").write_bytes(HEADER)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "shared")],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path / "node")}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path / 'shared'}\n", done.stderr
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["rank-1.stacks"]
    assert not any((tmp_path / "node").iterdir())
