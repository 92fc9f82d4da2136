"""A broken sample's slot goes to the next good one of its epoch: a function of the data, whoever reads it."""

import os
import time
import zlib

import numpy as np
import pytest
import torch

from src.config.data import DataConfig
from src.data.broken import Broken, BrokenSamples
from src.data.ecg_shards import ECGShards
from src.data.index import open_table, table_path
from src.data.inputs import sources_of
from src.data.loader import Loader
from src.data.order import Order
from src.data.shards import Shards
from src.data.sources import Sources
from src.data.write_shards import write_shards
from src.distributed.ranks import Ranks
from src.files import sha256_of
from tests.data.conftest import LEADS, SCALE, describe, records

SEED, BATCH = 3, 8


class Collate:
    """The signal and a random number of its slot's own."""

    def __call__(self, step, samples, streams):
        return {"ecg": torch.from_numpy(np.stack([s["ecg"] for s in samples])), "draw": streams.uniform("draw", 2)}


class Decoding:
    """As Collate, where what a shard holds is decoded sample by sample, and some can't be."""

    def __init__(self, bad):
        self.bad = bad

    def prepare(self, sample, streams):
        assert len(streams) == 1
        if sample["key"] in self.bad:
            raise ValueError("its frames can't be decoded")
        return {"decoded": sample["ecg"], "draw": streams.uniform("draw", 2)[0]}

    def __call__(self, step, prepared, streams):
        draws = np.stack([one["draw"] for one in prepared])
        assert np.array_equal(draws, streams.uniform("draw", 2))
        return {"ecg": torch.from_numpy(np.stack([one["decoded"] for one in prepared])), "draw": draws}


def damage(root, keys):
    """Flip a byte of each of these samples."""
    for tar in root.glob("*.tar"):
        whole = bytearray(tar.read_bytes())
        for row in open_table(table_path(tar)):
            if row["key"].decode() in keys:
                whole[row["start"] + row["ecg.npy"]["offset"] + row["ecg.npy"]["size"] - 1] ^= 1
        tar.write_bytes(whole)


@pytest.fixture
def folder(tmp_path):
    """30 training records in tars of 7."""
    write_shards(tmp_path / "shards", records(30, split="train"), describe(), samples_per_shard=7)
    return tmp_path / "shards"


def key(sample):
    return f"ecg-{sample:04d}"


def loaded(root, world_size=1, start=0, stop=10, collate=None, **settings):
    """The keys and draws of each step's global batch, and what each rank has found broken."""
    config = DataConfig(root="unused", batch_size=BATCH, leads=LEADS, **settings)
    shards = ECGShards(root, "train", LEADS)
    ranks = [
        Loader(config, shards, collate or Collate(), Ranks(rank, world_size, torch.device("cpu")), SEED)
        for rank in range(world_size)
    ]
    found = []
    for parts in zip(*(loader.steps(start, stop) for loader in ranks), strict=True):
        batches = [batch for part in parts for batch in part]
        found.append(([k for batch in batches for k in batch["keys"]], np.concatenate([b["draw"] for b in batches])))
    return found, [loader.broken for loader in ranks]


def expected(bad, steps, window=None, lanes=1):
    """Brute force: the epoch's samples by their places, and from the place of a broken one on to the first good one."""
    order = Order(SEED, [7, 7, 7, 7, 2], window, lanes, BATCH)
    batches = []
    for position in range(steps * BATCH):
        epoch, place = (int(found[0]) for found in order.places(np.array([position])))
        samples = order.samples_at(np.full(30, epoch), np.arange(30)).tolist()
        while samples[place % 30] in bad:
            place += 1
        batches.append(key(samples[place % 30]))
    return [batches[start : start + BATCH] for start in range(0, len(batches), BATCH)]


@pytest.mark.parametrize("bad", [{4}, {0, 29}, set(range(5, 14))])
@pytest.mark.parametrize("order", [{}, {"window": 2, "lanes": 4}], ids=["shuffled", "windows"])
def test_the_next_good_sample_of_the_epoch_takes_the_slot(folder, bad, order):
    damage(folder, {key(sample) for sample in bad})
    found, _ = loaded(folder, **order)
    assert [keys for keys, _ in found] == expected(bad, 10, **order)


@pytest.mark.parametrize(
    ("world_size", "workers", "micro_batch_size"), [(1, 2, None), (2, 0, 3), (4, 0, 1), (4, 1, None), (8, 0, None)]
)
def test_who_reads_them_changes_nothing(folder, world_size, workers, micro_batch_size):
    damage(folder, {key(3), key(17), key(18), key(28)})
    whole, _ = loaded(folder)
    other, _ = loaded(folder, world_size, workers=workers, micro_batch_size=micro_batch_size)
    tail, _ = loaded(folder, world_size, start=6)
    for (keys, draws), (other_keys, other_draws) in zip([*whole, *whole[6:]], [*other, *tail], strict=True):
        assert keys == other_keys and np.array_equal(draws, other_draws)


