"""Every engine on a GPU: one rank has the numbers of plain; where there are two, NCCL has them too."""

import math

import pytest
import torch

from src.config.load import load_config
from src.distributed.ranks import Ranks
from ssls.jepa.config import Config
from tools.benchmark_engines import make_engine
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


LARGE = ["model.encoder.width=1024", "model.encoder.depth=12", "model.encoder.heads=16"]


@pytest.mark.parametrize("kind", [{"name": "fsdp"}, {"name": "deepspeed", "zero_stage": 3}], ids=["fsdp", "zero3"])
def test_a_model_in_the_machines_memory_never_lies_on_the_gpu_as_a_whole(kind):
    config = load_config(DEBUG, LARGE, lambda _: Config)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    offload = {"parameters": True, "optimizer": kind["name"] == "deepspeed"}
    engine = make_engine(config, kind | {"offload": offload}, Ranks(0, 1, torch.device("cuda:0")))
    size = sum(4 * math.prod(shape) for shape in engine.shapes.values())
    assert torch.cuda.max_memory_allocated() < size / 2


@pytest.mark.parametrize("engine", ENGINES)
def test_bf16_in_compiled_blocks_is_another_number_and_stays_near(plain, shards, tmp_path, engine):
    words = ["engine.precision=bf16", "engine.compile=on", *ENGINES[engine]]
    found = discrepancies(plain, train(DEBUG, shards, tmp_path, ["cuda:0"], words))
    assert 1e-4 < found.values["teacher"] < 0.2, found
