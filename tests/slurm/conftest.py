"""One cluster for all tests of a test process."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, reason_to_skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A running cluster of four nodes; the test is skipped, and told why, where none can be had."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
