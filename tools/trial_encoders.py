"""What the ECG-JEPA of a shipped config is worth beside its random initialisation and the raw signal."""

# N records, K labels

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config.identity import first_difference
from src.config.load import load_config
from src.data.builders.ptbxl import list_ptbxl
from src.data.ecg_shards import ECGShards
from src.evaluation.linear import patient_folds
from src.evaluation.raw import raw_features
from src.evaluation.targets import Cases, label_target, read_cases
from src.files import replace_text
from src.metrics.table import score_table
from src.run.belongs import probe_identity
from src.run.environment import code_version
from src.simulation.ecg import Cohort, build_command, write_cohort
from ssls.probe.config import Config, HeadConfig
from ssls.probe.heads import fit_head
from tools.build_shards import main as build_shards

SEEDS = 5
FOLDS = 5
PTBXL500 = "configs/probe/ptbxl500.yaml"
SIMULATED = "configs/jepa/ecg_simulated_small.yaml"
COHORT_PATIENTS, COHORT_SEED = 4000, 1
SHUFFLES = 5
"""Of the folds, for the raw floor of ptbxl500."""


def mitdb(words: argparse.Namespace) -> str:
    """Heartbeats: five seeds of pre-training on DS1, linear heads on DS1, scored on DS2; no record is in both."""
    shards = beats(words)
    runs = [words.output / f"seed-{seed}" for seed in range(SEEDS)]
    for seed, run in enumerate(runs):
        train(words, "configs/jepa/ecg_mitdb_small.yaml", shards, run, seed)
    probe(words, "configs/probe/mitdb.yaml", shards, runs, words.output / "probe", 0)
    results = json.loads((words.output / "probe/results.json").read_text())
    table = results["tests"]["DS2"]
    return written(words, f"mitdb, {SEEDS} seeds", markdown(table, "macro", ("balanced_accuracy", "auroc")))


def beats(words: argparse.Namespace) -> Path:
    """Shards of all beats, DS1 as train and DS2 as test."""
    shards: Path = words.output / "shards"
    if not shards.exists():
        build("ecg", ["--input", words.data / "ecg/mitdb/beats.npz", "--output", shards])
    return shards


def ptbxl500(words: argparse.Namespace) -> str:
    """NORM or not: five folds of patients, fold k pre-trained with seed k on the others; scores pooled out of fold."""
    for folder, fold in folds(words):
        train(words, "configs/jepa/ecg_ptbxl_small.yaml", folder / "shards", folder / "pretrain", fold)
    return _norm_or_not(words, f"ptbxl500, {FOLDS} folds")


def ptbxl500_simulated(words: argparse.Namespace) -> str:
    """The same folds, but pre-trained on a simulated cohort: none of the 500 records is seen before the probe."""
    cohort = Cohort(patients=COHORT_PATIENTS, seed=COHORT_SEED)
    folder = words.output / "cohort"
    if not folder.exists():
        write_cohort(folder, cohort)
    if not (words.output / "cohort-shards").exists():
        build("ecg", shlex.split(build_command(folder, cohort).partition(" ecg ")[2]))
    for fold_folder, fold in folds(words):
        train(words, SIMULATED, words.output / "cohort-shards", fold_folder / "pretrain", fold)
    return _norm_or_not(words, f"ptbxl500, {FOLDS} folds, pre-trained on {COHORT_PATIENTS} simulated patients")


def folds(words: argparse.Namespace) -> Iterator[tuple[Path, int]]:
    """The folder of each fold, with shards whose test split is its patients, and its number."""
    archive = words.data / "ecg/ptbxl500"
    records = _records(archive)
    folds_N = patient_folds([record["patient"] for record in records], FOLDS, 0)
    for fold in range(FOLDS):
        folder = words.output / f"fold-{fold}"
        if not (folder / "shards").exists():
            _build_fold(archive, records, folds_N == fold, folder)
        yield folder, fold


