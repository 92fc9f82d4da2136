"""The loaders that are compared do the same work on the same samples, and the tables say what was measured."""

import mmap
import re
import time

import numpy as np
import pytest
import torch

from src.config.data import SyntheticConfig
from src.data.ecg_shards import ECGShards
from src.data.synthetic import make_synthetic
from tools.benchmark import main
from tools.benchmark_data import rate_of
from tools.benchmark_loaders import Bare, Files, Ours, Sequential, WebDataset, tars_of, unpacked
from tools.benchmark_memory import GROWTH, epochs_of, growth_of, memory
from tools.benchmark_sets import BENCHES, Whole

LEADS, BATCH = ("I", "II"), 4
"""Of which 30 records have 24 for training: six batches and no rest."""


class Numbered:
    """A batch that tells which samples it is of: their own first values."""

    def __call__(self, step, samples, streams):
        assert len(streams) == len(samples)
        return {"ecg": torch.from_numpy(np.stack([sample["ecg"] for sample in samples]))}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmark") / "shards"
    make_synthetic(root, SyntheticConfig(samples=30, length=20, sampling_rate=50.0), LEADS)
    return ECGShards(root, "train", LEADS)


@pytest.fixture(scope="module")
def folder(shards, tmp_path_factory):
    return unpacked(tars_of(shards), tmp_path_factory.mktemp("files"))


LOADERS = {
    "ours": lambda shards, folder, workers: Ours(shards, Whole(Numbered()), BATCH, workers),
    "bare": lambda shards, folder, workers: Bare(shards, Whole(Numbered()), BATCH),
    "webdataset": lambda shards, folder, workers: WebDataset(shards, Whole(Numbered()), BATCH, workers),
    "files": lambda shards, folder, workers: Files(folder, "ecg", Whole(Numbered()), BATCH, workers),
}


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in LOADERS), ("ours", 1), ("files", 1)])
def test_a_pass_is_an_epoch_of_the_same_ecgs_in_another_order(shards, folder, name, workers):
    known = {sample["ecg"].tobytes() for sample in shards.read(np.arange(len(shards)))}
    loader = LOADERS[name](shards, folder, workers)
    for _ in range(2):
        batches = [batch["ecg"] for batch in loader]
        assert all(len(batch) == BATCH for batch in batches)
        seen = [ecg.numpy().tobytes() for batch in batches for ecg in batch]
        assert len(seen) == len(set(seen)) == len(shards) // BATCH * BATCH and set(seen) <= known
    in_order = [sample["ecg"].tobytes() for sample in shards.read(np.arange(len(seen)))]
    assert seen != in_order


class Drawn:
    """A batch that tells what its transforms would draw from."""

    def __call__(self, step, samples, streams):
        return {"drawn": torch.from_numpy(streams.keys_B.astype(np.int64))}


@pytest.mark.parametrize("workers", [0, 2])
def test_all_loaders_draw_the_same_crops_in_an_epoch(shards, folder, workers):
    def drawn(loader):
        return sorted(key for batch in loader for key in batch["drawn"].tolist())

    ours = drawn(Ours(shards, Whole(Drawn()), BATCH, 0))
    others = [Files(folder, "ecg", Whole(Drawn()), BATCH, workers), Bare(shards, Whole(Drawn()), BATCH)]
    assert len(set(ours)) == len(ours) == len(shards)
    assert all(drawn(other) == ours for other in (*others, WebDataset(shards, Whole(Drawn()), BATCH, 0)))


def test_reading_is_of_every_byte(shards):
    assert sum(Sequential(tars_of(shards))) == sum(tar.stat().st_size for tar in tars_of(shards))


def test_a_short_last_piece_counts_as_what_it_is():
    def slowly():
        for size in (1 << 20, 1 << 20, 1000):
            time.sleep(0.05)
            yield size

    told = rate_of(slowly(), lambda size: size / 1000)
    assert told == pytest.approx(((1 << 20) + 1000) / 1000 / 0.1, rel=0.2)


