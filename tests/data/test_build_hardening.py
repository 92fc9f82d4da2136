"""What a hostile archive, a copied salt or a moment of bad luck must not do to a build."""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.data.build import Converted, _convert_all, claim
from src.data.builders.sources import Source
from src.data.ecg_shards import ECGShards
from tests.data.archive import build, contents, rejected, signal, write_csv, write_wfdb
from tests.data.test_build import ROOT, SMALL, start, state_of
from tests.data.test_build_refusals import refuse


def build_folders(capsys, tmp_path, folder, *words):
    code, out, err = build(capsys, "ecg", "--input", folder, "--patient-folders", "--output", tmp_path / "out", *words)
    assert code == 0, err
    return out, err


def test_a_place_is_claimed_until_the_build_is_in_it(tmp_path):
    with claim(tmp_path / "out"):
        command = "from pathlib import Path; import sys; from src.data.build import claim\n"
        command += "with claim(Path(sys.argv[1])): pass"
        second = subprocess.run(
            [sys.executable, "-c", command, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True
        )
    assert second.returncode == 1 and "is being written by another build" in second.stderr


def test_private_files_are_their_owners_alone_whoever_made_the_folder(archive, tmp_path, capsys):
    (tmp_path / "out.private").mkdir(mode=0o755)
    build_folders(capsys, tmp_path, archive)
    private = tmp_path / "out.private"
    assert private.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in private.glob("*.csv"))
    assert {path.name for path in private.iterdir()} == {"owner.lock", "pseudonyms.csv", "rejected.csv", "salt"}


@pytest.mark.parametrize("salt", ["", "a", "x" * 64])
def test_a_salt_that_protects_nobody_is_refused(archive, tmp_path, capsys, salt):
    (tmp_path / "out.private").mkdir()
    (tmp_path / "out.private" / "salt").write_text(salt)
    sentence = refuse(capsys, tmp_path, "--input", archive, "--patient-folders")
    assert "is no salt of 64 hexadecimal digits" in sentence


def test_a_salt_that_was_copied_with_a_newline_is_the_same_salt(archive, tmp_path, capsys):
    build_folders(capsys, tmp_path, archive)
    (tmp_path / "two.private").mkdir()
    (tmp_path / "two.private" / "salt").write_text((tmp_path / "out.private" / "salt").read_text() + "\n")
    assert build(capsys, "ecg", "--input", archive, "--patient-folders", "--output", tmp_path / "two")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "two")


