"""A million small samples: killed three times, each goes on at once, and the epoch holds every sample once."""

import json
import time

import numpy as np
import pytest

from src.data.index import Labels
from src.data.order import Order
from src.data.write_shards import Description, Record, write_shards
from tests.commands import global_batches, kill_tree, lines, start, succeed, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(3600)]
SAMPLES, BATCH = 1_000_000, 20_000
ATTEMPTS = ((2, 1), (1, 0), (2, 2), (4, 1))
"""Ranks and loader workers of each rank; all but the last are killed."""
FIRST_BATCH = 5.0
"""Seconds from the moment at which a rank opens its logs to its first step."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("million") / "shards"
    waves = np.random.default_rng(0).integers(-1000, 1000, (1000, 1, 64)).astype(np.int16)
    records = (
        Record("train", f"r{number:07d}", waves[number % 1000], {"id": str(number), "scale": [0.001]})
        for number in range(SAMPLES)
    )
    write_shards(root, records, Description(("I",), 100.0, Labels(), {}))
    return root


def command(shards, folder, ranks, workers):
    model = "{name: ecg_tiny, leads: 1, length: 64, patch: 4, width: 8, depth: 1, heads: 1}"
    settings = [
        f"data.root={shards}",
        "data.synthetic=null",
        "data.leads=[I]",
        f"data.batch_size={BATCH}",
        "data.micro_batch_size=1000",
        f"data.workers={workers}",
        "data.window=32",
        "data.lanes=4",
        f"model.encoder={model}",
        "model.predictor={width: 8, depth: 1, heads: 1}",
        "mask.min_context=2",
        "optimization.epochs=1",
        "optimization.warmup_epochs=0",
        "checkpoint.every=4",
        "logging.audit=true",
        f"logging.folder={folder}",
    ]
    return ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *["cpu"] * ranks, "--set", *settings]


def interrupted(words, folder, number):
    """Seconds from the opened logs of an attempt to its first batch; killed ten steps later."""
    process = start(*words)
    attempt = folder / "attempts" / f"{number:04d}.json"
    wait_until(lambda: attempt.exists() or process.poll() is not None, 120, "the attempt")
    assert process.poll() is None, process.communicate()
    opened, begun = time.monotonic(), json.loads(attempt.read_text())["start"]

    def batches():
        audits = [lines(path) for path in (folder / "audit").glob("rank-*.jsonl")]
        return [line for audit in audits for line in audit if line["attempt"] == number]

    wait_until(batches, 120, "a batch")
    waited = time.monotonic() - opened
    done = folder / "metrics.jsonl"
    wait_until(lambda: len(lines(done)) >= begun + 10 or process.poll() is not None, 600, "ten steps")
    assert process.poll() is None, process.communicate()
    kill_tree(process.pid)
    process.communicate()
    return waited


def test_an_epoch_in_four_attempts_holds_each_sample_once(shards, tmp_path):
    waited = [
        interrupted(command(shards, tmp_path, *attempt), tmp_path, number)
        for number, attempt in enumerate(ATTEMPTS[:-1], start=1)
    ]
    succeed(*command(shards, tmp_path, *ATTEMPTS[-1]), timeout=1800)
    print(f"seconds to the first batch: {', '.join(f'{seconds:.2f}' for seconds in waited)}")
    batches = global_batches(tmp_path)
    assert list(batches) == list(range(SAMPLES // BATCH))
    entries = json.loads((shards / "index.json").read_text())["splits"]["train"]
    order = Order(0, [entry["samples"] for entry in entries], 32, 4, BATCH)
    for step, keys in batches.items():
        samples = order.order(np.arange(step * BATCH, (step + 1) * BATCH))[1]
        assert keys == [f"r{sample:07d}" for sample in samples.tolist()]
    assert len({key for keys in batches.values() for key in keys}) == SAMPLES
    starts = [json.loads(path.read_text())["start"] for path in sorted((tmp_path / "attempts").iterdir())]
    assert all(before < after for before, after in zip(starts[:-1], starts[1:], strict=True)), starts
    assert max(waited) < FIRST_BATCH