@pytest.mark.data
@pytest.mark.parametrize("name", BENCHES)
def test_data_prints_each_loader_and_ratios_of_what_it_printed(medssl_data, tmp_path, capsys, name):
    command = ["data", "--sets", name, "--records", "8", "--rounds", "1", "--workers", "0", "1", "--profile"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    number = r"([\d,.]+)"
    row = (
        rf"^\| ([\w ]+) \| (\d) \| {number} \| {number} to {number} \| {number} \| {number} to {number} \| {number} \|$"
    )
    rows = {(found[0], int(found[1])): found[2:] for found in re.findall(row, out, re.MULTILINE)}
    several = {
        (loader, workers) for loader in ("this loader", "webdataset", "DataLoader of files") for workers in (0, 1)
    }
    assert rows.keys() == {("reading", 0), ("bare loop", 0)} | several
    warm = {loader: float(columns[3].replace(",", "")) for loader, columns in rows.items()}
    goals = re.findall(r"^\| (cold|warm) \| (.+) \| ([\d.]+) \| ([\d.]+) \| (yes|no) \|$", out, re.MULTILINE)
    assert len(goals) == 6
    for _, _, ratio, goal, told in goals:
        assert (told == "yes") == (float(ratio) >= float(goal)) or abs(float(ratio) - float(goal)) < 0.01
    assert float(goals[3][2]) == pytest.approx(warm["this loader", 0] / warm["bare loop", 0], rel=0.1)
    assert float(goals[5][3]) == (3.0 if name in ("ecg", "beats") else 1.2)
    assert "Ordered by: internal time" in out and not list(tmp_path.iterdir())


def test_without_the_public_records_it_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDSSL_DATA", str(tmp_path))
    for name in ("beats", "image"):
        assert main(["data", "--sets", name]) == 1
        assert "MEDSSL_DATA" in capsys.readouterr().err


@pytest.mark.data
def test_memory_stays_where_it_is_over_epochs(medssl_data, tmp_path, capsys):
    command = ["memory", "--sets", "beats", "--records", "400", "--epochs", "9", "--workers", "1"]
    assert main([*command, "--output", str(tmp_path), "--plot", str(tmp_path / "a.png")]) == 0
    (row,) = re.findall(r"^\| beats \| 400 \| ([+-][\d.]+)% \| (yes|no) \| (.+) \|$", capsys.readouterr().out, re.M)
    assert len(row[2].split(", ")) == 9 and (row[1] == "yes") == (float(row[0]) <= 1.0)
    assert float(row[0]) <= 100 * GROWTH
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.data
@pytest.mark.slow
def test_memory_stays_where_it_is_with_videos_too(medssl_data, tmp_path, capsys):
    command = ["memory", "--sets", "video", "--records", "8", "--epochs", "60", "--output", str(tmp_path)]
    assert main(command) == 0
    (growth,) = re.findall(r"^\| video \| 8 \| ([+-][\d.]+)% ", capsys.readouterr().out, re.MULTILINE)
    assert float(growth) < 10.0, "an untrimmed heap grows by a third"


def test_what_is_kept_is_seen():
    kept = []

    def hoarding():
        for _ in range(72):
            kept.append(mmap.mmap(-1, 1 << 23))  # never of what the process has free already
            kept[-1].write(bytes(1 << 23))
            yield None

    epochs = epochs_of(hoarding(), 8)
    assert growth_of(epochs) > 0.5 * 3 * 8 * (1 << 23) / 1e6 / epochs[4], "half of what three epochs keep"


def test_growth_compares_epochs_that_do_not_overlap(capsys):
    assert growth_of([9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]) == 1.0
    with pytest.raises(SystemExit):
        main(["memory", "--epochs", "8"])
    assert "8 must be at least 9" in capsys.readouterr().err


def test_memory_counts_what_a_process_shares_with_its_children_once():
    import multiprocessing
    import os

    block = np.ones(1 << 24)
    before = memory(os.getpid())
    assert before > block.nbytes
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    child = context.Process(target=stop.wait)
    child.start()
    try:
        assert memory(os.getpid()) < before + block.nbytes / 2
    finally:
        stop.set()
        child.join()
