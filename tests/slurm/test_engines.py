"""Two nodes with two tasks each train as one process does, under each engine for several."""

import pytest
import yaml

from tests.slurm.jobs import END_SECONDS, submit_all
from tools.parity import DEBUG, ENGINES, discrepancies, settings_of, train

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def one_process(shards, tmp_path_factory):
    return train(DEBUG, shards, tmp_path_factory.mktemp("one"), ["cpu"])


@pytest.fixture(scope="module")
def jobs(cluster, one_process, shards, tmp_path_factory):
    """A job for each engine, one after the other, by --batch-launch."""
    folder = tmp_path_factory.mktemp("engines")
    names = ["ddp", "fsdp", "zero2"]
    entries = [
        {"fname": str(DEBUG), "set": [*settings_of(DEBUG, shards, folder / name), *ENGINES[name]]} for name in names
    ]
    (folder / "batch.yaml").write_text(yaml.safe_dump(entries))
    words = ["--batch-launch", str(folder / "batch.yaml")]
    flags = ["--partition", "main", "--nodes", "2", "--tasks-per-node", "2", "--array-parallelism", "1"]
    return folder, dict(zip(names, submit_all(cluster, words, folder / "logs", *flags), strict=True))


@pytest.mark.parametrize("engine", ["ddp", "fsdp", "zero2"])
def test_two_by_two_tasks_train_as_one_process_does(cluster, jobs, one_process, engine):
    folder, numbers = jobs
    cluster.wait_for(numbers[engine], "COMPLETED", END_SECONDS)
    found = discrepancies(one_process, folder / engine)
    assert found.within, found
