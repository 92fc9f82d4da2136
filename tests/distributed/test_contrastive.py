"""Every contrastive loss of several ranks, and all its gradients, are those of one process.

Directly at 1 to 5 ranks, with uneven shares and ranks without a row, and under every engine, in one batch and in
micro-batches of which all are contrasted together. The groups of ranks are the same processes one after the other:
starting one takes seconds.
"""

import datetime
import os
import socket
from functools import cache
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.collectives import gather_uneven, row_counts
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.losses.contrastive import columns
from src.losses.contrastive.duplicates import duplicate_rate, have_duplicates
from src.losses.contrastive.temperature import LogitScale, SigmoidScale
from tests.losses.contrastive.cases import CASES, INPUTS, SETS, assert_close, inputs, wanted
from tests.losses.contrastive.reference import IDS, ROWS, WIDTH, pairs

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
SHARES = {
    5: [[1, 4, 0, 5, 2], [0, 0, 12, 0, 0]],
    4: [[3, 3, 3, 3], [0, 6, 1, 5]],
    3: [[4, 4, 4], [5, 0, 7]],
    1: [[12]],
    2: [[6, 6], [11, 1]],
}
"""Rows of each rank, by world size."""
MICRO = {"whole": [[7], [5]], "micro_batches": [[4, 1, 2], [3, 2, 0]], "empty_rank": [[7, 5], [0, 0]]}
"""Rows of each micro-batch of each rank, under the engines."""
ENGINES = {
    "ddp": {},
    "fsdp": {"name": "fsdp"},
    **{f"zero{stage}": {"name": "deepspeed", "zero_stage": stage} for stage in (1, 2, 3)},
}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
CLOSE = {"fp32": 1e-6, "fp64": 1e-12}
ENGINE_CASES = [
    (engine, precision, case)
    for engine in ENGINES
    for precision in DTYPES
    for case in MICRO
    if precision == "fp32" or not engine.startswith("zero")  # DeepSpeed's partitions are fp32
]


def rank_main(rank, folder, port):
    torch.set_num_threads(1)
    for world_size, shares in SHARES.items():
        if rank >= world_size:
            continue
        patience = datetime.timedelta(seconds=400)
        where = f"file://{folder}/meet-{world_size}"
        dist.init_process_group("gloo", where, rank=rank, world_size=world_size, timeout=patience)
        found = {}
        for number, sizes in enumerate(shares):
            found |= {(number, *key): value for key, value in of_losses(sizes, rank).items()}
        if world_size == 2:
            # DeepSpeed holds on to the first group that it meets, so it comes last
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in ranks.items()}
            for case in ENGINE_CASES:
                found[case] = step_of_engine(*case, Ranks(rank, 2, torch.device("cpu")))
        torch.save(found, f"{folder}/{world_size}-{rank}.pt")
        dist.barrier()
        if world_size != 2:
            dist.destroy_process_group()
    os._exit(0)  # a gloo process sometimes aborts after all Python code has finished


def of_losses(sizes, rank):
    """Of a rank's rows: each loss and its gradients, as the engine would scale and average them."""
    found, rows = {}, slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    ids = torch.tensor(IDS)[rows]
    for precision, dtype in DTYPES.items():
        for name, (loss, _) in CASES.items():
            first, second, scale, bias = inputs(dtype)
            total = loss(first[rows], second[rows], scale, bias, ids)
            (total * len(sizes)).backward()  # the scale's gradients are averaged over ranks
            slopes = [torch.zeros_like(v) if v.grad is None else v.grad for v in (first, second, scale, bias)]
            for value in (total := total.detach(), *slopes):
                dist.all_reduce(value)
            averaged = [slope / len(sizes) for slope in slopes]
            found[precision, name] = {"loss": total, **dict(zip(INPUTS, averaged, strict=True))}
    found["rates"] = [duplicate_rate(ids), duplicate_rate(SETS[rows], 0.5)]
    found["twins"] = have_duplicates(ids)
    counts, place = row_counts(ids)
    found["ids"], found["place"] = gather_uneven(ids, counts), place
    found["none"] = of_no_rows(rank)
    found["fault"], found["bounded"] = of_a_local_gradient(rows, ids), of_a_bound(rank)
    return {(key if isinstance(key, tuple) else (key,)): value for key, value in found.items()}


