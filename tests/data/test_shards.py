"""Random reads by global number: right, checked, shareable, and what is wrong with a folder is told by name."""

import copy
import json
import mmap
import multiprocessing
import os
import pickle
import re
import tarfile
from collections import OrderedDict

import numpy as np
import pytest

from src.data import patience
from src.data import roots as roots_module
from src.data import shards as shards_module
from src.data.ecg_shards import ECGShards
from src.data.index import open_table, table_path
from src.data.shards import Shards
from src.data.write_shards import write_shards
from tests.data.conftest import LEADS, SCALE, describe, records

TRAIN = [record for record in records() if record.split == "train"]


def same(sample, record):
    return sample["key"] == record.key and np.array_equal(
        np.rint(sample["ecg"] / np.array(SCALE)[:, None]), record.signal_CT
    )


@pytest.fixture
def shards(folder):
    return ECGShards(folder, "train", LEADS)


def test_samples_come_in_the_order_asked_for(shards):
    for seed in range(20):
        numbers = np.random.default_rng(seed).integers(0, len(shards), 30)
        samples = shards.read(numbers)
        assert all(same(sample, TRAIN[number]) for sample, number in zip(samples, numbers, strict=True))
        assert shards.keys(numbers) == [TRAIN[number].key for number in numbers]


def test_batches_are_all_samples_in_order_and_few_at_a_time(shards):
    batches = list(shards.batches(size=4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 2]
    assert [sample["key"] for batch in batches for sample in batch] == [record.key for record in TRAIN]
    assert [sample["key"] for batch in shards.batches(np.array([5, 2])) for sample in batch] == [
        TRAIN[5].key,
        TRAIN[2].key,
    ]


def test_nothing_is_read_for_nothing(shards):
    assert list(shards.batches(np.array([], np.int64))) == []
    assert shards.read(np.array([], np.int64)) == []
    assert shards.keys(np.array([], np.int64)) == []


def test_what_the_folder_says_of_itself(shards, folder):
    assert len(shards) == 14
    assert shards.sampling_rate == 100.0
    assert shards.label_names == ("even", "known")
    assert shards.index.lengths == (40, 40)
    assert shards.index.patients == {"train": 7, "val": 3}
    assert shards.index.source == {"made": "for a test"}


def test_identity_changes_with_any_byte_of_any_tar(folder, tmp_path):
    changed = list(records())
    changed[0].signal_CT[0, 0] ^= 1
    write_shards(tmp_path / "other", changed, describe(), samples_per_shard=6)
    other = ECGShards(tmp_path / "other", "val", LEADS)
    assert other.sha256 != ECGShards(folder, "val", LEADS).sha256 == ECGShards(folder, "train", LEADS).sha256


def test_records_of_different_lengths_live_together(tmp_path):
    lengths = [5, 1000, 1, 77]
    made = [next(records(1, samples=n, key=f"k{n}", split="train")) for n in lengths]
    write_shards(tmp_path / "s", made, describe(), samples_per_shard=3)
    found = ECGShards(tmp_path / "s", "train", LEADS)
    assert [sample["ecg"].shape[1] for sample in found.read(np.arange(4))] == lengths
    assert found.index.lengths == (1, 1000)


def test_a_reader_can_be_pickled_after_reading(shards):
    shards.read(np.arange(14))
    size = len(pickle.dumps(shards))
    restored = pickle.loads(pickle.dumps(shards))  # noqa: S301
    assert all(same(*pair) for pair in zip(restored.read(np.arange(14)), TRAIN, strict=True))
    assert size < 5000
    copied = copy.copy(shards)
    copied.close()
    assert same(shards.read(np.array([3]))[0], TRAIN[3])


def read_much(shards, seed, answers):
    numbers = np.random.default_rng(seed).integers(0, len(shards), 2000)
    good = all(same(sample, TRAIN[n]) for sample, n in zip(shards.read(numbers), numbers, strict=True))
    answers.put(good)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_reader_that_has_open_files(shards, method):
    shards.read(np.arange(14))
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=read_much, args=(shards, seed, answers)) for seed in range(3)]
    for worker in workers:
        worker.start()
    read_much(shards, 9, answers)
    assert [answers.get(timeout=60) for _ in range(4)] == [True] * 4
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0


def open_files():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")  # noqa: PTH112
def test_open_files_are_few_however_many_shards_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(Shards, "_open", OrderedDict())  # earlier tests' files are not counted
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 4)
    write_shards(tmp_path / "s", records(200, split="train", samples=4), describe(), samples_per_shard=5)
    before = open_files()
    shards = ECGShards(tmp_path / "s", "train", LEADS)
    for seed in range(10):
        numbers = np.random.default_rng(seed).permutation(200)
        assert [s["meta"]["id"] for s in shards.read(numbers)] == [str(n) for n in numbers]
        assert open_files() <= before + 8
    shards.close()
    assert open_files() == before


