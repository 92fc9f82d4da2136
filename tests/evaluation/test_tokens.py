"""Tokens on disk are those of the encoder, record by record, whoever embeds them."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.config.engine import EngineConfig
from src.data.ecg_shards import ECGShards
from src.distributed.ranks import Ranks
from src.engines.frozen import FrozenEngine
from src.evaluation.features import Records, embed
from src.evaluation.tokens import keep_tokens, require_room
from ssls.probe.model import Frozen
from tests.evaluation.test_features import ALONE, BATCH, LEADS, make_encoder, make_shards


def kept(shards, folder, ranks):
    encoder = make_encoder()
    door = FrozenEngine(Frozen(encoder), EngineConfig(), ranks)
    records = Records(shards, np.array([8, 0, 3, 5, 1]), encoder.preprocessing, None)
    return keep_tokens(door, records, folder / "train", "mean", BATCH, ranks), records, door, encoder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "shards")


def test_all_windows_of_a_record_are_one_set_of_tokens(shards, tmp_path):
    (tokens, features_NF), records, door, encoder = kept(shards, tmp_path, ALONE)
    windows = [records.windows_of(sample) for sample in shards.read(records.samples_N)]
    assert len({len(windows_WCT) for windows_WCT in windows}) > 1 and tokens.width == 16
    for own_LD, windows_WCT in zip(tokens.records, windows, strict=True):
        with torch.no_grad():
            expected_LD = encoder(torch.from_numpy(windows_WCT)).flatten(0, 1)
        np.testing.assert_allclose(own_LD, expected_LD, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features_NF, embed(door, records, "mean", BATCH, ALONE), rtol=1e-5, atol=1e-6)


def test_a_batch_says_which_tokens_are_there(shards, tmp_path):
    (tokens, _), *_ = kept(shards, tmp_path, ALONE)
    batch_BLD, keep_BL = tokens.batch([0, 1])
    lengths = [len(tokens.records[row]) for row in (0, 1)]
    assert keep_BL.sum(1).tolist() == lengths and lengths[0] != lengths[1]
    for place, length in enumerate(lengths):
        np.testing.assert_array_equal(batch_BLD[place, :length], tokens.records[place])
        assert keep_BL[place, :length].all() and not batch_BLD[place, length:].any()
    assert tokens.batch([1, 1])[1] is None


def rank(number, root):
    store = dist.FileStore(str(root / "meeting"), 2)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2)
    (tokens, features_NF), *_ = kept(ECGShards(root / "shards", "train", LEADS), root, Ranks(number, 2, ALONE.device))
    np.savez(root / f"rank-{number}.npz", *tokens.records, features=features_NF)
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_ranks_share_the_records_and_both_see_all(tmp_path):
    (tokens, features_NF), *_ = kept(make_shards(tmp_path / "shards"), tmp_path, ALONE)
    expected = [np.array(one_LD) for one_LD in tokens.records]
    mp.spawn(rank, (tmp_path,), nprocs=2)
    for number in range(2):
        with np.load(tmp_path / f"rank-{number}.npz") as found:
            np.testing.assert_allclose(found["features"], features_NF, rtol=1e-5, atol=1e-6)
            for place, one_LD in enumerate(expected):
                np.testing.assert_allclose(found[f"arr_{place}"], one_LD, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_refused_with_its_size(tmp_path):
    require_room(tmp_path, 10, 1)
    with pytest.raises(ValueError, match=r"the tokens of 5,000 records take 1,000,000\.0 GB, but the disk of .* has "):
        require_room(tmp_path, 10**15, 5000)


def test_tokens_beyond_fp16_are_refused(shards, tmp_path):
    def loud(batch, mode):
        return {"tokens": torch.full((len(batch["ecg"]), 4, 16), 1e5)}

    records = Records(shards, np.array([2, 4]), make_encoder().preprocessing, None)
    with pytest.raises(ValueError, match=r"tokens of samples ecg-2 to ecg-4 reach 100000, but they are kept in fp16"):
        keep_tokens(loud, records, tmp_path / "train", "mean", BATCH, ALONE)
