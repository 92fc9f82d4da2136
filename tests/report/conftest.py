"""A run and a probe as main.py leaves them, and what the report makes of copies of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.metrics.table import score_table
from src.report.page import write_page
from tests.commands import succeed

HOSTILE = "AFIB <b>&\"'</b>"
"""A label that a page must not take for markup."""
SENTENCE = f"the representation is collapsing: {HOSTILE}; see /srv/secret/place/notes.txt"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a short run."""
    place = tmp_path_factory.mktemp("hidden_place")
    succeed(
        *("--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu"),
        *("--set", f"logging.folder={place / 'trained'}", f"data.root={place / 'shards'}", "evaluation.every=10"),
    )
    return place / "trained"


@pytest.fixture(scope="session")
def probed(trained):
    """The folder of a probe of that run's encoder."""
    place = trained.parent
    succeed(
        *("--fname", "configs/probe/ecg_debug.yaml", "--devices", "cpu"),
        *("--set", f"logging.folder={place / 'probed'}", f"data.root={place / 'shards'}", f"init_from={trained}"),
    )
    return place / "probed"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run's folder that a test may break."""
    return copy(trained, tmp_path / "run")


@pytest.fixture
def probe(probed, tmp_path):
    """A copy of the probe's folder that a test may break, with `rich_results`."""
    return rich(probed, tmp_path / "probe")


@pytest.fixture(scope="session")
def pages(trained, probed, tmp_path_factory):
    """The text of the page of a run with an alarm, of a probe, and of both."""
    place = tmp_path_factory.mktemp("pages")
    run, probe = copy(trained, place / "run"), rich(probed, place / "probe")
    raise_alarm(run, 30)
    return [page_of(run), page_of(probe), page_of(run, probe)]


def rich(probed: Path, place: Path) -> Path:
    """A copy of a probe's folder, with the results of several seeds, test sets, groups and a hostile label."""
    folder = copy(probed, place)
    (folder / "results.json").write_text(json.dumps(rich_results()))
    return folder


def copy(folder: Path, place: Path) -> Path:
    """A run folder without its checkpoints."""
    return Path(shutil.copytree(folder, place, ignore=shutil.ignore_patterns("checkpoints", "audit")))


def page_of(*folders: Path) -> str:
    """The page of run folders."""
    return write_page(folders)


def append(path: Path, *records: dict) -> None:
    """Lines at the end of a JSON-lines file."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def raise_alarm(folder: Path, step: int) -> None:
    """An evaluation with an alarm at the end of health.jsonl."""
    measures = {"rankme": 2.0, "feature_std": 0.1, "random_init/rankme": 22.0, "random_init/feature_std": None}
    append(folder / "health.jsonl", {"step": step, "records": 12, **measures, "alarms": [SENTENCE], "seconds": 1.2})


def rich_results() -> dict:
    """results.json of two seeds on two test sets, by the project's own scores."""
    labels = ["NORM", HOSTILE, "never"]
    tests = {name: one_test(labels, number) for number, name in enumerate(("test", "second_hospital"))}
    tests["test"]["gap_closed"] = {"reference": "oracle", "metric": "auroc", "value": 0.41, "low": 0.2, "high": 0.6}
    rows = [
        {"name": "pretrained", "kind": "encoder", "encoders": ["/srv/secret/runs/one/encoder"], "pool": "mean"},
        {"name": "random_init", "kind": "encoder", "encoders": [], "pool": "mean", "width": 32, "l2": [0.01, 0.1]},
        {"name": "raw", "kind": "raw", "encoders": [], "pool": None, "width": 72, "l2": [0.01]},
    ]
    return {
        "format": 1,
        "task": "multilabel",
        "labels": labels,
        "rows": rows,
        "bootstrap": {"draws": 50, "level": 0.95, "seed": 0},
        "data": {"train": {"records": 52, "patients": 26}, "validation": None},
        "tests": tests,
    }


def one_test(labels: list[str], seed: int) -> dict:
    """The table of a made-up test set in which the pre-trained encoder is better than both others."""
    generator = np.random.default_rng(seed)
    truth_NK = (generator.random((120, len(labels))) < [0.5, 0.3, 0.0]).astype(float)
    noise = [generator.normal(size=truth_NK.shape) for _ in range(4)]
    scores = [1 / (1 + np.exp(-(2 * truth_NK * (place < 2) + values))) for place, values in enumerate(noise)]
    rows = {"pretrained": scores[:2], "random_init": scores[2:3], "raw": scores[3:]}
    patients = [f"secret-patient-{record // 2}" for record in range(len(truth_NK))]
    return score_table(
        *("multilabel", truth_NK, rows, patients),
        labels=labels,
        pairs=[("pretrained", "random_init"), ("random_init", "raw")],
        groups={"sex": (np.arange(120) // 2 % 2).tolist()},
        draws=50,
    )
