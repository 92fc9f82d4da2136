"""Storage that fails: what comes back is read, what does not ends with a sentence; nothing of it is a broken sample."""

import re
import resource
import threading
import time

import numpy as np
import pytest

from src.data import patience
from src.data import shards as shards_module
from src.data.shards import Shards
from src.data.write_shards import write_shards
from tests.data.conftest import describe, records

ALL = np.arange(30)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """30 training records in tars of 7, of which a reader keeps one open; patience of 1.3 s."""
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 1)
    monkeypatch.setattr(patience, "PAUSES", (0.1, 0.3, 0.9))
    write_shards(tmp_path / "shards", records(30, split="train"), describe(), samples_per_shard=7)
    return tmp_path / "shards"


def keys(samples):
    return [sample["key"] for sample in samples]


def gone(file):
    file.rename(file.with_suffix(".away"))


def failing(file):
    """Every read answers EIO: this process's memory has no page 0."""
    gone(file)
    file.symlink_to("/proc/self/mem")


def a_folder(file):
    gone(file)
    file.mkdir()


def back(file):
    if file.is_dir():
        file.rmdir()
    file.with_suffix(".away").replace(file)


TAR, TABLE = "train-000002.tar", "train-000002.index.npy"
FAULTS = {
    "gone": (TAR, gone, "No such file or directory"),
    "EIO": (TABLE, failing, "Input/output error"),
    "folder": (TABLE, a_folder, "Is a directory"),
}


@pytest.mark.parametrize(("name", "harm", "cause"), FAULTS.values(), ids=FAULTS)
def test_what_stays_away_ends_with_the_file_and_the_cause(folder, name, harm, cause):
    shards = Shards(folder, "train")
    shards.read(ALL)
    harm(folder / name)
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(folder / TAR))} can't be read \({cause}\) at 4 tries in 1 s: see to"
    ):
        shards.read(ALL)
    assert 1.3 <= time.monotonic() - begun < 3.0
    assert len(shards.read(ALL[:14])) == 14, "the others are still there"


@pytest.mark.parametrize(("name", "harm", "cause"), FAULTS.values(), ids=FAULTS)
def test_what_comes_back_is_read_as_if_nothing_had_been(folder, name, harm, cause):
    shards = Shards(folder, "train")
    whole = shards.read(ALL)
    harm(folder / name)
    mending = threading.Timer(0.3, back, [folder / name])
    mending.start()
    again = shards.read(ALL)
    mending.join()
    assert keys(again) == keys(whole)
    assert all(np.array_equal(one["ecg"], other["ecg"]) for one, other in zip(whole, again, strict=True))


def test_an_open_tar_that_vanishes_is_read_on(folder):
    shards = Shards(folder, "train")
    shards.read(ALL[:7])
    gone(folder / "train-000000.tar")
    assert len(shards.read(ALL[:7])) == 7


def test_a_table_that_is_gone_is_waited_for_too(folder):
    table = folder / "train-000004.index.npy"
    shards = Shards(folder, "train")
    gone(table)
    mending = threading.Timer(0.3, back, [table])
    mending.start()
    assert shards.keys(ALL) == keys(shards.read(ALL))
    mending.join()


def test_too_many_open_files_are_told_at_once(folder):
    shards = Shards(folder, "train")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    begun = time.monotonic()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(
            ValueError, match=r"tar can't be opened \(Too many open files, .* have 3\): raise the limit"
        ):
            shards.read(ALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert time.monotonic() - begun < 0.1
    assert len(shards.read(ALL)) == 30
