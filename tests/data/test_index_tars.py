"""Tars that others wrote: indexed by one scan, and what can't be used is told in a sentence."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
import webdataset

from src.data.ecg_shards import ECGShards
from src.data.index import Labels, open_table, table_path
from src.data.make_index import Contents, find_tars, make_index
from src.data.scan import scan_tar
from tests.data.conftest import LEADS, write_tar
from tools.build_shards import main

ECG = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
META = {"leads": list(LEADS), "sampling_rate": 250.0}


def index(folder, leads=None, sampling_rate=None, labels=(), patterns=None):
    given = {"leads": leads, "sampling_rate": sampling_rate}
    return make_index(folder, find_tars(folder, patterns), Contents("ecg", Labels(names=labels), {}, given))


def write_with_webdataset(folder, count=10):
    samples = []
    for shard in range(2):
        with webdataset.TarWriter(str(folder / f"train-{shard}.tar")) as writer:
            for number in range(count):
                ecg = np.random.default_rng(shard * count + number).normal(size=(3, 20 + number)).astype(np.float32)
                key = f"deep/er/{shard}_{number:03d}"
                meta = {**META, "patient_id": f"{shard}{number}", "labels": [number]}
                samples.append((key, ecg, meta))
                writer.write({"__key__": key, "ecg.npy": ecg, "json": meta, "txt": "sinus rhythm"})
    return samples


def test_tars_of_webdatasets_own_writer_are_indexed_and_read(tmp_path):
    written = write_with_webdataset(tmp_path)
    assert index(tmp_path, labels=("grade",)).samples("train") == 20
    shards = ECGShards(tmp_path, "train", LEADS)
    assert shards.sampling_rate == 250.0
    numbers = np.random.default_rng(0).permutation(20)
    for sample, number in zip(shards.read(numbers), numbers, strict=True):
        key, ecg, meta = written[number]
        assert sample["key"] == key
        assert np.array_equal(sample["ecg"], ecg)
        assert sample["labels"].tolist() == meta["labels"]
        assert sample["meta"]["patient_id"] == meta["patient_id"]


def test_the_verb_indexes_in_place_and_says_what_is_there(tmp_path, capsys):
    write_with_webdataset(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.tar")}
    assert main(["index", "--input", str(tmp_path), "--labels", "grade"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "train: 20 samples of 20 patients, 20 with a report; 2 tars" in line
    assert "leads I II V1 at 250 Hz" in line
    assert {path: path.read_bytes() for path in tmp_path.glob("*.tar")} == before
    assert main(["index", "--input", str(tmp_path)]) == 1
    assert "has an index.json already" in capsys.readouterr().err


def test_leads_and_rate_come_from_flags_where_the_json_has_none(tmp_path):
    write_tar(tmp_path / "train-0.tar", [("a.ecg.npy", ECG), ("b.ecg.npy", ECG), ("b.json", {"id": 3})])
    assert main(["index", "--input", str(tmp_path), "--leads", *LEADS, "--sampling-rate", "500"]) == 0
    samples = ECGShards(tmp_path, "train", LEADS).read(np.array([1, 0]))
    assert [sample["meta"] for sample in samples] == [{"id": 3}, {}]
    assert np.array_equal(samples[1]["ecg"], ECG)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tmp_path, tar_format):
    folder = "long/" * 15 if tar_format == tarfile.USTAR_FORMAT else "long/" * 40
    members = [
        (f"{folder}k{n}.{field}", value) for n in range(4) for field, value in (("json", META), ("ecg.npy", ECG))
    ]
    write_tar(tmp_path / "train.tar", members, format=tar_format)
    index(tmp_path)
    shards = ECGShards(tmp_path, "train", LEADS)
    assert shards.keys(np.arange(4)) == [f"{folder}k{n}" for n in range(4)]
    assert all(np.array_equal(sample["ecg"], ECG) for sample in shards.read(np.arange(4)))


def test_folders_hidden_files_and_nameless_members_are_of_no_sample(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        header = tarfile.TarInfo("./")
        header.type = tarfile.DIRTYPE
        tar.addfile(header)
        for name, data in (("./a.ecg.npy", ECG), ("./.DS_Store", b"x"), ("./README", b"y"), ("./b.ecg.npy", ECG)):
            stream = io.BytesIO()
            np.save(stream, data)
            header = tarfile.TarInfo(name)
            header.size = stream.tell()
            tar.addfile(header, io.BytesIO(stream.getvalue()))
    index(tmp_path, LEADS, 100.0)
    assert ECGShards(tmp_path, "train", LEADS).keys(np.arange(2)) == ["./a", "./b"]


def test_a_key_ends_at_the_first_dot_of_the_name_as_webdataset_has_it(tmp_path):
    write_tar(tmp_path / "train.tar", [("v1.0/a.ecg.npy", ECG), ("v1.0/a.left.txt", b"1"), ("v1.0/b.ecg.npy", ECG)])
    index(tmp_path, LEADS, 100.0)
    found = [sample["__key__"] for sample in webdataset.WebDataset(str(tmp_path / "train.tar"), shardshuffle=False)]
    assert ECGShards(tmp_path, "train", LEADS).keys(np.arange(2)) == found == ["v1.0/a", "v1.0/b"]
    table = open_table(table_path(tmp_path / "train.tar"))
    assert table["left.txt"]["size"].tolist() == [1, -1]
    assert table["left.txt"]["offset"][1] == -1


def test_splits_are_the_names_less_their_numbers_or_as_told(tmp_path):
    for name in ("ptb-train-000", "ptb-train-001", "ptb-val-000"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}.ecg.npy", ECG)])
    assert {split: len(tars) for split, tars in find_tars(tmp_path).items()} == {"ptb-train": 2, "ptb-val": 1}
    flags = ["--leads", *LEADS, "--sampling-rate", "100"]
    assert main(["index", "--input", str(tmp_path), *flags, "--split", "train=*train*", "--split", "val=*val*"]) == 0
    assert len(ECGShards(tmp_path, "train", LEADS)) == 2
    assert ECGShards(tmp_path, "val", LEADS).keys(np.array([0])) == ["ptb-val-000"]


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (["train=*nothing*"], "matches .*nothing"),
        (["train=*", "val=*val*"], "matches both train and val"),
        (["train"], "must be NAME=GLOB"),
        (["=x"], "must be NAME=GLOB"),
    ],
)
def test_splits_that_can_not_be_are_told(tmp_path, capsys, splits, sentence):
    write_tar(tmp_path / "x-val-0.tar", [("a.ecg.npy", ECG)])
    flags = [part for split in splits for part in ("--split", split)]
    assert main(["index", "--input", str(tmp_path), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(sentence, error)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([("a.ecg.npy", ECG), ("b.ecg.npy", ECG), ("a.json", META)], "other members between those of sample a"),
        ([("a.ecg.npy", ECG), ("b.ecg.npy", ECG), ("a.ecg.npy", ECG)], "holds the key a twice"),
        ([("a.ecg.npy", ECG), ("a.ecg.npy", ECG)], "holds the key a twice"),
        ([("a.ecg.npy", ECG), ("b.json", META)], r"sample b .* no member b\.ecg\.npy"),
        ([("a.json", META)], r"sample a .* no member a\.ecg\.npy"),
        ([("a", b"")], "holds no samples"),
        ([], "holds no samples"),
        ([("a.ecg.npy", np.zeros((3, 4), np.int16))], "sample a .* int16 needs scale"),
        ([("a.ecg.npy", np.array([[None]]))], "sample a .* unpickled"),
        ([("a.ecg.npy", b"\x80\x04N.")], r"sample a .* not in \.npy format"),
        ([("a.ecg.npy", ECG[:2])], "sample a .* has 2 leads, not the 3"),
        ([("a.ecg.npy", ECG * np.float32(np.inf))], "sample a .* NaN or infinite"),
        ([("a.ecg.npy", ECG), ("a.json", b"{")], "sample a .* json can't be read"),
        ([("a.ecg.npy", ECG), ("a.json", b"\xff")], "sample a .* json can't be read"),
        ([("a.ecg.npy", ECG), ("a.json", {"leads": ["II", "I", "V1"]})], r"sample a .* \[II, I, V1\], those of the"),
        ([("a.ecg.npy", ECG), ("a.json", {"leads": ["I", "I", "V1"]})], "sample a .* come twice"),
        ([("a.ecg.npy", ECG), ("a.json", {"leads": 3})], "sample a .* must be a list of names"),
        ([("a.ecg.npy", ECG), ("a.json", {"sampling_rate": 500})], "sample a .* 500 Hz, that of the folder 100 Hz"),
        ([("a.ecg.npy", ECG), ("a.json", {"sampling_rate": "x"})], "sample a .* positive number of Hz"),
        ([("a.ecg.npy", ECG), ("a.json", {"labels": [1]})], "sample a .* not 0 numbers"),
    ],
)
def test_samples_that_can_not_be_used_are_named(tmp_path, members, sentence):
    write_tar(tmp_path / "train-7.tar", members)
    with pytest.raises(ValueError, match=rf"train-7\.tar.*{sentence}"):
        index(tmp_path, LEADS, 100.0)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(("leads", "rate", "flag"), [(None, 100.0, "--leads"), (LEADS, None, "--sampling-rate")])
def test_what_neither_flags_nor_json_tell_is_asked_for(tmp_path, leads, rate, flag):
    write_tar(tmp_path / "train-7.tar", [("a.ecg.npy", ECG)])
    with pytest.raises(ValueError, match=rf"sample a .* {flag}"):
        index(tmp_path, leads, rate)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sampling-rate", "0"], "--sampling-rate must be positive"),
        (["--sampling-rate", "nan"], "--sampling-rate must be positive"),
        (["--leads", "I", "I", "V1"], "two leads are called I"),
        (["--labels", "a", "b", "a"], "two labels are called a"),
    ],
)
def test_flags_that_can_not_be_are_told(tmp_path, capsys, flags, sentence):
    write_tar(tmp_path / "train-7.tar", [("a.ecg.npy", ECG), ("a.json", META)])
    assert main(["index", "--input", str(tmp_path), *flags]) == 1
    assert re.fullmatch(rf"error: .*{sentence}.*\n", capsys.readouterr().err)


def test_keys_and_patients_are_of_one_tar_and_split(tmp_path):
    write_tar(tmp_path / "train-0.tar", [("a.ecg.npy", ECG), ("a.json", {"patient_id": 7})])
    write_tar(tmp_path / "val-0.tar", [("b.ecg.npy", ECG), ("b.json", {"patient_id": "7"})])
    with pytest.raises(ValueError, match=r"val-0\.tar: sample b .* patient 7 is in the splits train and val"):
        index(tmp_path, LEADS, 100.0)
    write_tar(tmp_path / "val-0.tar", [("a.ecg.npy", ECG)])
    with pytest.raises(ValueError, match=r"train-0\.tar and val-0\.tar both hold the key a"):
        index(tmp_path, LEADS, 100.0)


def test_a_folder_without_training_split_is_told_to_have_no_statistics(tmp_path, capsys):
    write_tar(tmp_path / "ptb-0.tar", [("a.ecg.npy", ECG), ("a.json", META)])
    assert main(["index", "--input", str(tmp_path)]) == 0
    assert "no split train and so no statistics" in capsys.readouterr().out


def test_a_folder_without_tars_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"holds no \.tar"):
            find_tars(folder)


def whole_tar(tmp_path):
    members = [(f"k{n}.{field}", value) for n in range(5) for field, value in (("ecg.npy", ECG), ("json", META))]
    return write_tar(tmp_path / "train-0.tar", members)


def test_a_tar_cut_anywhere_is_not_taken_for_a_short_one(tmp_path):
    tar = whole_tar(tmp_path)
    data = tar.read_bytes()
    end = scan_tar(tar)[-1]
    content = int(end["start"] + end["size"])
    for length in [0, 1, 511, *range(512, content + 512, 256), content + 511]:
        tar.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"train-0\.tar"):
            scan_tar(tar)
    tar.write_bytes(data[: content + 512])
    assert len(scan_tar(tar)) == 5


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    tar = whole_tar(tmp_path)
    data = tar.read_bytes()
    for row in scan_tar(tar):
        for start in (row["start"], row["start"] + row["json"]["offset"] - 512):
            damaged = bytearray(data)
            damaged[start + 10] ^= 255
            tar.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"train-0\.tar"):
                scan_tar(tar)


def test_a_second_archive_behind_the_first_is_not_lost_in_silence(tmp_path):
    tar = whole_tar(tmp_path)
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"train-0\.tar is cut off or damaged"):
        scan_tar(tar)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_compressed_tar_is_told(tmp_path, mode):
    with tarfile.open(tmp_path / "train-0.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a.ecg.npy"))
    with pytest.raises(ValueError, match=r"train-0\.tar is no plain tar"):
        scan_tar(tmp_path / "train-0.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        header = tarfile.TarInfo("a.ecg.npy")
        header.type, header.linkname = kind, "/etc/passwd"
        tar.addfile(header)
    with pytest.raises(ValueError, match=r"a\.ecg\.npy is a link"):
        scan_tar(tmp_path / "train-0.tar")


def test_an_index_made_again_is_the_same(folder, tmp_path):
    ours = (folder / "index.json").read_bytes()
    tables = {path: path.read_bytes() for path in folder.glob("*.index.npy")}
    known = json.loads(ours)
    (folder / "index.json").unlink()
    for path in tables:
        path.unlink()
    make_index(folder, find_tars(folder), Contents("ecg", Labels(names=("even", "known")), known["source"]))
    assert (folder / "index.json").read_bytes() == ours
    assert {path: path.read_bytes() for path in folder.glob("*.index.npy")} == tables