def test_who_was_who_in_an_earlier_build_is_kept(archive, tmp_path, capsys):
    build_folders(capsys, tmp_path, archive)
    before = (tmp_path / "out.private" / "pseudonyms.csv").read_text()
    (tmp_path / "out").rename(tmp_path / "moved")
    write_wfdb(archive / "carl", "three", signal(3))
    build_folders(capsys, tmp_path, archive)
    assert (tmp_path / "out.private" / "pseudonyms.1.csv").read_text() == before
    assert len((tmp_path / "out.private" / "pseudonyms.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("nobody", ["NA", "nan", "NULL", " ", "None"])
def test_what_tables_write_for_nobody_is_no_patient(archive, tmp_path, capsys, nobody):
    rows = [{"path": "anna/one", "who": "A", "report": "normal"}, {"path": "bert/two", "who": nobody, "report": "NA"}]
    table = write_csv(tmp_path / "list.csv", rows)
    words = ("ecg", "--input", archive, "--table", table, "--patient-column", "who", "--text-column", "report")
    assert build(capsys, *words, "--output", tmp_path / "out")[0] == 0
    assert rejected(tmp_path / "out") == {"bert/two": "it has no patient"}
    assert build(capsys, *words, "--no-patients", "--output", tmp_path / "all")[0] == 0
    with ECGShards(tmp_path / "all", "train", STANDARD_LEADS) as shards:
        assert sorted(str(sample["text"]) for sample in shards.read(np.arange(2))) == ["None", "normal"]


@pytest.mark.parametrize(("one", "other"), [("12", "12.0"), ("José", "Jose\u0301"), ("Anna M", " Anna   M ")])
def test_one_patient_in_two_spellings_is_one_patient(archive, tmp_path, capsys, one, other):
    rows = [{"path": "anna/one", "who": one, "split": "train"}, {"path": "bert/two", "who": other, "split": "test"}]
    table = write_csv(tmp_path / "list.csv", rows)
    words = ("--input", archive, "--table", table, "--patient-column", "who", "--split-column", "split")
    assert "are of one patient" in refuse(capsys, tmp_path, *words)


def test_a_patient_with_and_without_leading_zeros_is_refused(archive, tmp_path, capsys):
    rows = [{"path": "anna/one", "who": "012"}, {"path": "bert/two", "who": "12"}]
    table = write_csv(tmp_path / "list.csv", rows)
    sentence = refuse(capsys, tmp_path, "--input", archive, "--table", table, "--patient-column", "who")
    assert "anna/one and bert/two are one number, with zeros before it and without" in sentence


def test_linked_folders_are_followed_once_and_loops_end(archive, tmp_path, capsys):
    write_wfdb(tmp_path / "elsewhere", "three", signal(3))
    (archive / "carl").symlink_to(tmp_path / "elsewhere")
    (archive / "loop").symlink_to(archive)
    build_folders(capsys, tmp_path, archive, "--keep-ids")
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        assert sorted(shards.keys(np.arange(len(shards)))) == ["anna-one", "bert-two", "carl-three"]


def test_a_header_that_wfdb_does_not_see_is_rejected(archive, tmp_path, capsys):
    path = write_wfdb(archive / "carl", "three", signal(3))
    path.with_suffix(".hea").rename(path.with_suffix(".HEA"))
    build_folders(capsys, tmp_path, archive)
    assert rejected(tmp_path / "out") == {"carl/three": "its header is called three.HEA: WFDB wants .hea"}


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
@pytest.mark.timeout(60)
def test_a_pipe_is_rejected_and_not_waited_for(archive, tmp_path, capsys, suffix):
    path = write_wfdb(archive / "carl", "three", signal(3)).with_suffix(suffix)
    path.unlink()
    os.mkfifo(path)
    build_folders(capsys, tmp_path, archive)
    assert rejected(tmp_path / "out") == {"carl/three": f"three{suffix} is a pipe or a device, no file"}


@pytest.mark.parametrize("rate", ["0.001", "1e8"])
def test_a_rate_that_no_recorder_has_is_rejected(archive, tmp_path, capsys, rate):
    path = write_wfdb(archive / "carl", "three", signal(3)).with_suffix(".hea")
    path.write_text(path.read_text().replace("three 12 100 400", f"three 12 {rate} 400"))
    build_folders(capsys, tmp_path, archive, "--sampling-rate", "100")
    assert "which is no sampling rate of an ECG" in rejected(tmp_path / "out")["carl/three"]


def test_a_lead_that_is_flat_once_it_is_stored_is_flat(archive, tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32)
    values[:, 4] = 0.25
    np.save(archive / "carl.npy", values + 1e-12 * np.arange(400)[:, None])
    table = write_csv(tmp_path / "list.csv", [{"path": "carl.npy", "who": "carl"}])
    words = ("--table", table, "--patient-column", "who", "--source-rate", "100", "--output", tmp_path / "out")
    assert build(capsys, "ecg", "--input", archive, *words)[0] == 0
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        (sample,) = shards.read(np.arange(1))
    assert sample["meta"]["flat_leads"] == ["aVL"] and np.flatnonzero(~sample["lead_keep"]).tolist() == [4]


def test_the_order_of_the_samples_tells_nothing_of_the_names(tmp_path, capsys):
    for number in range(12):
        write_wfdb(tmp_path / "ecgs" / f"patient{number:02d}", "one", signal(number))
    build_folders(capsys, tmp_path, tmp_path / "ecgs")
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        keys = shards.keys(np.arange(12))
    assert keys == sorted(keys)


def test_a_moved_archive_goes_on_where_it_was(tmp_path, capsys):
    for number in range(60):
        write_wfdb(tmp_path / "here" / f"p{number}", "one", signal(number, samples=200))
    words = ["ecg", "--input", str(tmp_path / "here"), "--patient-folders"]
    process = start(words, tmp_path / "out", "--workers", "1")
    while not state_of(tmp_path / "out"):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.communicate()
    (tmp_path / "here").rename(tmp_path / "there")
    words[2] = str(tmp_path / "there")
    code, _, err = build(capsys, *words, *SMALL, "--output", tmp_path / "out")
    assert code == 0, err
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        assert len(shards) == 60


def test_a_damaged_state_is_named(archive, tmp_path, capsys):
    (tmp_path / "out.private").mkdir()
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / "out.private" / "state.json").write_text("")
    sentence = refuse(capsys, tmp_path, "--input", archive, "--patient-folders")
    assert "state.json is damaged" in sentence and "to begin anew" in sentence


def test_a_label_named_twice_is_refused_before_anything_is_read(archive, tmp_path, capsys):
    table = write_csv(tmp_path / "list.csv", [{"path": "anna/one", "who": "A", "af": 1}])
    words = ("--input", archive, "--table", table, "--patient-column", "who", "--label-columns", "af", "af")
    assert "--label-columns names af twice" in refuse(capsys, tmp_path, *words)
    assert not (tmp_path / ".out.partial").exists()


def test_long_records_do_not_wait_by_the_hundred(tmp_path, capsys, monkeypatch):
    """With a budget of some records the processes still read them all, in order."""
    monkeypatch.setattr("src.data.build.AHEAD_BYTES", 100_000)
    for number in range(40):
        write_wfdb(tmp_path / "ecgs" / f"p{number:02d}", "one", signal(number, samples=1000))
    build_folders(capsys, tmp_path, tmp_path / "ecgs", "--keep-ids", "--workers", "2")
    with ECGShards(tmp_path / "out", "train", STANDARD_LEADS) as shards:
        for number, sample in enumerate(shards.read(np.arange(40))):
            assert np.array_equal(sample["ecg"], (signal(number, samples=1000).T / 1000).astype(np.float32))


def test_a_state_that_outlived_its_build_is_forgotten(archive, tmp_path, capsys):
    (tmp_path / "out.private").mkdir()
    old = {"fingerprint": "other", "next": 9, "tars": {"train": 3}, "rejected": []}
    (tmp_path / "out.private" / "state.json").write_text(json.dumps(old))
    refuse(capsys, tmp_path, "--input", archive, "--patient-folders", "--fewest-leads", "13")  # ends before a whole tar
    build_folders(capsys, tmp_path, archive)


def test_names_that_are_not_utf8_are_kept_as_they_are(tmp_path, capsys):
    folder = tmp_path / "ecgs" / "p1"
    write_wfdb(folder, "one", signal(1))
    write_wfdb(tmp_path / "ecgs" / "p2", "two", signal(2))
    patient = os.fsdecode(b"M\xfcller")
    folder.rename(folder.with_name(patient))
    broken = tmp_path / "ecgs" / "p2" / os.fsdecode(b"B\xf6se.hea")
    broken.write_bytes(b"no header")
    build_folders(capsys, tmp_path, tmp_path / "ecgs")
    private = tmp_path / "out.private"
    assert b"M\xfcller/one" in (private / "pseudonyms.csv").read_bytes()
    assert b"p2/B\xf6se," in (private / "rejected.csv").read_bytes()
    shutil.rmtree(tmp_path / "out")
    build_folders(capsys, tmp_path, tmp_path / "ecgs")
    assert not list(private.glob("*.1.csv"))


def test_where_nothing_can_be_used_the_reasons_are_kept(tmp_path, capsys):
    for name in ("one", "two"):
        write_wfdb(tmp_path / "ecgs" / name, name, np.full((400, 12), np.nan))
    sentence = refuse(capsys, tmp_path, "--input", tmp_path / "ecgs", "--patient-folders")
    assert "none of 2 records can be used" in sentence and "rejected.csv" in sentence
    assert len(rejected(tmp_path / "out")) == 2


def test_large_records_do_not_wait_before_the_first_is_known(monkeypatch):
    """As many are handed out as processes are there, until one has told its size."""
    waiting, most = [], []

    class Counted(Future):
        def __init__(self, chunk):
            super().__init__()
            waiting.append(self)
            most.append(len(waiting))
            self.set_result(chunk)

        def result(self, timeout=None):
            waiting.remove(self)
            return super().result(timeout)

    class Pool:
        def __init__(self, *_, **__):
            pass

        def submit(self, work, convert, sources):
            return Counted([Converted(source, {"x": bytes(300)}, "") for source in sources])

        def shutdown(self, **_):
            pass

    monkeypatch.setattr("src.data.build.ProcessPoolExecutor", Pool)
    monkeypatch.setattr("src.data.build.AHEAD_BYTES", 600)
    sources = [Source(name=str(number), path=Path(str(number))) for number in range(100)]
    convert = SimpleNamespace(at_a_time=1)
    assert [own.source for own in _convert_all(sources, convert, 16)] == sources
    assert max(most) <= 16
