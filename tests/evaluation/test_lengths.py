"""A record shorter than an encoder's window has the features that it has at its own length, wherever they are read."""

import numpy as np
import pytest
import torch

from src.config.engine import EngineConfig
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.distributed.ranks import Ranks
from src.engines.frozen import FrozenEngine
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder
from src.evaluation.features import Records, embed, embed_tokens
from src.evaluation.tokens import keep_tokens
from src.models.config import EncoderConfig, S4Config
from src.transforms.preprocessing import Preprocessing
from ssls.probe.model import Frozen
from tools.embed import main as embed_command

LEADS = ("I", "II", "V1")
ALONE = Ranks(0, 1, torch.device("cpu"))
LENGTHS = (100, 40, 250, 65, 10, 100)
"""65 ends inside a token."""
ENCODERS = {
    "vit": EncoderConfig(name="ecg_tiny", leads=3, length=100, patch=10, width=16, depth=2, heads=2, registers=1),
    "s4": S4Config(name="s4", leads=3, length=100, patch=10, width=16, depth=2),
}
STATISTICS = {"mean": (0.1, 0.0, 0.1), "std": (0.5, 0.4, 0.3)}
PREPROCESSING = Preprocessing(
    leads=LEADS, sampling_rate=100.0, length=100, normalize="dataset", clip=3.0, short="pad", **STATISTICS
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("lengths") / "shards"
    records = [
        Record(
            split="train",
            key=f"ecg-{number}",
            signal_CT=rng.normal(0.1, 0.5, (3, length)).astype(np.float32),
            meta={"id": str(number), "patient_id": str(number), "labels": [number % 2]},
        )
        for number, length in enumerate(LENGTHS)
    ]
    write_shards(root, records, Description(LEADS, 100.0, Labels(names=("odd",)), {"made": "for a test"}))
    return ECGShards(root, "train", LEADS)


def make_encoder(kind="vit"):
    torch.manual_seed(3)
    encoder = Encoder(ENCODERS[kind], PREPROCESSING).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@torch.no_grad()
def alone(encoder, sample):
    """Tokens of each window of a record; one that is shorter is fed as it is, up to the end of its last token."""
    windows = encoder.preprocessing.windows_of(sample, None)
    own = min(-(-sample["ecg"].shape[1] // 10) * 10, 100)
    return [encoder.network(torch.from_numpy(window[None, :, :own]))[0] for window in windows]


def pooled(tokens_LD, pool):
    beside = {"mean": [], "mean+std": [tokens_LD.std(0, correction=0)], "mean+max": [tokens_LD.amax(0)]}[pool]
    return torch.cat([tokens_LD.mean(0), *beside])


@pytest.mark.parametrize("pool", ["mean", "mean+std", "mean+max"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_pooled_features_are_those_of_the_record_alone(shards, kind, pool):
    encoder = make_encoder(kind)
    samples = shards.read(np.arange(6))
    wanted = [torch.stack([pooled(one, pool) for one in alone(encoder, sample)]).mean(0) for sample in samples]
    door = FrozenEngine(Frozen(encoder), EngineConfig(), ALONE)
    found = embed(door, Records(shards, np.arange(6), PREPROCESSING, None), pool, 4, ALONE)
    np.testing.assert_allclose(found, torch.stack(wanted), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_samples(samples, pool), found, rtol=1e-5, atol=1e-6)
    array = samples[1]["ecg"][None]
    np.testing.assert_allclose(encoder.embed(array, pool), found[1:2], rtol=1e-5, atol=1e-6)


def test_tokens_of_attentive_probes_are_those_with_signal(shards, tmp_path):
    encoder = make_encoder()
    door = FrozenEngine(Frozen(encoder), EngineConfig(), ALONE)
    records = Records(shards, np.array([3, 2, 4, 0]), PREPROCESSING, None)
    tokens, features = keep_tokens(door, records, tmp_path / "train", "mean", 3, ALONE)
    assert [len(own) for own in tokens.records] == [7, 30, 1, 10]
    for own, sample in zip(tokens.records, shards.read(records.samples_N), strict=True):
        np.testing.assert_allclose(own, torch.cat(alone(encoder, sample)), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(features, embed(door, records, "mean", 3, ALONE), rtol=1e-5, atol=1e-6)


def test_single_tokens_come_with_those_that_are_valid(shards):
    door = FrozenEngine(Frozen(make_encoder()), EngineConfig(), ALONE)
    for numbers, wanted in (((0, 1, 3, 4), [10, 4, 7, 1]), ((0, 2), [10, 10])):
        records = Records(shards, np.array(numbers), PREPROCESSING, None)
        tokens_NLD, valid_NL = embed_tokens(door, records, "tokens", 2, ALONE)
        assert tokens_NLD.shape == (len(numbers), 10, 16) and valid_NL.sum(1).tolist() == wanted


def test_all_tokens_in_a_row_are_refused_and_an_export_comes_back(shards, tmp_path, capsys):
    encoder = make_encoder()
    export_encoder(tmp_path / "encoder", encoder.network.state_dict(), EncoderPart("x", encoder.config, PREPROCESSING))
    assert load_encoder(tmp_path / "encoder").sha256() == encoder.sha256()
    words = ["--encoder", str(tmp_path / "encoder"), "--shards", str(shards.root), "--split", "train"]
    assert embed_command([*words, "--output", str(tmp_path / "mean")]) == 0
    found = np.load(tmp_path / "mean" / "features.npy")
    np.testing.assert_allclose(found, encoder.embed_samples(shards.read(np.arange(6))), rtol=1e-5, atol=1e-6)
    assert embed_command([*words, "--output", str(tmp_path / "tokens"), "--pool", "tokens"]) == 1
    assert "pool is tokens, which lays the tokens of a window in a row" in capsys.readouterr().err
    short = PREPROCESSING.model_copy(update={"short": "refuse"})
    with pytest.raises(ValueError, match="sample ecg-1 has 40 samples of each lead; the encoder needs 100 or more"):
        Encoder(encoder.config, short).embed_samples(shards.read(np.arange(2)))
