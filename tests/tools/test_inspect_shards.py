"""The verb: counts, JSON, one sample's picture, tars of others; a mistake is one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.data.inspect import inspect
from src.data.load_index import load_index
from src.data.show_inspection import as_text
from src.data.write_shards import write_shards
from tests.data.conftest import LEADS, describe, records, write_tar
from tools.augment import main as augment
from tools.inspect_shards import main

DEBUG = "configs/jepa/ecg_debug.yaml"
REPORT = "sinus rhythm nobody should read"


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path / "shards", records(samples=300, text=REPORT), describe(), samples_per_shard=6)
    return tmp_path / "shards"


def sentence(capsys):
    """The one error on stderr, behind what the bar drew there."""
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert lines[-1].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


def test_counts_go_to_stdout_and_the_same_to_json(folder, tmp_path, capsys):
    assert main([str(folder), "--json", str(tmp_path / "deep" / "x.json")]) == 0
    out = capsys.readouterr().out
    found = inspect(folder, load_index(folder)[0])
    assert out == as_text(found) + "\n"
    assert "train: 14 samples of 7 patients" in out and REPORT not in out
    told = (tmp_path / "deep" / "x.json").read_text()
    assert json.loads(told) == json.loads(found.model_dump_json()) and REPORT not in told


def test_verification_says_so_and_a_flipped_byte_ends_with_one(folder, tmp_path, capsys):
    assert main([str(folder), "--verify"]) == 0
    assert "verified: " in capsys.readouterr().out
    tar = folder / "val-000000.tar"
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    assert main([str(folder), "--verify", "--json", str(tmp_path / "x.json")]) == 1
    told = capsys.readouterr()
    assert "val-000000.tar: is not the file that was indexed" in told.out
    assert "val-000000.tar: sample ecg-0014: its bytes are not those" in told.out and "verified" not in told.out
    assert told.err.rstrip("\n").split("\n")[-1] == f"error: {folder}: 2 broken, named above"
    assert len(json.loads((tmp_path / "x.json").read_text())["faults"]) == 2


def test_one_sample_is_drawn(folder, tmp_path, capsys):
    picture = tmp_path / "deep" / "x.png"
    assert main([str(folder), "--show", "ecg-0017", "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert capsys.readouterr().out == ""


def wide(record):
    """The same record with its three leads four times."""
    record.meta["scale"] = [0.001] * 12
    return replace(record, signal_CT=np.tile(record.signal_CT, (4, 1)))


def test_what_a_config_makes_of_it_is_the_picture_of_augment(tmp_path):
    """Of the split that the sample is in, not of the config's."""
    folder = tmp_path / "s"
    write_shards(folder, map(wide, records(8, samples=300)), describe(STANDARD_LEADS))
    words = ["--show", "ecg-0007", "--augment", DEBUG, "--output"]
    assert main([str(folder), *words, str(tmp_path / "x.png")]) == 0
    here = [f"data.root={folder}", "data.split=val", "data.synthetic=null"]
    assert augment(["--fname", DEBUG, "--set", *here, "--key", "ecg-0007", "--output", str(tmp_path / "y.png")]) == 0
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_a_config_for_other_leads_is_told_and_the_folder_stays_as_it_is(folder, tmp_path, capsys):
    before = sorted(path.name for path in folder.iterdir())
    words = ["--show", "ecg-0017", "--augment", DEBUG, "--output", str(tmp_path / "x.png")]
    assert main([str(folder), *words]) == 1
    assert "holds the leads [I, II, V1] and data.leads asks for" in sentence(capsys)
    assert sorted(path.name for path in folder.iterdir()) == before and not (tmp_path / "x.png").exists()


def test_tars_of_others_are_indexed_as_by_build_shards_and_counted(tmp_path, capsys):
    ecg = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    write_tar(tmp_path / "x-train-0.tar", [("a.ecg.npy", ecg), ("a.json", {"labels": [1]}), ("b.ecg.npy", -ecg)])
    write_tar(tmp_path / "x-val-0.tar", [("c.ecg.npy", ecg)])
    flags = ["--leads", *LEADS, "--sampling-rate", "100", "--labels", "sick", "--label-kind", "multiclass"]
    splits = ["--split", "train=*train*", "--split", "val=*val*"]
    assert main([str(tmp_path), "--index", *flags, *splits]) == 0
    out = capsys.readouterr().out
    assert "train: 2 samples of 0 patients, 2 samples without one" in out
    assert "not of exactly one class: 1" in out
    assert "between train and val: 1 contents and 0 patients are in both (a = c)" in out
    assert load_index(tmp_path)[0].leads == LEADS


def test_a_broken_sample_of_others_is_named_and_nothing_is_indexed(tmp_path, capsys):
    write_tar(tmp_path / "train-0.tar", [("a.ecg.npy", np.zeros((1, 9), np.float32)), ("a.json", b'{"id": ')])
    assert main([str(tmp_path), "--index", "--leads", "I", "--sampling-rate", "100"]) == 1
    assert "train-0.tar: sample a can't be used: the json can't be read" in sentence(capsys)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--leads", "I"], "--leads does something only with --index"),
        (["--sampling-rate", "100"], "--sampling-rate does something only with --index"),
        (["--output", "x.png"], "--output does something only with --show"),
        (["--augment", DEBUG], "--augment does something only with --show"),
        (["--show", "ecg-0000"], "--show needs --output"),
        (["--show", "ecg-0000", "--output", "x.png", "--verify"], "--verify does nothing there"),
        (["--show", "nobody", "--output", "x.png"], "has no sample nobody; the first of train is ecg-0000"),
        (["--index"], "has an index.json already"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_a_mistake_is_one_sentence(folder, capsys, words, told):
    assert main([str(folder), *words]) == 1
    assert told in sentence(capsys)


def test_a_folder_without_an_index_is_told(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no index.json" in sentence(capsys)
    (tmp_path / "index.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "is damaged" in sentence(capsys)
