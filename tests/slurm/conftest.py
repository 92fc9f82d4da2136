"""One cluster for all tests of a test process."""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, reason_to_skip
from tests.slurm.jobs import words


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A running cluster of four nodes; the test is skipped, and told why, where none can be had."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Where the runs of a test process make their ECGs, or find them."""
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="session")
def undisturbed(cluster, shards, tmp_path_factory) -> Callable[..., Path]:
    """The folder of a run of so many ranks, with some settings, that main.py has trained on this machine."""
    folder = tmp_path_factory.mktemp("undisturbed")

    @cache
    def run(ranks: int, *settings: str) -> Path:
        own = folder / "-".join([str(ranks), *settings])
        devices = ["--devices", *["cpu"] * ranks]
        cluster.run(sys.executable, "main.py", *words(own, shards, *settings), *devices, timeout=240)
        return own

    return run
