"""Batches are a function of (seed, step): ranks, workers, micro-batches and starting point change nothing."""

import itertools

import numpy as np
import pytest
import torch

from src.config.data import DataConfig, SyntheticConfig
from src.data.ecg_shards import ECGShards
from src.data.loader import Loader
from src.data.synthetic import make_synthetic
from src.distributed.ranks import Ranks

LEADS = ("I", "II")


class Collate:
    def __call__(self, step, samples, streams):
        ecg = np.stack([sample["ecg"] for sample in samples]) + streams.normal("noise", 2, 50)
        return {"ecg": torch.from_numpy(ecg), "step": torch.full((len(samples),), step)}


class Failing(Collate):
    def __call__(self, step, samples, streams):
        if step == 2:
            raise ValueError(f"sample {samples[0]['key']} is broken")
        return super().__call__(step, samples, streams)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("loader") / "shards"
    make_synthetic(root, SyntheticConfig(samples=30, length=50, sampling_rate=50.0), LEADS)
    return ECGShards(root, "train", LEADS)


def batches(shards, start=0, stop=6, world_size=1, collate=None, **settings):
    """The global batch of each step: every rank's micro-batches, joined."""
    config = DataConfig(root="unused", batch_size=12, leads=LEADS, **settings)
    ranks = [
        Loader(config, shards, collate or Collate(), Ranks(rank, world_size, torch.device("cpu")), seed=3)
        for rank in range(world_size)
    ]
    steps = zip(*(loader.steps(start, stop) for loader in ranks), strict=True)
    return [[micro for rank in parts for micro in rank] for parts in steps]


def joined(micro_batches):
    keys = [key for batch in micro_batches for key in batch["keys"]]
    return keys, torch.cat([batch["ecg"] for batch in micro_batches])


ALONE = list(itertools.product([0], [None, 1, 5], [1, 2, 3, 4]))
WITH_WORKERS = [(2, None, 1), (2, 1, 2), (2, 5, 3)]


@pytest.mark.parametrize(("workers", "micro_batch_size", "world_size"), ALONE + WITH_WORKERS)
def test_global_batches_do_not_depend_on_who_loads_them(shards, world_size, micro_batch_size, workers):
    reference = [joined(step) for step in batches(shards)]
    found = batches(shards, world_size=world_size, micro_batch_size=micro_batch_size, workers=workers)
    assert len(found) == len(reference) == 6
    for (keys, ecg), micro_batches in zip(reference, found, strict=True):
        assert joined(micro_batches)[0] == keys
        assert torch.equal(joined(micro_batches)[1], ecg)
        sizes = [len(batch["keys"]) for batch in micro_batches]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= (micro_batch_size or 12)


def test_a_loader_starts_anywhere(shards):
    whole, tail = batches(shards), batches(shards, start=4)
    assert all(torch.equal(joined(a)[1], joined(b)[1]) for a, b in zip(whole[4:], tail, strict=True))


def test_an_epoch_has_every_sample_once_and_a_fresh_noise_in_the_next(shards):
    sequence, noisy = zip(*[joined(step) for step in batches(shards, stop=4)], strict=True)  # 48 = two epochs of 24
    keys = [key for step in sequence for key in step]
    assert len(shards) == 24 and len(set(keys[:24])) == len(set(keys[24:])) == 24
    ecg = torch.cat(noisy)
    again = 24 + keys[24:].index(keys[0])
    assert (ecg[0] != ecg[again]).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_error_in_a_worker_arrives_as_its_own_sentence(shards, workers):
    with pytest.raises(ValueError, match=r"^sample \S+ is broken$"):
        batches(shards, collate=Failing(), workers=workers)
