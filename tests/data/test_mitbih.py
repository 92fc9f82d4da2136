"""The MIT-BIH beats: every one comes back bit-exact, through our reader and through WebDataset's."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import webdataset

from src.data.builders.mitbih import CLASSES, FIELDS, LEADS, SCALE, read_beats
from src.data.ecg_shards import ECGShards
from src.data.load_index import load_index
from src.data.write_shards import write_shards
from tests.conftest import ROOT
from tools.build_shards import main


def made_up(count=12, **changes):
    rng = np.random.default_rng(0)
    beats = {
        "x": rng.integers(-1000, 1000, (count, 2, 128), np.int16),
        "aami": np.arange(count, dtype=np.int8) % 4,
        "symbol": np.array(list("NSVF"))[np.arange(count) % 4],
        "record": np.repeat(np.array([100, 101], np.int16), [count // 2, count - count // 2]),
        "split": np.repeat(np.array([1, 0], np.int8), [count // 2, count - count // 2]),
    }
    return {**beats, **changes}


def save(folder, **arrays):
    np.savez(folder / "beats.npz", **arrays)
    return folder / "beats.npz"


def test_beats_become_records_in_the_files_order(tmp_path):
    arrays = made_up(record=np.array([100, 101] * 6, np.int16), split=np.array([0, 1] * 6, np.int8))
    records = list(read_beats(save(tmp_path, **arrays)).records())
    assert [r.key for r in records[:4]] == ["mitdb-100-00000", "mitdb-101-00000", "mitdb-100-00001", "mitdb-101-00001"]
    assert [r.split for r in records[:2]] == ["train", "test"]
    assert records[2].meta == {
        "id": "100-00001",
        "patient_id": "100",
        "symbol": "V",
        "labels": [0, 0, 1, 0],
        "scale": [SCALE, SCALE],
    }


def test_the_verb_builds_and_closes_with_one_line(tmp_path, capsys):
    path = save(tmp_path, **made_up())
    assert main(["ecg", "--input", str(path), "--output", str(tmp_path / "out"), "--samples-per-shard", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert "test: 6 samples of 1 patients; train: 6 samples of 1 patients; 4 tars" in captured.out
    assert "leads ECG1 ECG2 at 128 Hz" in captured.out
    assert "writing" in captured.err
    assert "12/12" in captured.err


def test_a_users_error_is_one_sentence_and_exit_code_1(tmp_path):
    command = [sys.executable, "-m", "tools.build_shards", "ecg", "--input", "absent.npz", "--output", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == "error: absent.npz is not there: name the .npz with --input\n"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"signals": np.zeros(3)}, r"holds the fields \[signals\], expected are \[aami, record, split, symbol, x\]"),
        ({**made_up(), "more": np.zeros(3)}, r"holds the fields \[aami, more, record"),
        (made_up(x=np.zeros((12, 2, 128), np.float32)), r"x is float32 \[12, 2, 128\]"),
        (made_up(x=np.zeros((12, 3, 128), np.int16)), r"x is int16 \[12, 3, 128\]"),
        (made_up(aami=np.zeros(11, np.int8)), r"aami is int8 \[11\], expected is integers \[12\]"),
        (made_up(record=np.zeros(12)), "record is float64"),
        (made_up(symbol=np.zeros(12, np.int8)), "symbol is int8 .* expected is text"),
        (made_up(aami=np.full(12, 4)), r"aami of beat 0 is 4, expected is 0 \.\. 3"),
        (made_up(split=np.full(12, -1)), r"split of beat 0 is -1, expected is 0 \.\. 1"),
        (made_up(split=np.arange(12) % 2), "patient 10[01] is in the splits"),
        (made_up(symbol=np.array(["N", None] * 6)), "can't be read as an .npz of plain arrays"),
    ],
)
def test_another_layout_is_told(tmp_path, capsys, arrays, sentence):
    path = save(tmp_path, **arrays)
    assert main(["ecg", "--input", str(path), "--output", str(tmp_path / "out")]) == 1
    with pytest.raises(ValueError, match=sentence):
        beats = read_beats(path)
        write_shards(tmp_path / "out", beats.records(), beats.description())
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_npz_is_told(tmp_path):
    path = save(tmp_path, **made_up())
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    middle = len(whole) // 4
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", b"text", whole[: len(whole) // 2], flipped, (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="can't be read as an .npz of plain arrays"):
            read_beats(path)


@pytest.mark.parametrize("samples", ["0", "-3"])
def test_a_shard_holds_at_least_one_sample(tmp_path, capsys, samples):
    path = save(tmp_path, **made_up())
    verb = ["ecg", "--input", str(path), "--output", str(tmp_path / "out"), "--samples-per-shard", samples]
    assert main(verb) == 1
    assert "--samples-per-shard" in capsys.readouterr().err


@pytest.mark.data
class TestPublicBeats:
    """All 21,580 of them."""

    def test_every_beat_comes_back_bit_exact(self, beats_npz, mitdb):
        with np.load(beats_npz, allow_pickle=False) as file:
            beats = {name: file[name] for name in FIELDS}
        for number, split in enumerate(("train", "test")):
            mine = beats["split"] == number
            shards = ECGShards(mitdb, split, LEADS)
            samples = shards.read(np.arange(len(shards)))
            ecg = np.stack([sample["ecg"] for sample in samples])
            assert ecg.shape == (mine.sum(), 2, 128)
            assert np.array_equal(np.rint(ecg / SCALE), beats["x"][mine])
            labels = np.stack([sample["labels"] for sample in samples])
            assert np.array_equal(labels, np.eye(len(CLASSES))[beats["aami"][mine]])
            assert [s["meta"]["patient_id"] for s in samples] == [str(record) for record in beats["record"][mine]]
            assert [s["meta"]["symbol"] for s in samples] == beats["symbol"][mine].tolist()
            assert [s["key"] for s in samples] == shards.keys(np.arange(len(shards)))

    def test_statistics_are_those_of_numpy_over_the_training_beats(self, beats_npz, mitdb):
        with np.load(beats_npz, allow_pickle=False) as file:
            train = file["x"][file["split"] == 0] * SCALE
        shards = ECGShards(mitdb, "test", LEADS)
        assert np.allclose(shards.mean_C, train.mean((0, 2)), rtol=1e-7)
        assert np.allclose(shards.std_C, train.std((0, 2)), rtol=1e-7)

    def test_counts_are_the_published_ones(self, mitdb):
        index, _ = load_index(mitdb)
        assert index.patients == {"train": 22, "test": 22}
        assert index.samples("train") + index.samples("test") == 21_580
        counts = Counter()
        for split in ("train", "test"):
            shards = ECGShards(mitdb, split, LEADS)
            for sample in shards.read(np.arange(len(shards))):
                counts[shards.label_names[int(sample["labels"].argmax())]] += 1
        assert counts == {"N": 10_989, "S": 2_781, "V": 7_008, "F": 802}

    def test_webdataset_reads_the_same_beats(self, beats_npz, mitdb):
        with np.load(beats_npz, allow_pickle=False) as file:
            expected, split = file["x"], file["split"]
        for number, name in enumerate(("train", "test")):
            urls = [str(path) for path in sorted(mitdb.glob(f"{name}-*.tar"))]
            found = np.stack([s["ecg.npy"] for s in webdataset.WebDataset(urls, shardshuffle=False).decode()])
            assert np.array_equal(found, expected[split == number])

    def test_bytes_are_identical_when_built_twice(self, beats_npz, mitdb, tmp_path):
        assert main(["ecg", "--input", str(beats_npz), "--output", str(tmp_path / "again")]) == 0
        again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
        assert again == {path.name: path.read_bytes() for path in mitdb.iterdir()}
