"""Fetching ahead: what is needed next, no more than fits, by a process that can be killed at any time."""

import os
import time

import numpy as np
import pytest
import torch

from src.config.data import CacheConfig, DataConfig
from src.data.ahead import SHARE, Horizon, thrashing
from src.data.loader import Loader
from src.data.shards import Shards
from src.data.sources import Sources
from src.data.write_shards import write_shards
from src.distributed.ranks import Ranks
from tests.commands import descendants, wait_until
from tests.data.conftest import describe, records
from tests.data.servers import WebServer

STEPS = 60


@pytest.fixture
def served(tmp_path):
    """96 records in 16 shards behind an address."""
    made = records(96, split="train")
    write_shards(tmp_path / "shards", made, describe(), samples_per_shard=6)
    with WebServer(tmp_path / "shards", tmp_path / "log") as server:
        yield server


def open_shards(server, tmp_path, share_of_all):
    """The shards, in a cache that takes a share of them all."""
    local = Shards(tmp_path / "shards", "train")
    size = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir() if path.name != "index.json")
    cache = CacheConfig(folder=str(tmp_path / "cache"), size=size * share_of_all / 1e9)
    return local, Shards(server.address, "train", cache)


def config_of(shards, **settings):
    root = {"root": shards.root, "cache": shards.cache.model_dump()}
    return DataConfig(**{"batch_size": 4, **root, **settings})


def collate(step, samples, streams):
    return {"labels": torch.tensor(np.stack([sample["labels"] for sample in samples]))}


def loader_of(shards, **settings):
    return Loader(config_of(shards, **settings), shards, collate, Ranks(0, 1, torch.device("cpu")), seed=5)


def test_the_horizon_is_what_the_coming_steps_need_within_the_budget():
    """Against a brute force that looks at every step anew."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 20, 12)
        needs = [np.unique(rng.integers(0, 12, rng.integers(1, 4))) for _ in range(STEPS)]
        budget = int(rng.integers(20, 90))
        horizon = Horizon(needs.__getitem__, sizes.tolist(), budget, range(STEPS))
        step, fetched = 0, set()
        while step < STEPS:
            fetched |= set(horizon.reach(step))
            inside = {shard for shard in range(12) if shard in horizon}
            assert sum(sizes[list(inside)]) <= budget
            assert inside <= fetched
            ahead = [set(need.tolist()) for need in needs[step:]]
            count = next((n for n in range(len(ahead) + 1) if needed(ahead[:n], sizes) > budget), len(ahead) + 1) - 1
            assert set().union(*ahead[:count]) <= inside
            step += int(rng.integers(1, 4))


def needed(ahead, sizes):
    return sum(sizes[list(set().union(*ahead))])


def test_a_horizon_over_everything_ends_and_is_cheap():
    horizon = Horizon(lambda step: np.array([step % 5]), [1] * 5, 100.0, range(10**9))
    assert horizon.reach(0) == [0, 1, 2, 3, 4]
    assert horizon.reach(10**6) == [0, 1, 2, 3, 4]


def test_the_next_window_is_there_before_it_is_asked_for(served, tmp_path):
    """Windows of two of sixteen shards, room for eight: while the first is read, the second is fetched."""
    _, shards = open_shards(served, tmp_path, share_of_all=0.5)
    loader = loader_of(shards, window=2)
    batches = loader.steps(0, 24)
    next(batches)
    ahead = {number for step in range(6) for number in loader._batches.shards_of(step).tolist()}
    assert len(ahead) == 4
    wait_until(lambda: tars(served) >= {f"/train-{number:06d}.tar" for number in ahead}, 20, "two windows")
    time.sleep(0.3)
    assert len(tars(served)) <= 16 * 0.5 * SHARE + 1
    batches.close()


def tars(server):
    return {path for path, _, _ in server.given() if path.endswith(".tar")}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_and_each_shard_comes_once_in_an_epoch(served, tmp_path, workers):
    """To a run that steps are longer than fetches: one that outruns the fetching may fetch a shard twice."""
    local, shards = open_shards(served, tmp_path, share_of_all=0.5)
    settings = {"window": 2, "workers": workers}
    folder = Loader(
        DataConfig(root=local.root, batch_size=4, **settings), local, collate, Ranks(0, 1, torch.device("cpu")), seed=5
    )
    loader = loader_of(shards, **settings)
    for step, (mine, theirs) in enumerate(zip(loader.steps(0, 24), folder.steps(0, 24), strict=True)):
        coming = loader._batches.shards_of(min(step + 1, 23)).tolist()
        wait_until(lambda: tars(served) >= {f"/train-{number:06d}.tar" for number in coming}, 20, "the next step")  # noqa: B023
        assert [batch["keys"] for batch in mine] == [batch["keys"] for batch in theirs]
    sizes = dict(zip((f"train-{number:06d}.tar" for number in range(16)), shards.tar_sizes, strict=True))
    assert {name: served.bytes_of(name) for name in sizes} == sizes


def test_the_process_ends_with_the_iteration(served, tmp_path):
    _, shards = open_shards(served, tmp_path, share_of_all=0.5)
    before = len(descendants(os.getpid()))
    batches = loader_of(shards, window=2).steps(0, 24)
    next(batches)
    assert len(descendants(os.getpid())) == before + 1
    batches.close()
    assert len(descendants(os.getpid())) == before


def test_a_storage_that_is_gone_is_told_by_the_reader(served, tmp_path, monkeypatch):
    monkeypatch.setattr("src.data.storage.PAUSES", (0.01,))
    _, shards = open_shards(served, tmp_path, share_of_all=0.5)
    served.kill()
    with pytest.raises(ValueError, match=r"train-.*could not be read in 2 attempts"):
        list(loader_of(shards, window=2).steps(0, 24))


def test_a_cache_that_will_thrash_is_told(served, tmp_path):
    _, all_fit = open_shards(served, tmp_path, share_of_all=1.0)
    _, shards = open_shards(served, tmp_path, share_of_all=0.5)
    assert thrashing(config_of(all_fit), Sources(all_fit), 1) is None
    assert thrashing(config_of(shards, window=4), Sources(shards), 1) is None
    assert "set data.window" in thrashing(config_of(shards), Sources(shards), 1)
    assert "lower data.window" in thrashing(config_of(shards, window=12), Sources(shards), 1)
    assert "lower data.window" in thrashing(config_of(shards, window=4, lanes=4), Sources(shards), 1)
    assert thrashing(config_of(shards, window=4, lanes=4), Sources(shards), 4) is None
