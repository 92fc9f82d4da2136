"""What JEPAs of shipped configs are worth on X-rays, on patches of a CT and on ultrasound clips."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from src.data.load_index import load_index
from src.data.npz import pack_npz
from tools.trial_encoders import SEEDS, build, markdown, probe, train, written

PATCHES = "ct/totalsegmentator_example/make_organ_patches.py"
SPACING = 3.0
"""mm between the voxels of the CT that the patches are cut from."""


def pneumonia(words: argparse.Namespace) -> str:
    """Pneumonia or not on X-rays: five seeds, split as shipped, l2 from the validation images."""
    shards = words.output / "shards"
    if not shards.exists():
        archive = words.data / "image/pneumoniamnist/pneumoniamnist.npz"
        build("image", ["--input", archive, "--label-names", "normal", "pneumonia", "--output", shards])
    return _five_seeds(words, "pneumonia", "configs/jepa/image_pneumonia_small.yaml", ("auroc", "average_precision"))


def organs(words: argparse.Namespace) -> str:
    """13 organs in patches of one CT: five seeds, tested on the top quarter of each organ; shows that code works."""
    shards = words.output / "shards"
    if not shards.exists():
        build("ct", _organ_flags(words.data / PATCHES, words.output / "patches", shards))
    return _five_seeds(words, "organs", "configs/jepa/ct_organs_small.yaml", ("accuracy", "balanced_accuracy"))


def _five_seeds(words: argparse.Namespace, name: str, config: str, metrics: tuple[str, ...]) -> str:
    shards, runs = words.output / "shards", [words.output / f"seed-{seed}" for seed in range(SEEDS)]
    for seed, run in enumerate(runs):
        train(words, config, shards, run, seed)
    probe(words, f"configs/probe/{name}.yaml", shards, runs, words.output / "probe", 0)
    table = json.loads((words.output / "probe/results.json").read_text())["tests"]["test"]
    return written(words, f"{name}, {SEEDS} seeds", markdown(table, "macro", metrics))


def _organ_flags(script: Path, folder: Path, shards: Path) -> list[Any]:
    """The patches as a file each with a table, and the flags that make shards of them."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, script, folder / "all.npz"], check=True)
    with np.load(folder / "all.npz") as found:
        patches, organ_N, test_N, names = found["x"], found["y"], found["split"], found["names"]
    with (folder / "patches.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "organ", "split"])
        for number, patch_XYZ in enumerate(patches):
            (folder / f"patch-{number:04d}.npz").write_bytes(pack_npz("ct", patch_XYZ))
            writer.writerow([f"patch-{number:04d}.npz", names[organ_N[number]], ("train", "test")[test_N[number]]])
    flags: list[Any] = ["--input", folder, "--table", folder / "patches.csv", "--path-column", "path", "--units", "hu"]
    flags += ["--class-column", "organ", "--split-column", "split", "--no-patients", "--keep-ids"]
    flags += ["--orientation", "keep", "--source-spacing", SPACING, SPACING, SPACING, "--unchecked-units"]
    return [*flags, "--samples-per-shard", 512, "--output", shards]


def ultrasound(words: argparse.Namespace) -> str:
    """Lung ultrasound clips, split by patient: five seeds of V-JEPA's recipe, and how healthy what they learn is."""
    shards = words.output / "shards"
    if not shards.exists():
        archive = words.data / "video/lung_ultrasound"
        flags = ["--input", archive, "--table", archive / "index.csv", "--path-column", "file", "--pass-through"]
        flags += ["--patient-column", "patient", "--text-column", "text", "--class-column", "label", "--keep-ids"]
        build("video", [*flags, "--fractions", "train=0.8", "val=0.2", "--output", shards])
    lines = ["| seed | RankMe | at random | between samples | at random | loss | of predicting the mean |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    columns = ("rankme", "random_init/rankme", "between_samples", "random_init/between_samples", "loss", "mean_loss")
    for seed in range(SEEDS):
        run = words.output / f"seed-{seed}"
        train(words, "configs/jepa/video_ultrasound_small.yaml", shards, run, seed)
        health = json.loads((run / "health.jsonl").read_text().splitlines()[-1])
        lines.append(f"| {seed} | {' | '.join(f'{health[column]:.3g}' for column in columns)} |")
    index, _ = load_index(shards)
    clips = ", ".join(
        f"{index.samples(split)} clips of {index.patients[split]} patients in {split}" for split in index.splits
    )
    return written(words, f"ultrasound, {SEEDS} seeds; {clips}", "\n".join(lines))
