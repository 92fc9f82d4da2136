"""The encoder that a run leaves is the same from wherever it is loaded, and does what the run's own door does."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from transformers import ViTConfig, ViTModel

from src.checkpoints.manifest import read_manifest, write_manifest
from src.checkpoints.read import checkpoint_folders
from src.config.engine import EngineConfig
from src.config.load import load_config
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.distributed.ranks import Ranks
from src.engines.frozen import FrozenEngine
from src.evaluation import encoder as module
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder, random_encoder
from src.evaluation.features import Records, embed
from src.models.config import EncoderConfig
from src.transforms.preprocessing import Preprocessing
from ssls.objectives import schema_of
from ssls.probe.model import Frozen
from tests.commands import ROOT, succeed
from tests.config.record_reads import experiment

LEADS = ("I", "II", "V1")
CONFIG = EncoderConfig(name="ecg_tiny", leads=3, length=100, patch=10, width=16, depth=1, heads=2)
PREPROCESSING = Preprocessing(
    leads=LEADS,
    sampling_rate=100.0,
    length=100,
    normalize="dataset",
    mean=(0.1, 0.0, 0.3),
    std=(0.5, 0.4, 0.3),
    clip=3.0,
)


@pytest.fixture
def made():
    torch.manual_seed(5)
    return Encoder(CONFIG, PREPROCESSING).eval()


@pytest.fixture
def exported(made, tmp_path):
    part = EncoderPart("teacher", CONFIG, PREPROCESSING)
    export_encoder(tmp_path / "encoder", made.network.state_dict(), part)
    return tmp_path / "encoder"


def ecgs(count=6, samples=250):
    """Raw ECGs in mV."""
    return np.random.default_rng(0).normal(0.1, 0.5, (count, len(LEADS), samples)).astype(np.float32)


def same(one, other):
    """Whether two encoders are one."""
    left, right = one.network.state_dict(), other.network.state_dict()
    return (
        (one.config, one.preprocessing) == (other.config, other.preprocessing)
        and left.keys() == right.keys()
        and all(torch.equal(left[name], right[name]) for name in left)
    )


def test_what_is_exported_comes_back(made, exported):
    loaded = load_encoder(exported)
    assert same(loaded, made)
    np.testing.assert_array_equal(loaded.embed(ecgs()), made.embed(ecgs()))
    assert sorted(path.name for path in exported.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessing.json",
    ]


def test_a_loaded_encoder_is_frozen_and_in_evaluation_mode(exported):
    loaded = load_encoder(str(exported))
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.embed(ecgs()).dtype == np.float32


def test_the_record_is_all_that_a_users_two_lines_need(exported):
    encoder = load_encoder(exported.parent)
    features = encoder.embed(ecgs())
    assert features.shape == (6, 16)
    assert encoder.embed(ecgs(), pool="mean+std").shape == (6, 32)
    assert encoder.embed(ecgs(), pool="tokens", windows=1).shape == (6, 160)


@pytest.mark.parametrize("windows", [1, 2, None])
def test_one_record_alone_is_what_it_is_among_many(made, windows, monkeypatch):
    monkeypatch.setattr(module, "CALL", 4)
    whole = made.embed(ecgs(), windows=windows)
    for row, ecg_CT in zip(whole, ecgs(), strict=True):
        np.testing.assert_allclose(made.embed(ecg_CT[None], windows=windows)[0], row, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made.embed(torch.from_numpy(ecgs()), windows=windows), whole)
    np.testing.assert_allclose(made.embed(ecgs().astype(np.float64), windows=windows), whole, rtol=1e-5, atol=1e-6)


def test_arrays_in_mv_give_what_the_door_of_an_engine_gives_of_shards(made, tmp_path):
    """Integers with a scale, a lead that is missing in one record and flat in another."""
    rng = np.random.default_rng(1)
    records = []
    for number in range(7):
        signal = rng.integers(-900, 900, (3, 250), np.int16)
        signal[1] = {2: 0, 4: 120}.get(number, signal[1])
        keep = [True, number not in (2, 4), True]
        meta = {"id": str(number), "patient_id": str(number), "labels": [1], "scale": [0.001] * 3, "lead_keep": keep}
        records.append(Record(split="train", key=f"ecg-{number}", signal_CT=signal, meta=meta))
    write_shards(tmp_path / "shards", records, Description(LEADS, 100.0, Labels(names=("a",)), {"made": "here"}))
    shards = ECGShards(tmp_path / "shards", "train", LEADS)
    ranks = Ranks(0, 1, torch.device("cpu"))
    door = FrozenEngine(Frozen(made), EngineConfig(), ranks)
    for windows in (1, None):
        of_door = embed(door, Records(shards, np.arange(7), PREPROCESSING, windows), "mean", 3, ranks)
        raw = np.stack([record.signal_CT for record in records]) / np.float32(1000)
        np.testing.assert_allclose(made.embed(raw, windows=windows), of_door, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            made.embed_samples(shards.read(np.arange(7)), windows=windows), of_door, rtol=1e-5, atol=1e-6
        )
    kept = np.array([record.meta["lead_keep"] for record in records])
    np.testing.assert_array_equal(made.embed(raw, lead_keep_BC=kept), made.embed(raw))
    assert not np.allclose(made.embed(raw, lead_keep_BC=np.ones_like(kept)), made.embed(raw), atol=1e-4)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 12, 250)), r"record 0 has shape \[12, 250\]; the encoder takes \[3, samples\]"),
        (np.zeros((2, 3, 99)), "record 0 has 99 samples of each lead; the encoder needs 100 or more at 100 Hz"),
        (np.zeros((3, 250)), r"have shape \[3, 250\]; the encoder takes \[records, leads, samples\]"),
        (np.zeros((0, 3, 250)), r"have shape \[0, 3, 250\]"),
        (np.array([np.zeros((3, 250)), np.full((3, 250), np.nan)]), "record 1 holds NaN or infinite values"),
    ],
)
def test_what_does_not_fit_is_named(made, raw, message):
    with pytest.raises(ValueError, match=message):
        made.embed(raw)


def test_a_newer_export_replaces_the_older_and_leaves_nothing_else(made, exported):
    other = random_encoder(made, 1)
    export_encoder(exported, other.network.state_dict(), EncoderPart("teacher", CONFIG, PREPROCESSING))
    assert same(load_encoder(exported), other)
    assert [path.name for path in exported.parent.iterdir()] == ["encoder"]


def test_an_export_that_fails_leaves_the_older_whole(made, exported, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("src.files.sync", full)
    with pytest.raises(OSError, match="no space left"):
        export_encoder(exported, random_encoder(made, 1).network.state_dict(), EncoderPart("x", CONFIG, PREPROCESSING))
    monkeypatch.undo()
    assert same(load_encoder(exported), made)
    export_encoder(exported, made.network.state_dict(), EncoderPart("x", CONFIG, PREPROCESSING))
    assert [path.name for path in exported.parent.iterdir()] == ["encoder"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def narrow(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"width": 8}))


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("model.safetensors", cut, r"model\.safetensors does not fit config\.json or is damaged"),
        ("config.json", narrow, r"model\.safetensors does not fit config\.json or is damaged"),
        ("config.json", cut, r"config\.json is damaged .*; export the encoder again"),
        ("config.json", lambda path: path.unlink(), r"config\.json is missing"),
        ("preprocessing.json", cut, r"preprocessing\.json is damaged"),
        ("preprocessing.json", lambda path: path.unlink(), r"preprocessing\.json is missing: finish the run again"),
        ("model.safetensors", lambda path: path.unlink(), "holds no encoder: name an exported encoder/ folder, a"),
    ],
)
def test_a_damaged_export_is_told_in_a_sentence(exported, name, harm, message):
    harm(exported / name)
    with pytest.raises(ValueError, match=message) as told:
        load_encoder(exported)
    assert str(exported) in str(told.value) and "\n" not in str(told.value)


def test_a_folder_without_an_encoder_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"^{path} holds no encoder: name an exported encoder/ folder"):
            load_encoder(path)


def test_a_random_encoder_is_a_function_of_its_seed_and_leaves_torch_as_it_was(made):
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, again, other = (random_encoder(made, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert same(one, again) and same(one, random_encoder(made, 3))
    assert not same(one, other) and not same(one, made)
    assert (one.config, one.preprocessing) == (made.config, made.preprocessing)
    assert not one.training and not any(parameter.requires_grad for parameter in one.parameters())


def test_a_backbone_of_transformers_is_loaded_though_the_folder_it_came_from_is_gone(tmp_path):
    """From the run's export, and from its checkpoint."""
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**size, image_size=32, patch_size=4, num_channels=1)).save_pretrained(tmp_path / "vit")
    tree = yaml.safe_load((ROOT / "configs" / "jepa" / "image_debug.yaml").read_text())
    tree["model"]["encoder"] = {"name": "transformers", "folder": str(tmp_path / "vit")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    settings = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=2"]
    settings += ["evaluation.every=null", f"data.root={tmp_path / 'shards'}", f"logging.folder={tmp_path / 'run'}"]
    experiment(load_config(tmp_path / "run.yaml", settings, schema_of), check=False)
    images = torch.randn(3, 1, 32, 32)
    before = load_encoder(tmp_path / "run")(images)
    shutil.rmtree(tmp_path / "vit")
    (checkpoint,) = checkpoint_folders(tmp_path / "run" / "checkpoints")
    exported, saved = (load_encoder(place) for place in (tmp_path / "run" / "encoder", checkpoint))
    assert same(exported, saved) and exported.sha256() == saved.sha256()
    for encoder in (exported, saved):
        torch.testing.assert_close(encoder(images), before, rtol=0.0, atol=0.0)
    assert not torch.equal(random_encoder(exported, 0)(images), before)


# Of a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The debug pre-training, finished."""
    root = tmp_path_factory.mktemp("run")
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "--set", f"data.root={root / 'shards'}"]
    succeed(*words, f"logging.folder={root / 'run'}", "optimization.epochs=4", "evaluation.every=null")
    return root / "run"


