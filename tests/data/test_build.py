"""A build is the same bytes however many processes made it, and however often it was killed."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from tests.commands import alive, descendants, kill_tree, wait_until
from tests.data.archive import build, contents, write_arrays

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--samples-per-shard", "20", "--keep-ids")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    output = tmp_path_factory.mktemp("once") / "shards"
    done = start(words, output)
    assert done.wait(60) == 0, done.communicate()
    return contents(output)


def start(words, output, *more, prefix=(), **settings):
    """The command in a process of its own."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "tools.build_shards", *words, *SMALL, "--output", str(output), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def state_of(output):
    path = output.parent / f"{output.name}.private" / "state.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_what_comes_out_is_what_went_in(words, undisturbed, tmp_path):
    output = tmp_path / "shards"
    assert start(words, output, "--workers", "1").wait(60) == 0
    array = np.load(words[2])
    found = {}
    for split in ("train", "val"):
        with ECGShards(output, split, STANDARD_LEADS) as shards:
            found |= {sample["key"]: (split, sample) for sample in shards.read(np.arange(len(shards)))}
    assert len(found) == len(array) == 240
    for number, ecg_CT in enumerate(array):
        split, sample = found[f"ecgs-csv-row-{number + 1}"]
        assert split == ("val" if number % 80 % 4 == 3 else "train")
        assert np.array_equal(sample["ecg"], (ecg_CT / 1000).astype(np.float32))
        assert sample["labels"].tolist() == [number % 2] and sample["text"] == f"Sinusrhythmus {number}"
        assert sample["meta"]["patient_id"] == f"P{number % 80}" and sample["lead_keep"].all()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_number_of_processes_changes_no_byte(words, undisturbed, tmp_path, workers):
    output = tmp_path / "shards"
    assert start(words, output, "--workers", workers).wait(60) == 0
    assert contents(output) == undisturbed


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_build_goes_on_and_ends_with_the_same_bytes(words, undisturbed, tmp_path, workers):
    output = tmp_path / "shards"
    partial = tmp_path / ".shards.partial"
    reached = [0]
    for wanted in (1, 5, 9):
        process = start(words, output, "--workers", workers)
        wait_until(lambda wanted=wanted: len(list(partial.glob("*.tar"))) >= wanted, 60, "tars")
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda children=children: not alive(children), 10, "reading processes end with their parent")
        reached.append(state_of(output)["next"] if state_of(output) else 0)
        assert not output.exists()
    assert reached == sorted(reached) and reached[-1] >= 8 * 20, "each attempt goes on from the last"
    kept = {tar.name: tar.stat().st_ino for tar in partial.glob("*.tar")}
    assert start(words, output, "--workers", workers).wait(60) == 0
    assert contents(output) == undisturbed
    again = {tar.name: tar.stat().st_ino for tar in output.glob("*.tar")}
    assert sum(again[name] == inode for name, inode in kept.items()) >= 8, "whole tars are not written again"
    assert not partial.exists()


def test_kills_at_any_moment_lose_nothing(words, undisturbed, tmp_path):
    output = tmp_path / "shards"
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = start(words, output, "--workers", "1")
        time.sleep(float(rng.uniform(0.3, 1.6)))
        kill_tree(process.pid)
        process.communicate()
        assert not output.exists() or contents(output) == undisturbed
    if not output.exists():
        assert start(words, output, "--workers", "1").wait(60) == 0
    assert contents(output) == undisturbed


def test_a_build_with_other_settings_does_not_go_on(words, tmp_path, capsys):
    output = tmp_path / "shards"
    process = start(words, output, "--workers", "1")
    wait_until(lambda: state_of(output), 60, "a whole tar")
    kill_tree(process.pid)
    process.communicate()
    before = contents(tmp_path / ".shards.partial")
    code, _, err = build(capsys, *words, *SMALL, "--output", output, "--leads", "I", "II")
    assert code == 1 and "other settings or another list of records" in err and ".shards.partial" in err
    assert contents(tmp_path / ".shards.partial") == before


def test_two_builds_of_one_folder_do_not_mix(words, undisturbed, tmp_path, capsys):
    output = tmp_path / "shards"
    process = start(words, output, "--workers", "1")
    wait_until((tmp_path / ".shards.partial").exists, 60, "the first build")
    time.sleep(0.1)
    if process.poll() is None and not output.exists():
        code, _, err = build(capsys, *words, *SMALL, "--output", output)
        assert code == 1 and ("another build" in err or "not empty" in err)
    assert process.wait(60) == 0
    assert contents(output) == undisturbed


def test_a_folder_that_is_there_is_left_alone(words, tmp_path, capsys):
    output = tmp_path / "shards"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    code, _, err = build(capsys, *words, *SMALL, "--output", output)
    assert code == 1 and "is there and not empty" in err
    assert contents(output) == {"mine.txt": b"mine"}


def may_mount():
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no user namespaces here")
def test_a_disk_that_fills_is_told_and_with_room_the_build_goes_on(words, undisturbed, tmp_path):
    disk, output = tmp_path / "disk", tmp_path / "disk" / "shards"
    disk.mkdir()
    command = " ".join([sys.executable, "-m", "tools.build_shards", *words, *SMALL, "--output", str(output)])
    script = (
        f"mount -t tmpfs -o size=900k tmpfs {disk} && ! {command} 2> {tmp_path}/told && ! test -e {output}"
        f" && ls {disk}/.shards.partial > {tmp_path}/left"
        f" && mount -o remount,size=20m {disk} && {command} && cp -r {output} {tmp_path}/copy"
    )
    done = subprocess.run(["unshare", "-Urm", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    told = (tmp_path / "told").read_text()
    assert done.returncode == 0, done.stderr + told
    assert "Traceback" not in told
    assert "can't grow (No space left on device): make room, and the same command goes on" in told
    assert "train-000000.tar" in (tmp_path / "left").read_text()
    assert contents(tmp_path / "copy") == undisturbed


def test_a_file_size_limit_is_told(words, tmp_path):
    output = tmp_path / "shards"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = start(words, output, "--workers", "1", preexec_fn=limit)
    _, told = done.communicate(timeout=60)
    assert done.returncode == 1 and "Traceback" not in told and "File too large" in told
    assert not output.exists()
    assert {path.name for path in tmp_path.iterdir()} == {".shards.partial", "shards.private"}