@pytest.fixture
def reopening(tmp_path, monkeypatch):
    """A reader of four tars of 5 that has read them all, and keeps two open."""
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 2)
    write_shards(tmp_path / "s", records(20, split="train"), describe(), samples_per_shard=5)
    shards = ECGShards(tmp_path / "s", "train", LEADS)
    shards.read(np.arange(20))
    return shards


def test_a_folder_rebuilt_with_the_same_sizes_is_refused_when_it_is_opened_again(reopening, tmp_path):
    write_shards(tmp_path / "new", records(20, seed=1, split="train"), describe(), samples_per_shard=5)
    for path in (tmp_path / "new").glob("train-*"):
        assert path.stat().st_size == (tmp_path / "s" / path.name).stat().st_size
        path.replace(tmp_path / "s" / path.name)
    with pytest.raises(ValueError, match=r"train-000000\.index\.npy is not the offset table that index\.json"):
        reopening.read(np.arange(20))


def test_a_table_written_over_is_refused_when_it_is_opened_again(reopening, tmp_path):
    flip(tmp_path / "s" / "train-000001.index.npy", -1)
    with pytest.raises(ValueError, match=r"train-000001\.index\.npy is not the offset table that index\.json"):
        reopening.read(np.arange(20))


def test_a_tar_cut_short_is_refused_when_it_is_opened_again(reopening, tmp_path):
    tar = tmp_path / "s" / "train-000001.tar"
    size = tar.stat().st_size
    os.truncate(tar, size - 512)
    with pytest.raises(ValueError, match=rf"train-000001\.tar has {size - 512:,} bytes and was indexed with {size:,}"):
        reopening.read(np.arange(20))


def test_what_is_as_it_was_is_not_verified_twice(reopening, monkeypatch):
    monkeypatch.setattr(roots_module, "sha256_of", lambda path: pytest.fail(f"{path} was verified before"))
    assert len(reopening.read(np.arange(20))) == 20


def test_open_files_are_as_few_for_many_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(Shards, "_open", OrderedDict())  # earlier tests' files are not counted
    monkeypatch.setattr(shards_module, "OPEN_SHARDS", 4)
    write_shards(tmp_path / "s", records(20, split="train"), describe(), samples_per_shard=2)
    before = open_files()
    readers = [ECGShards(tmp_path / "s", "train", LEADS) for _ in range(9)]
    for reader in readers * 2:
        assert [sample["meta"]["id"] for sample in reader.read(np.arange(20))] == [str(n) for n in range(20)]
        assert open_files() <= before + 8
    del reader, readers[-1]
    assert open_files() == before
    readers[0].read(np.arange(3))
    readers[1].close()
    assert open_files() == before + 4, "a reader closes its own files alone"
    readers[0].close()
    assert open_files() == before


def test_closing_is_not_the_end(shards):
    with shards:
        shards.read(np.arange(3))
    assert same(shards.read(np.array([5]))[0], TRAIN[5])


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def places_in(tar):
    """Offsets in the headers, payloads and paddings of each sample's members, by key."""
    places = {}
    with tarfile.open(tar) as opened:
        for member in opened:
            key = member.name.split(".")[0]
            end = member.offset_data + -(-member.size // 512) * 512
            offsets = [member.offset, member.offset + 150, member.offset + 511, member.offset_data]
            offsets += [member.offset_data + 9, member.offset_data + member.size - 1, end - 1]
            places.setdefault(key, []).extend(offsets)
    return places


def test_a_flipped_byte_anywhere_in_a_sample_is_named_when_it_is_read(folder):
    tar = folder / "train-000001.tar"
    for key, offsets in places_in(tar).items():
        number = next(n for n, record in enumerate(TRAIN) if record.key == key)
        for offset in offsets:
            flip(tar, offset)
            shards = ECGShards(folder, "train", LEADS)
            with pytest.raises(ValueError, match=rf"train-000001\.tar is damaged at sample {key}: .* restore the file"):
                shards.read(np.arange(14))
            intact = np.delete(np.arange(14), number)
            assert all(same(s, TRAIN[n]) for s, n in zip(shards.read(intact), intact, strict=True))
            flip(tar, offset)
    assert len(ECGShards(folder, "train", LEADS).read(np.arange(14))) == 14


@pytest.mark.parametrize("rest", [0, 1, 512, 5000, -1])
def test_a_truncated_or_longer_tar_is_named_at_open(folder, rest):
    tar = folder / "train-000001.tar"
    whole = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[:rest] if rest >= 0 else tar.read_bytes() + b"\0")
    sentence = rf"train-000001\.tar has {tar.stat().st_size:,} bytes and was indexed with {whole:,}: restore it"
    with pytest.raises(ValueError, match=sentence):
        ECGShards(folder, "train", LEADS)
    assert len(ECGShards(folder, "val", LEADS)) == 6


