"""What a batch will read is told to the kernel before, while reads are slow, and only then."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from src.data.ecg_shards import ECGShards
from src.data.readahead import BATCHES
from src.data.shards import OPEN_SHARDS
from src.data.write_shards import write_shards
from tests.data.conftest import LEADS, describe, records


@pytest.fixture
def shards(tmp_path):
    """200 records, one in each tar."""
    write_shards(tmp_path / "shards", records(200, split="train"), describe(), samples_per_shard=1)
    with ECGShards(tmp_path / "shards", "train", LEADS) as opened:
        yield opened


@pytest.fixture
def calls(monkeypatch):
    """What is told and what is read, in order, as (what, size, start); reads take as long as the list `pauses` says."""
    seen, pauses = [], [0.0]
    monkeypatch.setattr("src.data.readahead.READ_SECONDS", 0.02)  # more than a busy machine needs
    read, advise = os.pread, os.posix_fadvise

    def pread(descriptor, size, start):
        seen.append(("read", os.fstat(descriptor).st_ino, size, start))
        time.sleep(pauses[0])
        return read(descriptor, size, start)

    def fadvise(descriptor, start, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        seen.append(("told", os.fstat(descriptor).st_ino, size, start))
        return advise(descriptor, start, size, advice)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "posix_fadvise", fadvise)

    def of(batch, pause):
        seen.clear()
        pauses[0] = pause
        found = batch()
        return found, [call[0] for call in seen], [call[1:] for call in seen]

    return of


def test_a_batch_is_told_while_reads_are_slow(shards, calls):
    samples = np.array([7, 3, 190, 55])
    plain, kinds, _ = calls(lambda: shards.read(samples), 0.04)
    assert kinds == ["read"] * 4
    told, kinds, what = calls(lambda: shards.read(samples), 0.0)
    assert kinds == ["told"] * 4 + ["read"] * 4 and what[:4] == what[4:]
    for one, other in zip(plain, told, strict=True):
        assert one["key"] == other["key"] and np.array_equal(one["ecg"], other["ecg"])
    kinds = [calls(lambda: shards.read(samples), 0.0)[1] for _ in range(2 * BATCHES)]
    assert kinds[0] == ["told"] * 4 + ["read"] * 4 and kinds[-1] == ["read"] * 4


def test_what_would_close_shards_that_are_needed_is_not_told(shards, calls):
    samples = np.arange(OPEN_SHARDS // 2 + 1)
    for _ in range(2):
        _, kinds, _ = calls(lambda: shards.read(samples), 0.04)
        assert kinds == ["read"] * len(samples)


def test_a_shard_that_is_gone_is_told_by_its_reader(shards, calls, monkeypatch):
    monkeypatch.setattr("src.data.patience.PAUSES", ())
    calls(lambda: shards.read(np.array([1, 2])), 0.04)
    (Path(shards.root) / shards.index.splits["train"][5].name).unlink()
    with pytest.raises(ValueError, match=r"train-000005.tar can't be read"):
        shards.read(np.array([1, 5]))