def of_no_rows(rank):
    """Whether each loss is 0 with finite gradients where no rank has a row."""
    found = {}
    for name, (loss, _) in CASES.items():
        values = inputs(torch.float32)
        total = loss(values[0][:0], values[1][:0], *values[2:], torch.tensor(IDS)[:0])
        total.backward()
        found[name] = total.item() == 0.0 and all(v.grad is None or not v.grad.any() for v in values)
    return found


def of_a_local_gradient(rows, ids):
    """CLIP's, by a gather whose backward gives a rank what its own loss says of its rows, and not what others' say."""

    def local(values, counts):
        place = dist.get_rank()
        parts = list(gather_uneven(values.detach(), counts).split(counts))
        return torch.cat([*parts[:place], values, *parts[place + 1 :]])

    with patch.object(columns, "gather_uneven", local):
        first, second, scale, bias = inputs(torch.float64)
        CASES["clip_ignore"][0](first[rows], second[rows], scale, bias, ids).backward()
    for value in (first.grad, second.grad, scale.grad):
        dist.all_reduce(value)
    return {"first": first.grad, "second": second.grad, "scale": scale.grad}


def of_a_bound(rank):
    """Gradients of a scale above its bound, of which rank 0 wants less and the others more, by what each wants."""
    found = []
    for first in (5.0, 0.5):
        scale = LogitScale()
        with torch.no_grad():
            scale.log_scale.fill_(9.0)
        ((first if rank == 0 else -1.0) * scale()).sum().backward()
        found.append(scale.log_scale.grad.item())
    return found


class Contrasted(nn.Module):
    """Two linear towers, both ways to learn a temperature, and every loss."""

    contrastive = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.coefficients = {name: 0.5 + 0.1 * number for number, name in enumerate(CASES)}
        self.first, self.second = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5)
        self.softmax, self.sigmoid = LogitScale(temperature=0.2), SigmoidScale(bias=-2.0)

    def forward(self, batch, mode="train"):
        if mode == "train":
            sides = {name: getattr(self, name)(batch[name]) for name in ("first", "second")}
            return {"features": sides | {"ids": batch["ids"]}}
        scale, (sharpness, bias) = self.softmax(), self.sigmoid()
        of = {name: sharpness if name.startswith("siglip") else scale for name in CASES}
        return {
            name: loss(batch["first"], batch["second"], of[name], bias, batch["ids"])
            for name, (loss, _) in CASES.items()
        }

    def weights(self, batch):
        return dict.fromkeys(self.coefficients, float(len(batch["ids"])))


def step_of_engine(engine, precision, case, ranks):
    """The losses, and what Adam makes of the gradients in its first step: 0.1 of them, by the parameters' ranges."""
    dtype = DTYPES[precision]
    first, second = pairs(dtype)
    sizes = MICRO[case]
    starts = [sum(sizes[0]) * ranks.rank + sum(sizes[ranks.rank][:number]) for number in range(len(sizes[0]))]
    cuts = [slice(start, start + size) for start, size in zip(starts, sizes[ranks.rank], strict=True)]
    whole = {"first": first, "second": second, "ids": torch.tensor(IDS)}
    batches = [{name: value[cut] for name, value in whole.items()} | {"keys": []} for cut in cuts]
    settings = OptimizationConfig(steps=1, lr=1e-3, betas=(0.9, 0.99))
    setup = Setup(EngineConfig(**ENGINES[engine]), settings, ranks, 0, lambda step: 1e-3, lambda step: 0.0)
    built = build_engine(Contrasted().to(dtype), setup)
    losses = built.forward_backward(0, batches)
    built.step(0)
    moments = [
        (piece.name, piece.shape, piece.start, piece.values.clone())
        for piece in built.pieces()
        if piece.kind == "exp_avg"
    ]
    return {"losses": {name: loss.item() for name, loss in losses.items()}, "moments": moments}


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(rank_main, (str(folder), port), nprocs=max(SHARES))
    return {
        (world_size, rank): torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True)
        for world_size in SHARES
        for rank in range(world_size)
    }


