"""The verb simulate_order: its answers against what a run does, and against brute force."""

import tracemalloc

import numpy as np
import pytest

from src.data.order import Order, batch_positions, deal
from src.data.simulate_order import Cluster, ask
from tests.commands import lines, succeed
from tools import simulate_order

SMALL = Cluster([50] * 40, ranks=4, batch_size=16, window=2, lanes=4)


def told(capsys, words, *others):
    """Exit status, the cells of its table, and all it printed."""
    status = simulate_order.main([*words.split(), *others])
    output = capsys.readouterr()
    rows = [line.strip("| ").split(" | ") for line in output.out.splitlines() if line.startswith("|")]
    return status, rows, output


def test_a_rank_is_told_the_samples_that_it_would_train_on(capsys):
    words = "--samples 2000 --shards 40 --batch-size 16 --window 2 --lanes 4 --ranks 4 --rank 2 --step 200"
    status, rows, _ = told(capsys, words)
    assert status == 0
    positions = deal(batch_positions(200, 16), 2, 4)
    epochs, samples = Order(0, SMALL.sizes, 2, 4, 16).order(positions)
    assert rows[2:] == [[str(n) for n in row] for row in zip(positions, epochs, samples, samples // 50, strict=True)]


def test_answers_are_those_of_brute_force():
    found = ask(SMALL, 1, step=3, steps=20)
    order = SMALL.order()
    read = [order.order(deal(batch_positions(step, 16), 1, 4))[1] // 50 for step in range(3, 23)]
    assert found.shards == len(set(np.concatenate(read).tolist()))
    batch = order.order(batch_positions(3, 16))[1] // 50
    assert found.busiest == max(np.bincount(batch))
    assert found.readers == max(len({n // 4 for n in np.flatnonzero(batch == shard)}) for shard in set(batch))
    pairs = [(a, b) for a in range(16) for b in range(16) if a != b]
    expected = 49 / 1999
    assert found.mates == pytest.approx(np.mean([batch[a] == batch[b] for a, b in pairs]) / expected)
    steps = {sample: place // 16 for place, sample in enumerate(order.order(np.arange(2000))[1].tolist())}
    apart = [abs(steps[n] - steps[n + 1]) for n in range(1999) if n % 50 != 49]
    assert found.apart == pytest.approx(np.mean(apart) / (2000 / 16), rel=0.03)


def test_a_full_permutation_mixes_as_one_should():
    found = ask(Cluster([100] * 100, ranks=8, batch_size=512, window=None, lanes=1), 0, step=0, steps=2)
    assert found.apart == pytest.approx(1 / 3, rel=0.03)
    assert found.mates == pytest.approx(1.0, abs=0.15)


def test_a_billion_samples_on_4096_ranks(capsys):
    words = [
        "--samples",
        "1e9",
        "--shards",
        "1e5",
        "--batch-size",
        "32768",
        "--window",
        "16",
        "--lanes",
        "4096",
        "--ranks",
        "4096",
        "--step",
        "12345",
    ]
    status, rows, _ = told(capsys, *words)
    assert status == 0
    table = {row[0]: row[1:] for row in rows[2:]}
    first = next(values for name, values in table.items() if name.startswith("first batch"))
    assert float(first[0]) < 1.0, "a resume takes under a second"
    memory = next(values for name, values in table.items() if name.startswith("memory"))
    assert max(float(value) for value in memory) < 20
    shards = next(values for name, values in table.items() if name.startswith("shards that a rank"))
    assert shards == ["16", "400"]
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--ranks 2", "name a config with --fname, or give --samples, --shards and --batch-size"),
        ("--ranks 2 --samples 10 --shards 11 --batch-size 2", "11 shards can't share 10 samples"),
        ("--ranks 3 --samples 10 --shards 2 --batch-size 4", "can't be shared equally by 3 ranks"),
        ("--ranks 2 --samples 10 --shards 2 --batch-size 4 --lanes 3", "--lanes 3 must divide --batch-size 4"),
        ("--ranks 2 --samples 10 --shards 2 --batch-size 4 --rank 2", "there is no rank 2 of 2"),
        ("--ranks 2 --fname configs/jepa/ecg_debug.yaml --window 4", "--window is for clusters without a config"),
        ("--ranks 2 --samples 10 --shards 2 --batch-size 4 --step -1", "there is no step -1"),
        ("--ranks 2 --fname configs/probe/ecg_debug.yaml", "probe does not train step by step"),
        ("--ranks 2 --fname configs/jepa/ecg_debug.yaml --set data.root=nowhere", "nowhere holds no index.json"),
    ],
)
def test_mistakes_get_a_sentence(capsys, words, complaint):
    status, _, output = told(capsys, words)
    assert status == 1
    assert complaint in output.err
    assert len(output.err.splitlines()) == 1


def test_a_run_trains_on_what_was_foretold(tmp_path, capsys):
    settings = [f"data.root={tmp_path}/shards", f"logging.folder={tmp_path}/run", "logging.audit=true"]
    settings += ["data.window=1", "data.lanes=2", "optimization.steps=5", "optimization.epochs=null"]
    settings += ["optimization.warmup_epochs=null"]
    config = ["--fname", "configs/jepa/ecg_debug.yaml", "--set", *settings]
    succeed(*config, "--devices", "cpu", "cpu")
    for rank in range(2):
        audit = lines(tmp_path / "run" / "audit" / f"rank-{rank}.jsonl")
        status, rows, _ = told(capsys, f"--ranks 2 --rank {rank} --step 4", *config)
        assert status == 0
        assert audit[4]["step"] == 4
        assert audit[4]["keys"] == [f"synthetic-{int(row[2]):07d}" for row in rows[2:]]
