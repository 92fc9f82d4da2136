"""One process and several give the same training under every engine, where differences would show.

Peak learning rate, fast EMA, weight decay and clipping are on; the comparison itself is `tools.parity`. Engines at 1, 2
and 4 ranks are in tests/contract.
"""

import pytest
import torch

from tests.commands import metrics, refuse, succeed
from tools.parity import (
    DEBUG,
    ENGINES,
    STEPS,
    discrepancies,
    flat,
    relative,
    tensors_at,
    train,
    train_all,
)

pytestmark = pytest.mark.distributed
KINDS = ["ddp", "fsdp", "zero2"]
"""Engines of which each adds up gradients in its own way."""
FAULTS = [
    *("ema_off", "batch_doubled"),
    *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("weight_decay_off", "gradients_halved")),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module")
def one_process(shards, tmp_path_factory):
    return train(DEBUG, shards, tmp_path_factory.mktemp("one"), ["cpu"])


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 5), (2, 3)], ids=["accumulated", "both"])
def test_training_does_not_depend_on_ranks_or_accumulation(one_process, shards, tmp_path, world_size, micro_batch_size):
    other = train(DEBUG, shards, tmp_path, ["cpu"] * world_size, [f"data.micro_batch_size={micro_batch_size}"])
    found = discrepancies(one_process, other)
    assert found.within, found


def test_the_command_makes_the_table_and_never_of_old_runs(tmp_path):
    words = ["tools.parity", "--ranks", "2", "--engines", "ddp", "--output", str(tmp_path / "new")]
    out = succeed(*words, script="-m")
    assert (tmp_path / "new" / "table.md").read_text() == out.removesuffix("\n")
    (row,) = [line for line in out.splitlines() if line.startswith("| ddp | 2 |")]
    numbers = [float(cell) for cell in row.split("|")[3:-1]]
    assert len(numbers) == 5 and 0 < max(numbers) < 1e-4
    assert "holds runs already" in refuse(*words, script="-m")


def test_a_run_that_dies_in_a_group_leaves_nothing_that_could_pass_for_an_undisturbed_one(shards, tmp_path, capsys):
    runs = {tmp_path / name: ENGINES["ddp"] for name in ("first", "second")}
    faulty = ["tests/distributed/faulty_main.py", "--fault", "rank_1_fails"]
    train_all(DEBUG, shards, runs, ["cpu", "cpu"], faulty)
    assert not any(folder.exists() for folder in runs)
    assert "the third step went wrong" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_three_ranks_train_as_one_process_does(one_process, shards, tmp_path, engine):
    found = discrepancies(one_process, train(DEBUG, shards, tmp_path, ["cpu"] * 3, ENGINES[engine]))
    assert found.within, found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "engines", [KINDS, pytest.param(sorted({*ENGINES} - {*KINDS}), marks=pytest.mark.slow)], ids=["kinds", "others"]
)
@pytest.mark.timeout(300)
def test_the_comparison_sees_a_seeded_fault_under_every_engine(one_process, shards, tmp_path, engines, fault):
    runs = {tmp_path / engine: ENGINES[engine] for engine in engines}
    train_all(DEBUG, shards, runs, ["cpu", "cpu"], ["tests/distributed/faulty_main.py", "--fault", fault])
    for folder in runs:
        found = discrepancies(one_process, folder)
        assert not found.within, (folder, found)


@pytest.fixture(scope="module")
def in_bf16(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bf16")
    runs = {folder / engine: ["engine.precision=bf16", *words] for engine, words in ENGINES.items()}
    train_all(DEBUG, shards, runs, ["cpu", "cpu"])
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_bf16_computes_in_bf16_and_keeps_weights_moments_and_a_moving_teacher_in_fp32(one_process, in_bf16, engine):
    rounded = in_bf16 / engine
    exact_losses, losses = ([record["loss"] for record in metrics(folder)] for folder in (one_process, rounded))
    assert losses[0] != exact_losses[0] and losses == pytest.approx(exact_losses, rel=2e-2)
    found = tensors_at(rounded, STEPS)
    assert all(value.dtype == torch.float32 for value in found.values())
    teacher = ["teacher."]
    moved = flat(found, "model", teacher) - flat(tensors_at(rounded, 1), "model", teacher)
    expected = flat(tensors_at(one_process, STEPS), "model", teacher) - flat(
        tensors_at(one_process, 1), "model", teacher
    )
    assert relative(moved - expected, expected) < 0.2