@pytest.fixture
def unfinished(run, tmp_path):
    """The run as it would stand before its end: without the export."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "encoder")
    return tmp_path / "run"


def raw_ecgs(encoder):
    return np.random.default_rng(0).normal(0, 0.3, (3, 12, 500)).astype(np.float32)


@pytest.mark.distributed
def test_a_run_its_export_its_newest_checkpoint_and_the_run_before_its_end_are_one_encoder(run, unfinished):
    newest = checkpoint_folders(run / "checkpoints")[0]
    places = [run, run / "encoder", newest, unfinished]
    first, *others = [load_encoder(place) for place in places]
    assert first.preprocessing.length == 400 and first.preprocessing.mean is not None
    for other in others:
        assert same(first, other)
        np.testing.assert_array_equal(first.embed(raw_ecgs(first)), other.embed(raw_ecgs(first)))


@pytest.mark.distributed
def test_it_is_the_teacher_and_an_older_checkpoint_is_an_older_teacher(run):
    newest, older, *_ = checkpoint_folders(run / "checkpoints")
    assert not same(load_encoder(newest), load_encoder(older))
    state = load_encoder(newest).network.state_dict()
    checkpoint = module.open_checkpoint(newest)
    for name, tensor in state.items():
        teacher, student = (
            checkpoint.read("model", f"{net}.{name}", tuple(tensor.shape)) for net in ("teacher", "student")
        )
        assert torch.equal(tensor, teacher)
    assert not torch.equal(teacher, student)


@pytest.mark.distributed
def test_a_damaged_newest_checkpoint_is_passed_over_in_a_run_and_told_where_it_is_named(unfinished):
    newest, older, *rest = checkpoint_folders(unfinished / "checkpoints")
    expected = load_encoder(older)
    cut(next(newest.glob("*.safetensors")))
    assert same(load_encoder(unfinished), expected)
    with pytest.raises(ValueError, match=r"rank-00000\.safetensors has \d+ bytes instead of"):
        load_encoder(newest)
    for folder in (older, *rest):
        cut(next(folder.glob("*.safetensors")))
    with pytest.raises(ValueError, match="no checkpoint of .* is whole: ") as told:
        load_encoder(unfinished)
    assert "\n" not in str(told.value)


@pytest.mark.distributed
def test_a_checkpoint_of_before_there_was_an_encoder_entry_is_told(unfinished):
    newest = checkpoint_folders(unfinished / "checkpoints")[0]
    write_manifest(newest, replace(read_manifest(newest), encoder=None))
    for place in (newest, unfinished):
        with pytest.raises(ValueError, match="does not say which of its networks is the encoder"):
            load_encoder(place)