ALL_SHARES = [(world_size, number) for world_size, shares in SHARES.items() for number in range(len(shares))]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_ranks_are_one_process(groups, name, precision):
    expected = wanted(name, DTYPES[precision])
    for world_size, number in ALL_SHARES:
        assert_close(groups[world_size, 0][number, precision, name], expected, CLOSE[precision])


@pytest.mark.parametrize(("world_size", "number"), ALL_SHARES)
def test_ids_come_in_rank_order_and_their_duplicates_are_counted_over_all_ranks(groups, world_size, number):
    sizes = SHARES[world_size][number]
    twins = [IDS.count(one) > 1 for one in IDS]
    jaccard = torch.tensor(
        [[(a & b).sum() >= 0.5 * (a | b).sum() and i != j for j, b in enumerate(SETS)] for i, a in enumerate(SETS)]
    )
    assert 0 < jaccard.any(1).sum() < ROWS
    for rank in range(world_size):
        found = groups[world_size, rank]
        assert found[number, "ids"].tolist() == IDS and found[number, "place"] == rank
        start = sum(sizes[:rank])
        assert found[number, "twins"].tolist() == twins[start : start + sizes[rank]]
        rates = torch.cat(found[number, "rates"]).tolist()
        assert rates == pytest.approx([sum(twins) / ROWS, jaccard.any(1).double().mean().item()])
        assert all(found[number, "none"].values())


def test_a_gather_that_keeps_a_rank_to_its_own_loss_is_seen(groups):
    expected = wanted("clip_ignore", torch.float64)
    for world_size, number in ALL_SHARES:
        found = groups[world_size, 0][number, "fault"]
        assert_close(found, {"scale": expected["scale"]}, 1e-12)  # the loss itself is right
        for side in ("first", "second"):
            apart = (found[side] - expected[side]).norm() / expected[side].norm()
            alone = max(SHARES[world_size][number]) == ROWS
            assert apart < 1e-12 if alone else apart > 0.05


@pytest.mark.parametrize("world_size", SHARES)
def test_a_scale_beyond_its_bound_is_pulled_back_by_all_ranks_together(groups, world_size):
    for rank in range(world_size):
        less, more = groups[world_size, rank][0, "bounded"]
        assert less == pytest.approx(500.0 if rank == 0 else -100.0, rel=1e-5)
        assert more == pytest.approx(50.0 if world_size == 1 else 0.0, rel=1e-5)


@cache
def by_formula(dtype):
    """Losses and gradients of one process from the loops over anchors."""
    objective = Contrasted().double().to(dtype).double()  # as rounded to the type
    first, second = (view.double() for view in pairs(dtype))
    x, y, scale, (sharpness, bias) = (
        objective.first(first),
        objective.second(second),
        objective.softmax(),
        objective.sigmoid(),
    )
    losses = {
        name: formula(x, y, sharpness if name.startswith("siglip") else scale, bias).sum() / ROWS
        for name, (_, formula) in CASES.items()
    }
    losses["loss"] = sum(objective.coefficients[name] * value for name, value in losses.items())
    losses["loss"].backward()
    slopes = {name: parameter.grad for name, parameter in objective.named_parameters()}
    return {name: value.item() for name, value in losses.items()}, slopes


@pytest.mark.parametrize(("engine", "precision", "case"), ENGINE_CASES)
def test_engines_are_one_process(groups, engine, precision, case):
    losses, slopes = by_formula(DTYPES[precision])
    found = {name: torch.full((slope.numel(),), torch.nan, dtype=torch.float64) for name, slope in slopes.items()}
    for rank in range(2):
        of_rank = groups[2, rank][engine, precision, case]
        assert of_rank["losses"] == pytest.approx(losses, rel=CLOSE[precision])
        for name, _, start, values in of_rank["moments"]:
            found[name][start : start + values.numel()] = values.double() / 0.1
    assert all(slope.abs().max() > 1e-3 for slope in slopes.values())
    assert_close(found, {name: slope.flatten() for name, slope in slopes.items()}, CLOSE[precision])