def test_of_very_many_tars_some_are_looked_at_only_when_they_are_opened(folder, monkeypatch):
    monkeypatch.setattr(roots_module, "CHECKED", 1)
    monkeypatch.setattr(patience, "PAUSES", (0.01,))
    (folder / "train-000001.tar").unlink()
    with (folder / "train-000002.tar").open("ab") as file:
        file.write(b"more")
    shards = ECGShards(folder, "train", LEADS)
    assert len(shards.read(np.arange(6))) == 6
    with pytest.raises(ValueError, match=r"train-000001\.tar can't be read \(No such file or directory\)"):
        shards.read(np.array([6]))
    with pytest.raises(ValueError, match=r"train-000002\.tar has .* bytes and was indexed with"):
        shards.read(np.array([13]))
    (folder / "train-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"train-000000\.tar is missing"):
        ECGShards(folder, "train", LEADS)


def test_a_tar_cut_while_it_is_read_is_named(folder, shards):
    shards.read(np.arange(14))
    with (folder / "train-000000.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(ValueError, match=r"train-000000\.tar has 3,000 bytes and was indexed with 20,480"):
        shards.read(np.array([5]))


def test_a_missing_tar_or_table_is_named_at_open(folder):
    (folder / "train-000002.tar").rename(folder / "away")
    with pytest.raises(ValueError, match=r"train-000002\.tar is missing though .*index\.json lists it"):
        ECGShards(folder, "train", LEADS)
    (folder / "away").rename(folder / "train-000002.tar")
    (folder / "train-000002.index.npy").unlink()
    with pytest.raises(ValueError, match=r"train-000002\.index\.npy, the offset table .* is missing"):
        ECGShards(folder, "train", LEADS)


@pytest.mark.parametrize("offset", [0, 100, 300, -1])
def test_a_changed_table_is_named_and_not_taken_for_a_damaged_tar(folder, offset):
    path = folder / "train-000000.index.npy"
    flip(path, offset)
    shards = ECGShards(folder, "train", LEADS)
    with pytest.raises(ValueError, match=r"train-000000\.index\.npy is not the offset table"):
        shards.read(np.array([0]))
    with pytest.raises(ValueError, match=r"train-000000\.index\.npy is not the offset table"):
        shards.keys(np.array([0]))


@pytest.mark.parametrize("leads", [("II", "I", "V1"), ("I", "II"), ("I", "II", "V1", "V2"), ()])
def test_other_leads_or_another_order_are_refused_with_both_lists(folder, leads):
    both = rf"holds the leads \[I, II, V1\] and data\.leads asks for \[{', '.join(leads)}\]"
    with pytest.raises(ValueError, match=both):
        ECGShards(folder, "train", leads)


def test_an_unknown_split_is_refused_with_those_there(folder):
    with pytest.raises(ValueError, match=r"no split test: set data\.split to one of train, val"):
        ECGShards(folder, "test", LEADS)


def test_a_folder_without_index_says_how_to_get_one(tmp_path):
    for root in (tmp_path, tmp_path / "absent", str(tmp_path)):
        with pytest.raises(ValueError, match=r"holds no index\.json: build .*python -m tools\.build_shards"):
            ECGShards(root, "train", LEADS)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: text[:50], "is damaged"),
        (lambda text: "", "is damaged"),
        (lambda text: "[]", "format version None"),
        (lambda text: text.replace('"format": 2', '"format": 3'), "format version 3, this code reads 2"),
        (lambda text: text.replace('"leads"', '"lead"', 1), "is damaged .*leads"),
        (lambda text: re.sub(r'"bytes": \d+', '"bytes": "many"', text), r"is damaged \(splits\.train\.0\.bytes"),
        (lambda text: "\udcff", "is damaged"),
    ],
)
def test_a_damaged_or_foreign_index_is_told(folder, spoil, sentence):
    path = folder / "index.json"
    path.write_bytes(spoil(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"index\.json .*{sentence}"):
        ECGShards(folder, "train", LEADS)


def test_statistics_that_are_not_there_are_missed_only_when_asked_for(tmp_path):
    write_shards(tmp_path / "s", records(4, split="test"), describe())
    shards = ECGShards(tmp_path / "s", "test", LEADS)
    assert len(shards.read(np.arange(4))) == 4
    with pytest.raises(ValueError, match=r"no statistics .* data\.transform\.normalize"):
        shards.mean_C  # noqa: B018


def test_the_table_is_small_plain_and_tells_where_each_member_lies(folder):
    tar = folder / "val-000000.tar"
    table = open_table(table_path(tar))
    assert isinstance(table.base.base.obj, mmap.mmap)
    with tarfile.open(tar) as opened:
        for row in table:
            for field in ("ecg.npy", "json"):
                member = opened.getmember(f"{row['key'].decode()}.{field}")
                assert row["start"] + row[field]["offset"] == member.offset_data
                assert row[field]["size"] == member.size
    assert json.loads((folder / "index.json").read_text())["splits"]["val"][0]["samples"] == len(table)