def test_a_slot_keeps_its_random_numbers_so_that_twins_in_a_batch_differ(folder):
    intact, _ = loaded(folder, stop=30)
    damage(folder, {key(4), key(5), key(6), key(7)})
    found, _ = loaded(folder, stop=30)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(intact, found, strict=True))
    twins = [keys for keys, _ in found if len(set(keys)) < BATCH]
    assert twins, "no batch in 30 has a sample twice"
    assert all(len(np.unique(draws, axis=0)) == BATCH for _, draws in found)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_broken_is_told_once_with_the_step_that_met_it_first(folder, workers):
    damage(folder, {key(4), key(9)})
    intact = {k: step for step in reversed(range(4)) for k in expected(set(), 4)[step]}
    _, (broken,) = loaded(folder, workers=workers)
    listed = broken.share()
    assert {found.key: found.shard for found in listed} == {key(4): "train-000000.tar", key(9): "train-000001.tar"}
    assert len(broken) == 2 and broken.share() == []
    for found in listed:
        assert found.step == intact[found.key] and found.sample == int(found.key[-4:])
        assert f"{folder / found.shard} is damaged at sample {found.key}" in found.sentence


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_a_collate_can_not_prepare_is_broken_too(folder, workers):
    found, (broken,) = loaded(folder, collate=Decoding({key(4), key(20)}), workers=workers)
    assert [keys for keys, _ in found] == expected({4, 20}, 10)
    listed = {one.key: one.sentence for one in broken.share()}
    assert listed == {
        key(sample): f"{folder}/{tar}: sample {key(sample)}: its frames can't be decoded: build the shards again"
        for sample, tar in ((4, "train-000000.tar"), (20, "train-000002.tar"))
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_mixture_a_good_sample_of_the_same_source_takes_the_slot(folder, tmp_path, workers):
    other = tmp_path / "other"
    write_shards(other, records(30, split="train", seed=1), describe(), samples_per_shard=7)
    source = {"clinic": {"root": str(other)}}
    config = DataConfig.model_validate(
        {"root": str(folder), "batch_size": BATCH, "leads": LEADS, "mixture": source, "workers": workers}, strict=False
    )

    def keys():
        sources = Sources(ECGShards(folder, "train", LEADS), {"clinic": ECGShards(other, "train", LEADS)})
        loader = Loader(config, sources, Collate(), Ranks(0, 1, torch.device("cpu")), SEED)
        return [k for (batch,) in loader.steps(0, 12) for k in batch["keys"]], loader.broken.share()

    intact, _ = keys()
    damage(folder, {key(4)})
    damage(other, {key(4), key(9)})
    found, told = keys()
    bad = {key(4), f"clinic:{key(4)}", f"clinic:{key(9)}"}
    assert {one.key for one in told} == bad and len({one.sample for one in told}) == 3
    assert sorted(one.shard for one in told) == [
        "clinic:train-000000.tar",
        "clinic:train-000001.tar",
        "train-000000.tar",
    ]
    for before, now in zip(intact, found, strict=True):
        assert now not in bad and ("clinic:" in now) == ("clinic:" in before)
        assert (now == before) == (before not in bad)


def forge(root, last_bytes):
    """Other last bytes of the last sample's signal in a tar, in agreement with its table and the index."""
    tar, table = root / "train-000000.tar", open_table(table_path(root / "train-000000.tar")).copy()
    whole, row = bytearray(tar.read_bytes()), table[-1]
    end = row["start"] + row["ecg.npy"]["offset"] + row["ecg.npy"]["size"]
    whole[end - len(last_bytes) : end] = last_bytes
    row["crc32"] = zlib.crc32(whole[row["start"] : row["start"] + row["size"]])
    tar.write_bytes(whole)
    index, before = (root / "index.json").read_text(), sha256_of(table_path(tar))
    np.save(table_path(tar), table)
    (root / "index.json").write_text(index.replace(before, sha256_of(table_path(tar))))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_broken(tmp_path, value):
    signal, meta = np.full((3, 40), 0.5, np.float32), {"labels": [0, 1]}
    made = [next(records(1, key=key(n), split="train", signal_CT=signal, meta=meta)) for n in range(10)]
    write_shards(tmp_path / "shards", made, describe())
    forge(tmp_path / "shards", np.float32(value).tobytes())
    with pytest.raises(ValueError, match=r"train-000000\.tar: sample ecg-0009: its ECG holds NaN or infinite values"):
        ECGShards(tmp_path / "shards", "train", LEADS).read(np.array([9]))
    found, (broken,) = loaded(tmp_path / "shards", stop=2)
    assert all(key(9) not in keys for keys, _ in found) and [one.key for one in broken.share()] == [key(9)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("limit", "bad"), [(0, 1), (2, 3), (3, 9)])
def test_more_than_data_broken_allows_end_the_run_with_the_last_ones(folder, limit, bad, workers):
    damage(folder, {key(sample) for sample in range(bad)})
    sentence = rf"broken samples? and data\.broken allows {limit}: repair the shards or raise data\.broken; the last: "
    with pytest.raises(ValueError, match=sentence + r".*train-00000\d\.tar is damaged at sample ecg-000\d"):
        loaded(folder, broken=limit, workers=workers)


def test_as_many_as_data_broken_allows_do_not(folder):
    damage(folder, {key(sample) for sample in range(9)})
    _, (broken,) = loaded(folder, broken=9)
    assert len(broken.share()) == 9


def test_where_nothing_is_good_it_ends(folder):
    damage(folder, {key(sample) for sample in range(30)})
    with pytest.raises(
        ValueError, match="none of the 30 samples that could take a slot of step 0 can be used, .* is damaged"
    ):
        loaded(folder, broken=1000)


class Strict(Collate):
    def __call__(self, step, samples, streams):
        raise ValueError(f"sample {samples[0]['key']} is shorter than model.encoder.length: lower that")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_does_not_fit_the_config_ends_the_run_at_once(folder, workers):
    with pytest.raises(ValueError, match=r"^sample \S+ is shorter than model.encoder.length: lower that$"):
        loaded(folder, collate=Strict(), workers=workers)


def test_evaluation_reads_all_or_nothing(folder):
    damage(folder, {key(4)})
    with pytest.raises(ValueError, match="train-000000.tar is damaged at sample ecg-0004"):
        list(Shards(folder, "train").batches())


def test_damage_that_a_second_read_does_not_confirm_is_none(folder, monkeypatch):
    """Memory and networks slip; here the operating system's first answer has a wrong bit."""
    real, answers = os.pread, []

    def slipping(descriptor, size, start):
        answers.append(real(descriptor, size, start))
        return answers[-1] if len(answers) > 1 else bytes([answers[-1][0] ^ 1]) + answers[-1][1:]

    monkeypatch.setattr("os.pread", slipping)
    (sample,) = Shards(folder, "train").read(np.array([4]))
    assert sample["key"] == key(4) and len(answers) == 2 and answers[0] == answers[1]


def cached(descriptor, start):
    """Whether the page cache holds a byte of a file."""
    try:
        return os.preadv(descriptor, [bytearray(1)], start, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def keeps_pages_apart(folder):
    """Whether files of a file system leave the page cache when they are told to (those of tmpfs live in it)."""
    file = folder / "pages"
    file.write_bytes(bytes(9000))
    with file.open("rb") as opened:
        try:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return not cached(opened.fileno(), 0)
        except OSError:
            return False


def test_the_second_read_is_one_of_the_storage(folder, tmp_path, monkeypatch):
    if not keeps_pages_apart(tmp_path):
        pytest.skip("the file system tells nothing of its page cache")
    damage(folder, {key(4)})
    tar = folder / "train-000000.tar"
    with tar.open("rb") as opened:
        os.fsync(opened.fileno())  # what is not written yet can't leave the cache
    assert tar.read_bytes()
    real, found = os.pread, []

    def looking(descriptor, size, start):
        found.append((cached(descriptor, start), cached(descriptor, start + size - 1)))
        return real(descriptor, size, start)

    monkeypatch.setattr("os.pread", looking)
    with pytest.raises(ValueError, match="is damaged at sample ecg-0004"):
        Shards(folder, "train").read(np.array([4]))
    assert found == [(True, True), (False, False)]


def broken(step, sample):
    return Broken(step, sample, "train-000000.tar", key(sample), "is broken")


def test_a_resumed_list_is_the_same_list():
    whole, first, second = (BrokenSamples(limit=10) for _ in range(3))
    whole.add([broken(1, 7), broken(1, 3)])
    whole.add([broken(2, 3), broken(2, 5)])
    first.add([broken(1, 7), broken(1, 3)])
    assert [found.sample for found in whole.share()] == [3, 7, 5] and [f.sample for f in first.share()] == [3, 7]
    second.load(first.state())
    second.add([broken(2, 3), broken(2, 5)])
    assert second.share() == [broken(2, 5)] and second.state() == whole.state() and len(second) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_group_or_a_source_without_a_good_sample_ends_the_run_at_once(tmp_path, workers):
    """Of 2,000 samples the only one of its label, or the only one of its source, is broken."""
    metas = [{"labels": [int(n == 7), int(n != 7)], "scale": SCALE} for n in range(2000)]
    made = [next(records(1, key=key(n), samples=4, split="train", meta=meta)) for n, meta in enumerate(metas)]
    write_shards(tmp_path / "many", made, describe())
    write_shards(tmp_path / "one", made[7:8], describe())
    damage(tmp_path / "many", {key(7)})
    damage(tmp_path / "one", {key(7)})
    sentence = r"none of the 1 samples that could take a slot of step \d+ can be used, .* is damaged at sample ecg-0007"
    begun = time.monotonic()
    with pytest.raises(ValueError, match=sentence):
        loaded(tmp_path / "many", balance="labels", workers=workers)
    config = DataConfig.model_validate(
        {"root": "unused", "batch_size": BATCH, "leads": LEADS, "mixture": {"one": {"root": str(tmp_path / "one")}}},
        strict=False,
    )
    sources = sources_of(config, ECGShards(tmp_path / "many", "train", LEADS))
    with pytest.raises(ValueError, match=sentence):
        list(Loader(config, sources, Collate(), Ranks(0, 1, torch.device("cpu")), SEED).steps(0, 10))
    assert time.monotonic() - begun < 5