def _norm_or_not(words: argparse.Namespace, title: str) -> str:
    """Probe the encoder of each fold, and write the table of all folds together."""
    folders = [words.output / f"fold-{fold}" for fold in range(FOLDS)]
    for fold, folder in enumerate(folders):
        probe(words, PTBXL500, folder / "shards", [folder / "pretrain"], folder / "probe", fold)
    table = pooled_table([folder / "probe" / "predictions" / "fold" for folder in folders])
    told = markdown(table, "labels", ("auroc", "average_precision"))
    return written(words, title, f"{told}\n{floor_told(words, folders[0] / 'shards')}")


def floor_told(words: argparse.Namespace, shards: Path) -> str:
    """The raw floor as a sentence."""
    head = load_config(Path(PTBXL500), words.set_probe, lambda _: Config).head  # type: ignore[attr-defined]
    floor = raw_floor(shards, head)
    return (
        f"Raw floor (amplitudes, out of fold), mean of {SHUFFLES} shuffles of the folds: {np.mean(floor):.4f}"
        f" ({', '.join(f'{value:.4f}' for value in floor)})"
    )


def pooled_table(folders: Iterable[Path]) -> dict[str, Any]:
    """The table of the predictions of several folds as one test set."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    truth: list[float] = []
    patients: list[str] = []
    for folder in folders:
        read = {path.name.split(".")[0]: read_csv(path) for path in sorted(folder.glob("*.0.csv"))}
        for name, lines in read.items():
            rows.setdefault(name, []).append(np.array([[float(line["NORM"])] for line in lines]))
        truth += [float(line["true NORM"]) for line in read["pretrained"]]
        patients += [line["patient_id"] for line in read["pretrained"]]
    pairs = [("pretrained", name) for name in rows if name != "pretrained"]
    one_seed = {name: [np.concatenate(parts)] for name, parts in rows.items()}
    return score_table("multilabel", np.array(truth)[:, None], one_seed, patients, labels=["NORM"], pairs=pairs)


def raw_floor(shards: Path, head: HeadConfig) -> list[float]:
    """AUROC of the amplitudes alone, pooled out of fold, for each shuffle of the folds."""
    parts = []
    for split in ("train", "test"):
        of_split = ECGShards(shards, split, _leads(shards))
        target = label_target(of_split, None, None)
        parts.append(read_cases(of_split, target, ()))
    features = np.concatenate([raw_features(part.shards, part.samples_N, "amplitudes") for part in parts])
    patients = np.concatenate([part.patients_N for part in parts])
    truth_NK = np.concatenate([part.truth_NK for part in parts])
    found = []
    for shuffle in range(SHUFFLES):
        folds_N = patient_folds(patients, FOLDS, shuffle)
        predicted_NK = np.empty_like(truth_NK)
        for fold in range(FOLDS):
            seen_N = folds_N != fold
            train = _cases(parts[0], patients[seen_N], truth_NK[seen_N])
            fitted = fit_head(
                {"train": features[seen_N], "test": features[~seen_N]}, {"train": train}, target, head, shuffle
            )
            predicted_NK[~seen_N] = fitted.predictions["test"]
        scored = score_table("multilabel", truth_NK, {"raw": [predicted_NK]}, patients, labels=["NORM"], draws=2)
        found.append(scored["scores"]["raw"]["labels"]["NORM"]["auroc"]["value"])
    return found


def _cases(like: Cases, patients_N: NDArray[np.str_], truth_NK: NDArray[np.float64]) -> Cases:
    keys = [str(number) for number in range(len(patients_N))]
    return Cases(like.shards, np.arange(len(keys)), keys, keys, patients_N, truth_NK, {})


def _leads(shards: Path) -> tuple[str, ...]:
    return tuple(json.loads((shards / "index.json").read_text())["leads"])


def _records(archive: Path) -> list[dict[str, Any]]:
    """Path, patient, report and NORM of each record of PTB-XL's own table."""
    everything = {"all": range(1, 11)}
    sources = list_ptbxl(archive, 100.0, ("superclass",), everything).sources
    return [
        {
            "path": str(source.path.relative_to(archive)),
            "patient": source.patient,
            "report": source.text or "",
            "NORM": int(source.labels[0] == 1),
        }
        for source in sources
    ]


