"""What is counted in a folder is what pandas and ten lines find; what is broken is named, and the rest is counted."""

import hashlib
import json
import shutil
import tracemalloc
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from src.data.ecg_shards import ECGShards
from src.data.index import Labels, open_table, table_path
from src.data.inspect import inspect, key_of, locate
from src.data.load_index import load_index
from src.data.sample import META_FIELD
from src.data.scan import scan_tar
from src.data.show_inspection import as_text
from src.data.write_shards import Description, write_shards
from tests.data.conftest import LEADS, describe, records
from tools.build_shards import main as build

RECORDS = 40


def read(folder, **flags):
    return inspect(folder, load_index(folder)[0], **flags)


def place_of(folder, tar, sample, field):
    """The first byte of a sample's field in a tar, and its bytes."""
    row = open_table(table_path(folder / tar))[sample]
    return int(row["start"] + row[field]["offset"]), int(row[field]["size"])


def overwrite(path, start, data):
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)


@pytest.fixture(scope="module")
def table(medssl_data):
    archive = medssl_data / "ecg" / "ptbxl500"
    if not archive.is_dir():
        pytest.skip(f"no {archive}")
    return pd.read_csv(archive / "ptbxl_database.csv", nrows=RECORDS, keep_default_na=False)


@pytest.fixture(scope="module")
def ptbxl(medssl_data, table, tmp_path_factory):
    """The first records of PTB-XL at 100 Hz, in tars of 8; not to be changed."""
    archive, copy = medssl_data / "ecg" / "ptbxl500", tmp_path_factory.mktemp("ptbxl")
    table.to_csv(copy / "ptbxl_database.csv", index=False)
    shutil.copy(archive / "scp_statements.csv", copy)
    for name in table.filename_lr:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".dat"):
            shutil.copy(archive / (name + ending), copy / (name + ending))
    flags = ["--sampling-rate", "100", "--workers", "1", "--samples-per-shard", "8"]
    assert build(["ecg", "--input", str(copy), "--output", str(copy / "shards"), *flags]) == 0
    return copy / "shards"


def split_of(fold):
    return "train" if fold <= 8 else "val" if fold == 9 else "test"


