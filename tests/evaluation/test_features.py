"""Frozen features are the same rows in the same order, whoever computes them."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.config.engine import EngineConfig
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.distributed.ranks import Ranks
from src.engines.frozen import FrozenEngine
from src.evaluation.encoder import Encoder
from src.evaluation.features import Records, embed, embed_tokens, pool_tokens
from src.models.config import EncoderConfig
from src.transforms.preprocessing import Preprocessing
from ssls.probe.model import Frozen

LEADS = ("I", "II", "V1")
LENGTH, BATCH = 100, 3
COUNTS = (8, 7, 4, 2, 1)
ALONE = Ranks(0, 1, torch.device("cpu"))


def make_shards(root):
    """Nine records of one to three windows and a bit."""
    rng = np.random.default_rng(0)
    records = [
        Record(
            split="train",
            key=f"ecg-{number}",
            signal_CT=rng.normal(0.1, 0.5, (len(LEADS), 100 + 29 * number)).astype(np.float32),
            meta={"id": str(number), "patient_id": str(number), "labels": [number % 2]},
        )
        for number in range(9)
    ]
    write_shards(root, records, Description(LEADS, 100.0, Labels(names=("odd",)), {"made": "for a test"}))
    return ECGShards(root, "train", LEADS)


def make_encoder():
    torch.manual_seed(3)
    config = EncoderConfig(name="ecg_tiny", leads=3, length=LENGTH, patch=10, width=16, depth=1, heads=2)
    preprocessing = Preprocessing(
        leads=LEADS,
        sampling_rate=100.0,
        length=LENGTH,
        normalize="dataset",
        mean=(0.1, 0.0, 0.1),
        std=(0.5, 0.4, 0.3),
        clip=3.0,
    )
    return Encoder(config, preprocessing).eval()


class Door:
    """Tokens of an encoder; remembers how many windows each call had."""

    def __init__(self, encoder):
        self.encoder, self.calls = encoder, []

    def __call__(self, batch, mode):
        assert mode == "embed"
        self.calls.append(len(batch["ecg"]))
        return {"tokens": self.encoder(batch["ecg"])}


def records_of(shards, count, windows):
    """Some records, in an order that is not the split's."""
    samples = np.random.default_rng(count).permutation(9)[:count]
    return Records(shards, samples, make_encoder().preprocessing, windows)


def _work(rank, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    ranks, shards, encoder = (
        Ranks(rank, world_size, torch.device("cpu")),
        ECGShards(folder, "train", LEADS),
        make_encoder(),
    )
    found = {}
    for count in COUNTS:
        for windows in (1, None):
            door, records = Door(encoder), records_of(shards, count, windows)
            found[f"features {count} {windows}"] = embed(door, records, "mean+std", BATCH, ranks)
            found[f"calls {count} {windows}"] = np.array(len(door.calls))
        door = Door(encoder)
        found[f"tokens {count}"] = embed_tokens(door, records_of(shards, count, 1), "tokens", BATCH, ranks)[0]
        found[f"token calls {count}"] = np.array(door.calls)
    np.savez(f"{folder}/rank-{rank}.npz", **found)
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory):
    """What each of several ranks got, and the shards."""
    folder = tmp_path_factory.mktemp("features") / "shards"
    shards = make_shards(folder)
    mp.spawn(_work, (request.param, str(folder)), nprocs=request.param)
    return [dict(np.load(folder / f"rank-{rank}.npz")) for rank in range(request.param)], shards


@pytest.mark.distributed
@pytest.mark.parametrize("count", COUNTS)
def test_every_rank_has_the_rows_of_one_process_in_their_order(several, count):
    """Also where the ranks do not divide the records, and where there are fewer records than ranks."""
    found, shards = several
    for windows in (1, None):
        alone = embed(Door(make_encoder()), records_of(shards, count, windows), "mean+std", BATCH, ALONE)
        assert alone.shape == (count, 32) and alone.dtype == np.float32
        for of_rank in found:
            np.testing.assert_allclose(of_rank[f"features {count} {windows}"], alone, rtol=1e-5, atol=1e-6)
    tokens, valid = embed_tokens(Door(make_encoder()), records_of(shards, count, 1), "tokens", BATCH, ALONE)
    assert valid is None
    for of_rank in found:
        np.testing.assert_allclose(of_rank[f"tokens {count}"], tokens, rtol=1e-5, atol=1e-6)