def _build_fold(archive: Path, records: list[dict[str, Any]], held_N: NDArray[np.bool_], folder: Path) -> None:
    """Shards of a fold: its patients are the test split."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "records.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "patient", "report", "NORM", "split"])
        writer.writeheader()
        for record, held in zip(records, held_N, strict=True):
            writer.writerow(record | {"split": "test" if held else "train"})
    flags = ["--input", archive, "--table", table, "--path-column", "path", "--patient-column", "patient"]
    flags += ["--text-column", "report", "--label-columns", "NORM", "--split-column", "split", "--keep-ids"]
    build("ecg", [*flags, "--output", folder / "shards"])


def build(modality: str, flags: list[Any]) -> None:
    """Shards, by the tool's flags.

    Raises:
        ValueError: they could not be built.
    """
    if build_shards([modality, *map(str, flags)]):
        raise ValueError("the shards could not be built")


def train(words: argparse.Namespace, config: str, shards: Path, run: Path, seed: int) -> None:
    """A run of main.py on these shards, which goes on where it was."""
    _main(words, config, [f"data.root={shards}", f"logging.folder={run}", f"seed={seed}", *words.set])


def probe(words: argparse.Namespace, config: str, shards: Path, runs: list[Path], folder: Path, seed: int) -> None:
    """A probe of finished runs, unless it is there already.

    Raises:
        ValueError: it is, with other settings; names the first.
    """
    encoders = f"init_from=[{', '.join(map(str, runs))}]"
    settings = [f"data.root={shards}", f"logging.folder={folder}", f"seed={seed}", encoders, *words.set_probe]
    results = folder / "results.json"
    if not results.exists():
        _main(words, config, settings)
        return
    asked = probe_identity(load_config(Path(config), settings, lambda _: Config))
    known = json.loads(results.read_text())["identity"]
    difference = first_difference({key: known.get(key) for key in asked}, asked)
    if difference is not None:
        key, before, after = difference
        raise ValueError(f"{results} is of a probe with {key} = {before}, not {after}; name another --output")


def _main(words: argparse.Namespace, config: str, settings: list[str]) -> None:
    devices = ["--devices", *words.devices] if words.devices else []
    done = subprocess.run([sys.executable, "main.py", "--fname", config, *devices, "--set", *settings])
    if done.returncode:
        raise ValueError(
            f"main.py --fname {config} failed with exit code {done.returncode}; run it by itself to see why"
        )


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table by its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def markdown(table: Mapping[str, Any], part: str, metrics: tuple[str, ...]) -> str:
    """Rows and paired differences with their intervals; the spread over seeds where there are several."""
    lines = [f"| | {' | '.join(metrics)} |", f"| --- | {' | '.join('---:' for _ in metrics)} |"]
    for name, scores in (table["scores"] | table["differences"]).items():
        cells = scores["macro"] if part == "macro" else scores["labels"]["NORM"]
        lines.append(f"| {name} | {' | '.join(_cell(cells[metric]) for metric in metrics)} |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any]) -> str:
    text = f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]"
    spread = f" (seeds {min(cell['seeds']):.4f} to {max(cell['seeds']):.4f})" if len(cell["seeds"]) > 1 else ""
    return text + spread


def written(words: argparse.Namespace, title: str, table: str) -> str:
    """The table under its title, in table.md too."""
    settings = " ".join([*words.set, *words.set_probe])
    text = f"{title}; code {code_version()}{f'; with {settings}' if settings else ''}\n\n{table}\n"
    replace_text(words.output / "table.md", text)
    return text
