"""SIGReg and VICReg of several ranks, through the engine and its averaged gradients, are those of one process.

So are those of a JEPA that they regularise. Two groups of ranks, of four and then of two, are the same processes:
starting one takes seconds.
"""

import datetime

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.losses.sigreg import draw_directions, sigreg
from src.losses.vicreg import COEFFICIENTS, vicreg
from tests.ssls.jepa import test_regularizers as of_jepa

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
ROWS, WIDTH, STEP = 256, 16, 3
SHARES = {
    4: {"even": [[64]] * 4, "uneven": [[100], [31], [0], [125]], "micro_batches": [[40, 24], [64], [0, 64], [64]]},
    2: {"even": [[128]] * 2, "uneven": [[255], [1]]},
}
"""Rows of each micro-batch of each rank."""
SHARES_OF_JEPA = {
    4: {"even": [[64]] * 4, "micro_batches": [[40, 24], [64], [13, 51], [30, 30, 4]]},
    2: {"even": [[128]] * 2},
}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
CLOSE = {"fp32": 1e-6, "fp64": 1e-12}


class Regularized(nn.Module):
    """Two views through one network; every loss is one between samples."""

    contrastive = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.coefficients = {"sigreg": 2.0} | COEFFICIENTS
        self.network = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, WIDTH))
        with torch.no_grad():
            self.network[-1].weight.mul_(5.0)  # features on both sides of the hinge

    def forward(self, batch, mode="train"):
        if mode == "train":
            return {"features": {name: self.network(batch[name]) for name in ("first", "second")}}
        directions = draw_directions(WIDTH, 32, seed=1, step=STEP)
        return {"sigreg": sigreg(batch["first"], directions)} | vicreg(batch["first"], batch["second"])

    def weights(self, batch):
        return dict.fromkeys(self.coefficients, float(len(batch["first"])))


def global_batch(dtype):
    draw = torch.Generator().manual_seed(1)
    first = torch.randn(ROWS, 8, generator=draw, dtype=torch.float64)
    return {"first": first.to(dtype), "second": (first + 0.3 * torch.randn(ROWS, 8, generator=draw)).to(dtype)}


def rows_of(batch, sizes_of_ranks, rank):
    """The rank's micro-batches."""
    flat = [size for sizes in sizes_of_ranks for size in sizes]
    before = sum(len(sizes) for sizes in sizes_of_ranks[:rank])
    cut = {name: value.split(flat) for name, value in batch.items()}
    return [
        {name: parts[number] for name, parts in cut.items()} | {"keys": []}
        for number in range(before, before + len(sizes_of_ranks[rank]))
    ]


def step_of_engine(dtype, micro_batches, ranks):
    """Every loss and every gradient of one step."""
    settings = OptimizationConfig(steps=1, lr=1e-3)
    setup = Setup(EngineConfig(), settings, ranks, 0, lambda step: 1e-3, lambda step: 0.0)
    engine = build_engine(Regularized().to(dtype), setup)
    losses = engine.forward_backward(STEP, micro_batches)
    slopes = {name: parameter.grad.clone() for name, parameter in engine.objective.named_parameters()}
    return {"losses": {name: loss.item() for name, loss in losses.items()}, "slopes": slopes}


def rank_main(rank, folder):
    torch.set_num_threads(1)
    for world_size, cases in SHARES.items():
        if rank >= world_size:
            return
        where = f"file://{folder}/meet-{world_size}"
        patience = datetime.timedelta(seconds=300)
        dist.init_process_group("gloo", where, rank=rank, world_size=world_size, timeout=patience)
        found = {}
        for case, sizes in cases.items():
            for precision, dtype in DTYPES.items():
                micro_batches = rows_of(global_batch(dtype), sizes, rank)
                ranks = Ranks(rank, world_size, torch.device("cpu"))
                found[case, precision] = step_of_engine(dtype, micro_batches, ranks)
        for case, sizes in SHARES_OF_JEPA[world_size].items():
            for name, kind in of_jepa.CASES.items():
                micro_batches = rows_of(of_jepa.make_batch(ROWS, kind[2]), sizes, rank)
                ranks = Ranks(rank, world_size, torch.device("cpu"))
                found[case, name] = of_jepa.step_of_engine(of_jepa.make_jepa(*kind), micro_batches, ranks)
        torch.save(found, f"{folder}/{world_size}-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regularizers")
    multiprocessing.spawn(rank_main, (str(folder),), nprocs=max(SHARES))
    return {
        (world_size, rank): torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True)
        for world_size in SHARES
        for rank in range(world_size)
    }


def by_formula(dtype):
    """Losses and gradients of one process, without engine, weights or collectives."""
    objective = Regularized().to(dtype)
    features = objective(global_batch(dtype), mode="train")["features"]
    losses = {name: value / ROWS for name, value in objective(features, mode="contrast").items()}
    losses["loss"] = sum(objective.coefficients[name] * value for name, value in losses.items())
    losses["loss"].backward()
    slopes = {name: parameter.grad for name, parameter in objective.named_parameters()}
    return {"losses": {name: value.item() for name, value in losses.items()}, "slopes": slopes}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("world_size", "case"), [(size, case) for size, cases in SHARES.items() for case in cases])
def test_ranks_are_one_process(groups, world_size, case, precision):
    wanted, close = by_formula(DTYPES[precision]), CLOSE[precision]
    assert all(value > 0.01 for value in wanted["losses"].values())
    for rank in range(world_size):
        found = groups[world_size, rank][case, precision]
        assert found["losses"] == pytest.approx(wanted["losses"], rel=close)
        for name, slope in wanted["slopes"].items():
            allowed = close * max(1.0, slope.abs().max().item())
            torch.testing.assert_close(found["slopes"][name], slope, rtol=0.0, atol=allowed, msg=name)


@pytest.mark.parametrize("name", of_jepa.CASES)
@pytest.mark.parametrize(
    ("world_size", "case"), [(size, case) for size, cases in SHARES_OF_JEPA.items() for case in cases]
)
def test_ranks_of_a_jepa_are_one_process(groups, world_size, case, name):
    kind = of_jepa.CASES[name]
    for rank in range(world_size):
        of_jepa.assert_step(groups[world_size, rank][case, name], of_jepa.make_jepa(*kind), ROWS, kind)
