"""The same records give the same bytes, any WebDataset reader reads them, and a half-built folder never looks whole."""

import tarfile

import numpy as np
import pytest
import webdataset

from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from src.data.tars import FolderTaken
from src.data.write_shards import write_shards
from tests.data.conftest import LEADS, SCALE, describe, records


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_are_identical_when_built_twice(folder, tmp_path):
    write_shards(tmp_path / "elsewhere" / "again", records(), describe(), samples_per_shard=6)
    assert contents(tmp_path / "elsewhere" / "again") == contents(folder)


def test_shards_are_cut_at_the_number_of_samples(folder):
    index, _ = load_index(folder)
    assert {split: [shard.samples for shard in shards] for split, shards in index.splits.items()} == {
        "train": [6, 6, 2],
        "val": [6],
    }
    assert sorted(path.name for path in folder.glob("*.tar")) == [
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
        "val-000000.tar",
    ]


def test_members_carry_nothing_of_who_wrote_them_or_when(folder):
    with tarfile.open(folder / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members[:4]] == ["ecg-0000.ecg.npy", "ecg-0000.json", "ecg-0001.ecg.npy", "ecg-0001.json"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_webdataset_reads_what_we_write(folder):
    expected = list(records())
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in found] == [record.key for record in expected]
    for sample, record in zip(found, expected, strict=True):
        assert sample["ecg.npy"].dtype == np.int16
        assert np.array_equal(sample["ecg.npy"], record.signal_CT)
        assert sample["json"] == {**record.meta, "leads": list(LEADS), "sampling_rate": 100.0}


def test_records_come_back_exactly(folder):
    for split in ("train", "val"):
        expected = [record for record in records() if record.split == split]
        for sample, record in zip(
            ECGShards(folder, split, LEADS).read(np.arange(len(expected))), expected, strict=True
        ):
            assert sample["key"] == record.key
            assert np.array_equal(np.rint(sample["ecg"] / np.array(SCALE)[:, None]), record.signal_CT)
            labels = [np.nan if label is None else label for label in record.meta["labels"]]
            assert np.array_equal(sample["labels"], labels, equal_nan=True)


def test_float_records_come_back_exactly(tmp_path):
    ecg = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    write_shards(tmp_path / "s", records(4, signal_CT=ecg.T.copy().T, meta={"id": "a"}), describe())
    assert np.array_equal(ECGShards(tmp_path / "s", "train", LEADS).read(np.array([1]))[0]["ecg"], ecg)


def test_statistics_are_of_the_training_split_alone(folder):
    train = [r.signal_CT * np.array(SCALE)[:, None] for r in records() if r.split == "train"]
    values = np.concatenate(train, axis=1)
    shards = ECGShards(folder, "val", LEADS)
    assert np.allclose(shards.mean_C, values.mean(1), rtol=1e-6, atol=1e-6)
    assert np.allclose(shards.std_C, values.std(1), rtol=1e-6)
    assert shards.mean_C.dtype == shards.std_C.dtype == np.float64


def test_statistics_survive_a_large_offset(tmp_path):
    rng = np.random.default_rng(0)
    recorded = [(1e4 + rng.normal(size=(3, 500))).astype(np.float32) for _ in range(12)]
    write_shards(
        tmp_path / "s",
        [next(records(1, key=f"k{n}", split="train", signal_CT=ecg, meta={})) for n, ecg in enumerate(recorded)],
        describe(),
    )
    values = np.concatenate(recorded, axis=1).astype(np.float64)
    shards = ECGShards(tmp_path / "s", "train", LEADS)
    assert np.allclose(shards.mean_C, values.mean(1), rtol=1e-14)
    assert np.allclose(shards.std_C, values.std(1), rtol=1e-10)


@pytest.mark.parametrize("there", ["a file in it", "a file in its place"])
def test_an_output_that_is_there_is_refused(tmp_path, there):
    output = tmp_path / "out"
    if there == "a file in it":
        output.mkdir()
        (output / "precious").write_text("keep")
    else:
        output.write_text("keep")
    with pytest.raises(FolderTaken, match="out is there and not empty"):
        write_shards(output, records(), describe())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_output_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write_shards(tmp_path / "out", records(), describe())
    assert len(ECGShards(tmp_path / "out", "train", LEADS)) == 14


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def dying():
        yield from records(8)
        raise RuntimeError("reader died")

    with pytest.raises(RuntimeError, match="reader died"):
        write_shards(tmp_path / "out", dying(), describe(), samples_per_shard=3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_seen_whole_or_not_at_all(tmp_path):
    def looking():
        for record in records():
            assert not (tmp_path / "out").exists()
            yield record

    write_shards(tmp_path / "out", looking(), describe())
    assert (tmp_path / "out" / "index.json").exists()


def other(**changes):
    """The usual records with one more, changed."""
    return [*records(), *records(1, **{"key": "more", "split": "train", **changes})]


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (other(key="a.b"), r"the key a\.b must be"),
        (other(key="a/b"), "the key a/b must be"),
        (other(key=""), "must be 1 to 80"),
        (other(key="é"), "the key é must be"),
        (other(key="ecg-0000"), "holds the key ecg-0000 twice"),
        (other(split="tr-ain"), "split tr-ain"),
        (other(split="../x"), r"split \.\./x"),
        (other(signal_CT=np.zeros((3, 4), np.int32)), "record more is int32"),
        (other(signal_CT=np.zeros((2, 4), np.int16)), "sample more .* each of 2 leads"),
        (other(signal_CT=np.zeros((2, 4), np.float32), meta={}), "sample more .* has 2 leads, not the 3"),
        (other(signal_CT=np.full((3, 4), np.nan, np.float32), meta={}), "sample more .* NaN or infinite"),
        (other(split="val"), "sample more .* patient 0 is in the splits train and val"),
        ([], "no records"),
    ],
)
def test_records_that_can_not_be_stored_are_named(tmp_path, written, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_shards(tmp_path / "out", written, describe(), samples_per_shard=30)
    assert list(tmp_path.iterdir()) == []


def test_one_key_in_two_shards_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train-000000\.tar and train-000002\.tar both hold the key ecg-0000"):
        write_shards(tmp_path / "out", other(key="ecg-0000"), describe(), samples_per_shard=6)


def test_index_names_no_place(folder):
    assert str(folder.parent) not in (folder / "index.json").read_text()