@pytest.mark.distributed
@pytest.mark.parametrize("count", COUNTS)
def test_every_rank_makes_the_same_number_of_calls_and_none_is_empty(several, count):
    found, _ = several
    longest = -(-count // len(found))
    for windows in (1, None):
        assert {int(of_rank[f"calls {count} {windows}"]) for of_rank in found} == {-(-longest // BATCH)}
    for of_rank in found:
        sizes = of_rank[f"token calls {count}"]
        assert sizes.sum() == longest and sizes.min() >= 1 and sizes.max() <= BATCH


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("one") / "shards")


@pytest.mark.parametrize("pool", ["mean", "mean+std", "mean+max", "tokens"])
def test_pools_are_numpys(pool):
    tokens = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    array = tokens.double().numpy()
    expected = {
        "mean": array.mean(1),
        "mean+std": np.concatenate([array.mean(1), array.std(1)], 1),
        "mean+max": np.concatenate([array.mean(1), array.max(1)], 1),
        "tokens": array.reshape(5, 28),
    }[pool]
    np.testing.assert_allclose(pool_tokens(tokens, pool).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert pool_tokens(tokens.bfloat16(), pool).dtype == torch.float32


@pytest.mark.parametrize("pool", ["mean", "mean+max", "tokens"])
@pytest.mark.parametrize("windows", [1, 3, None])
def test_a_record_is_the_mean_of_its_windows(shards, pool, windows):
    encoder = make_encoder()
    records = Records(shards, np.arange(9), encoder.preprocessing, windows)
    found = embed(Door(encoder), records, pool, BATCH, ALONE)
    for row, sample in zip(found, shards.read(np.arange(9)), strict=True):
        cut = encoder.preprocessing.prepare(sample["ecg"], sample["lead_keep"], windows, "it")
        assert len(cut) == (windows or -(-sample["ecg"].shape[1] // LENGTH))
        with torch.no_grad():
            one_by_one = [pool_tokens(encoder(torch.from_numpy(window[None])), pool)[0].numpy() for window in cut]
        np.testing.assert_allclose(row, np.mean(one_by_one, 0), rtol=1e-5, atol=1e-6)


def test_the_size_of_a_call_changes_nothing(shards):
    records = records_of(shards, 9, None)
    whole = embed(Door(make_encoder()), records, "mean", 64, ALONE)
    for batch_size in (1, 4):
        np.testing.assert_allclose(
            embed(Door(make_encoder()), records, "mean", batch_size, ALONE), whole, rtol=1e-5, atol=1e-6
        )


def test_a_frozen_engine_rounds_in_bf16_and_gives_float32(shards):
    records, found = records_of(shards, 9, 1), {}
    for precision in ("fp32", "bf16"):
        door = FrozenEngine(Frozen(make_encoder()), EngineConfig(precision=precision), ALONE)
        found[precision] = embed(door, records, "mean", BATCH, ALONE)
    assert found["bf16"].dtype == np.float32 and not np.array_equal(found["bf16"], found["fp32"])
    np.testing.assert_allclose(found["bf16"], found["fp32"], atol=0.05)
    np.testing.assert_array_equal(found["fp32"], embed(Door(make_encoder()), records, "mean", BATCH, ALONE))


def test_a_record_that_is_too_short_is_named(shards):
    wanted = make_encoder().preprocessing.model_copy(update={"length": 120})
    with pytest.raises(ValueError, match="sample ecg-0 has 100 samples of each lead; the encoder needs 120 or more"):
        embed(Door(make_encoder()), Records(shards, np.arange(9), wanted, 1), "mean", BATCH, ALONE)
