"""Every engine on a GPU: one rank has the numbers of plain; where there are two, NCCL has them too."""

import pytest
import torch

from tools.parity import DEBUG, ENGINES, discrepancies, train

pytestmark = [pytest.mark.gpu, pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    return train(DEBUG, shards, tmp_path_factory.mktemp("plain"), ["cuda:0"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_trains_on_gpus_as_plain_does(plain, shards, tmp_path, engine, count):
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs")
    devices = [f"cuda:{number}" for number in range(count)]
    found = discrepancies(plain, train(DEBUG, shards, tmp_path, devices, ENGINES[engine]))
    assert found.within, found


@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
def test_parameters_in_the_machines_memory_change_no_number(plain, shards, tmp_path, engine):
    words = [*ENGINES[engine], "engine.offload.parameters=true"]
    found = discrepancies(plain, train(DEBUG, shards, tmp_path, ["cuda:0"], words))
    assert found.within, found


@pytest.mark.parametrize("engine", ENGINES)
def test_bf16_on_a_gpu_stays_near(plain, shards, tmp_path, engine):
    words = ["engine.precision=bf16", "engine.compile=on", *ENGINES[engine]]
    found = discrepancies(plain, train(DEBUG, shards, tmp_path, ["cuda:0"], words))
    assert found.values["teacher"] < 0.2, found