def test_counts_of_real_records_are_those_of_pandas(ptbxl, table):
    found = read(ptbxl)
    assert found.faults == found.shared == ()
    splits = table.groupby(table.strat_fold.map(split_of))
    assert set(found.splits) == set(splits.groups)
    for split, own in splits:
        counts = found.splits[split]
        assert (counts.samples, counts.patients) == (len(own), own.patient_id.nunique())
        assert counts.tars == len(list(ptbxl.glob(f"{split}-*.tar"))) == -(-len(own) // 8)
        assert counts.bytes == sum(tar.stat().st_size for tar in ptbxl.glob(f"{split}-*.tar"))
        contents = counts.contents
        assert (contents["shortest"], contents["longest"], contents["lengths"]) == (1000, 1000, {1000: len(own)})
        reports = own.report[own.report != ""]
        assert (counts.texts.reports, counts.texts.distinct) == (len(reports), reports.nunique())
        assert counts.texts.duplicate_rate == pytest.approx(reports.duplicated().mean())
        words = reports.str.split().str.len().value_counts()
        assert sorted(counts.texts.words.values()) == sorted(words.head(5))
        assert all(words[length] == count for length, count in counts.texts.words.items())


def test_labels_and_statistics_of_real_records_are_those_of_all_samples_at_once(ptbxl):
    found = read(ptbxl)
    for split, counts in found.splits.items():
        with ECGShards(ptbxl, split, counts.contents["leads"]) as shards:
            samples = shards.read(np.arange(len(shards)))
        ecg_CT = np.concatenate([sample["ecg"] for sample in samples], 1).astype(float)
        assert np.allclose(counts.contents["statistics"]["mean"], ecg_CT.mean(1), atol=1e-12)
        assert np.allclose(counts.contents["statistics"]["std"], ecg_CT.std(1), rtol=1e-9)
        labels = pd.DataFrame([sample["labels"] for sample in samples], columns=list(found.labels.names))
        assert {name: own.positive for name, own in counts.labels.items()} == (labels == 1).sum().to_dict()
        assert {name: own.negative for name, own in counts.labels.items()} == (labels == 0).sum().to_dict()
        assert all(own.unknown == own.other == 0 for own in counts.labels.values())


def test_the_text_of_a_report_is_nowhere(ptbxl, table):
    found = read(ptbxl)
    for told in (as_text(found), found.model_dump_json()):
        assert not any(report in told for report in table.report if len(report) > 3)


def test_unknown_labels_grades_and_missing_leads_are_counted(tmp_path):
    made = list(records())
    made[0].meta["labels"] = [0.5, 3]
    made[1].meta["lead_keep"] = [True, False, True]
    made[2].meta["patient_id"] = None
    write_shards(tmp_path / "s", made, describe(), samples_per_shard=6)
    train = read(tmp_path / "s").splits["train"]
    own = [record.meta["labels"] for record in made if record.split == "train"]
    for number, name in enumerate(("even", "known")):
        values = Counter(labels[number] for labels in own)
        counts = train.labels[name]
        assert (counts.positive, counts.negative, counts.unknown) == (values[1], values[0], values[None])
        assert counts.other == 1
    assert train.contents["missing_leads"] == {"II": 1}
    assert (train.unnamed_patients, train.patients) == (1, 7)
    assert train.contents["statistics"]["count"] == (14 * 40, 13 * 40, 14 * 40)


def test_classes_are_counted_and_samples_of_none_or_two(tmp_path):
    made = list(records(6, split="train"))
    for record, labels in zip(made, ([1, 0], [1, 0], [0, 1], [0, 0], [1, 1], [None, None]), strict=True):
        record.meta["labels"] = labels
    description = Description(LEADS, 100.0, Labels(names=("a", "b"), kind="multiclass"), {})
    write_shards(tmp_path / "s", made, description)
    found = read(tmp_path / "s")
    counts = found.splits["train"]
    assert {name: own.positive for name, own in counts.labels.items()} == {"a": 3, "b": 2}
    assert counts.without_class == 3
    assert "not of exactly one class: 3" in as_text(found)


def test_contents_in_two_splits_are_named(tmp_path):
    made = list(records())
    made[19].signal_CT[:] = made[3].signal_CT  # val and train
    made[4].signal_CT[:] = made[5].signal_CT  # train and train
    write_shards(tmp_path / "s", made, describe(), samples_per_shard=6)
    found = read(tmp_path / "s")
    (shared,) = found.shared
    assert (shared.splits, shared.contents, shared.patients) == (("train", "val"), 1, 0)
    assert shared.keys == (("ecg-0003", "ecg-0019"),)
    assert (found.splits["train"].duplicates, found.splits["val"].duplicates) == (1, 0)
    assert "1 contents and 0 patients are in both (ecg-0003 = ecg-0019)" in as_text(found)


def test_every_key_is_found_where_it_lies(folder):
    index, _ = load_index(folder)
    for split, entries in index.splits.items():
        for number in range(index.samples(split)):
            assert locate(folder, index, key_of(folder, entries, number)) == (split, number)
    with pytest.raises(ValueError, match=r"--show: .* has no sample nobody; the first of train is ecg-0000"):
        locate(folder, index, "nobody")


def test_a_json_that_is_cut_off_is_named_and_the_rest_counted(folder):
    start, size = place_of(folder, "train-000001.tar", 2, META_FIELD)
    overwrite(folder / "train-000001.tar", start + size // 2, b"\0" * (size - size // 2))
    found = read(folder)
    (fault,) = found.faults
    assert (fault.file, fault.key) == ("train-000001.tar", "ecg-0008")
    assert "not those that were indexed" in fault.why and "the json can't be read" in fault.why
    assert (found.splits["train"].samples, found.splits["val"].samples) == (13, 6)
    assert "train-000001.tar: sample ecg-0008: " in as_text(found)


def test_a_json_that_was_indexed_cut_off_is_named_too(folder):
    """As an index of another tool or an earlier version might have it: table and sha256 are those of the broken tar."""
    tar = folder / "train-000001.tar"
    start, size = place_of(folder, tar.name, 2, META_FIELD)
    overwrite(tar, start + size // 2, b"\0" * (size - size // 2))
    _sign(folder, tar)
    found = read(folder)
    (fault,) = found.faults
    assert (fault.file, fault.key) == (tar.name, "ecg-0008")
    assert fault.why.startswith("the json can't be read")
    assert found.splits["train"].samples == 13


def _sign(folder, tar):
    """Make table and index those of the tar as it is."""
    np.save(table_path(tar), scan_tar(tar))
    index = json.loads((folder / "index.json").read_text())
    for entry in index["splits"]["train"]:
        if entry["name"] == tar.name:
            entry["sha256"] = hashlib.sha256(tar.read_bytes()).hexdigest()
            entry["index_sha256"] = hashlib.sha256(table_path(tar).read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))


def test_an_intact_folder_is_verified_and_every_byte_is_told(folder):
    index, _ = load_index(folder)
    for verify in (False, True):
        told = []
        assert inspect(folder, index, verify=verify, advance=told.append).faults == ()
        assert sum(told) == index.bytes() * (1 + verify)
        assert min(told) >= 0


def test_any_flipped_byte_of_a_tar_is_found(folder):
    tar = folder / "val-000000.tar"
    whole = tar.read_bytes()
    row = open_table(table_path(tar))
    ends = int(row[-1]["start"] + row[-1]["size"])
    for place in np.random.default_rng(0).integers(0, len(whole), 60).tolist():
        overwrite(tar, place, bytes([whole[place] ^ 0x55]))
        faults = read(folder, verify=True).faults
        assert {fault.file for fault in faults} == {tar.name}
        assert changed_tars(faults) == 1
        owner = int(np.searchsorted(row["start"], place, "right")) - 1
        named = [fault.key for fault in faults if fault.key is not None]
        assert named == ([row["key"][owner].decode()] if place < ends else [])
        tar.write_bytes(whole)
    assert read(folder, verify=True).faults == ()


def changed_tars(faults):
    return sum(fault.key is None and "another sha256" in fault.why for fault in faults)


def test_a_changed_table_and_missing_files_are_found_and_the_rest_counted(folder):
    overwrite(folder / "train-000000.index.npy", 200, b"\xff")
    (folder / "train-000002.tar").unlink()
    (folder / "val-000000.index.npy").unlink()
    for verify in (False, True):
        found = read(folder, verify=verify)
        assert [(fault.file, fault.key) for fault in found.faults] == [
            ("train-000000.index.npy", None),
            ("train-000002.tar", None),
            ("val-000000.index.npy", None),
        ]
        assert (found.splits["train"].samples, found.splits["val"].samples) == (6, 0)
        assert "is missing though index.json lists it" in as_text(found)


def test_a_tar_that_is_cut_off_loses_what_is_behind_the_cut(folder):
    tar = folder / "train-000000.tar"
    row = open_table(table_path(tar))[4]
    tar.write_bytes(tar.read_bytes()[: int(row["start"]) + 100])
    found = read(folder)
    assert [fault.key for fault in found.faults] == [None, "ecg-0004", "ecg-0005"]
    assert found.splits["train"].samples == 12


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("patients", {"train": 7, "val": 4}, "samples, patients and reports of val"),
        ("texts", {"train": 1, "val": 0}, "samples, patients and reports of train"),
        ("lengths", [40, 41], "lengths"),
        ("missing_leads", {"II": 1}, "missing_leads"),
        ("statistics", None, "statistics None"),
    ],
)
def test_an_index_that_tells_something_else_is_found_by_verifying(folder, key, value, sentence):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, key: value}))
    assert read(folder).faults == ()
    (fault,) = read(folder, verify=True).faults
    assert fault.file == "index.json" and sentence in fault.why


