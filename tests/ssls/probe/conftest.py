"""What the tests of the probe share: PTB-XL's 500 records as shards, and encoders of a moment's training."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import load_config
from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from src.distributed.ranks import Ranks
from src.run.logs import LOGGER
from src.run.rank import make_run
from ssls.objectives import schema_of
from ssls.probe.train import main
from tests.commands import succeed
from tests.conftest import ROOT
from tools.build_shards import main as build_shards

PROBES = ROOT / "configs" / "probe"


def probe(path, folder, *settings, check=False):
    """Run a probe in this process; returns its folder."""
    config = load_config(path, [f"logging.folder={folder}", *settings], schema_of)
    run = make_run(config, Ranks(0, 1, torch.device("cpu")), check)
    main(config, run)
    run.close(0)
    return folder


def results(folder):
    """results.json, which must be strict JSON."""

    def refuse(word):
        raise AssertionError(f"results.json holds {word}")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


def predictions(folder, test, row, number=0):
    """(keys, truth [N, K] with NaN for unknown, predictions [N, K]) of a CSV in predictions/."""
    with (folder / "predictions" / test / f"{row}.{number}.csv").open(newline="", encoding="utf-8") as file:
        names, *lines = list(csv.reader(file))
    labels = (len(names) - 3) // 2
    assert (
        names[:3] == ["key", "id", "patient_id"]
        and names[3:] == [f"true {name}" for name in names[-labels:]] + (names[-labels:])
    )
    truth = np.array([[float(value or "nan") for value in line[3 : 3 + labels]] for line in lines])
    return [line[0] for line in lines], truth, np.array([line[3 + labels :] for line in lines], np.float64)


def read(root, split, leads=STANDARD_LEADS):
    """All samples of a split."""
    shards = ECGShards(root, split, leads)
    return shards.read(np.arange(len(shards)))


def build_ptbxl(database, output, *flags):
    """Shards of PTB-XL's records at 100 Hz with superclasses and statements."""
    words = ["--sampling-rate", "100", "--labels", "superclass", "all", "--workers", "1", *flags]
    assert build_shards(["ecg", "--input", str(database), "--output", str(output), *words]) == 0


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """Runs in this process do not pile up handlers of the log."""
    monkeypatch.setattr(LOGGER, "handlers", [])


@pytest.fixture(scope="package")
def database(medssl_data) -> Path:
    """The folder of PTB-XL's own files."""
    path = medssl_data / "ecg" / "ptbxl500"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="package")
def ptbxl(database, tmp_path_factory) -> Path:
    """Shards as configs/probe/ptbxl_superclass.yaml wants them."""
    output = tmp_path_factory.mktemp("ptbxl") / "shards"
    build_ptbxl(database, output)
    return output


@pytest.fixture(scope="package")
def encoders(ptbxl, tmp_path_factory) -> list[Path]:
    """Two JEPAs of one recipe and different seeds."""
    root = tmp_path_factory.mktemp("encoders")
    short = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=4"]
    for seed in (0, 1):
        given = [f"logging.folder={root / str(seed)}", f"data.root={ptbxl}", "data.synthetic=null", f"seed={seed}"]
        words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "--set"]
        succeed(*words, *given, *short, "evaluation.every=null")
    return [root / "0", root / "1"]