def test_a_hundred_faults_are_named_and_the_others_counted(tmp_path):
    write_shards(tmp_path / "s", records(160, split="train"), describe())
    tar = tmp_path / "s" / "train-000000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    found = read(tmp_path / "s")
    assert len(found.faults) == 160 and found.splits["train"].samples == 0
    text = as_text(found)
    assert text.count("another CRC32") == 100 and text.endswith("and 60 more")


def test_a_folder_without_labels_and_with_a_patient_that_is_no_unicode(tmp_path):
    made = list(records(3, split="train"))
    for record in made:
        del record.meta["labels"]
        record.meta["patient_id"] = "\ud800"
    write_shards(tmp_path / "s", made, Description(LEADS, 100.0, Labels(), {}))
    train = read(tmp_path / "s", verify=True).splits["train"]
    assert (train.labels, train.patients, train.without_class) == ({}, 1, 0)


def test_what_remains_of_a_sample_is_small(tmp_path):
    """Ten times the samples take no ten times the memory: only digests stay."""
    peaks = []
    for count in (40, 400):
        write_shards(tmp_path / f"{count}", records(count, samples=2000), describe(), samples_per_shard=50)
        index, _ = load_index(tmp_path / f"{count}")
        tracemalloc.start()
        inspect(tmp_path / f"{count}", index)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 360 * 1000  # a signal alone has 12,000 bytes
