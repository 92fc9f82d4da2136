"""JEPA on images, videos and CT volumes: what comes out of a run is an encoder that anything can take up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.config import load_config
from src.config.data import STANDARD_LEADS
from src.data.inputs import open_shards
from src.evaluation.encoder import load_encoder, random_encoder
from src.masks.block import on_all
from src.models.any_config import read_encoder_section
from src.models.config import S4Config
from src.randomness import Streams
from src.transforms.preprocessing import Preprocessing
from ssls.jepa.config import LossConfig, ModelConfig
from ssls.jepa.model import JEPA, hide
from ssls.jepa.train import Collate
from ssls.objectives import schema_of
from tests.commands import metrics, succeed

ROOT = Path(__file__).resolve().parents[3]
MODALITIES = ["image", "video", "ct"]
SIDES = {"image": (1, 32, 32), "video": (1, 8, 32, 32), "ct": (2, 16, 32, 32)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder of each modality, with its shards beside it."""
    folder = tmp_path_factory.mktemp("runs")
    for modality in MODALITIES:
        root = folder / modality
        words = [f"data.root={root / 'shards'}", f"logging.folder={root / 'run'}", "optimization.epochs=null"]
        words += ["optimization.warmup_epochs=null", "optimization.steps=6", "optimization.warmup_steps=1"]
        succeed("--fname", f"configs/jepa/{modality}_debug.yaml", "--devices", "cpu", "--set", *words)
    return folder


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_run_trains_and_its_encoder_takes_samples_of_shards(runs, modality):
    lines = metrics(runs / modality / "run")
    assert len(lines) == 6 and all(np.isfinite(line["loss"]) for line in lines)
    health = json.loads((runs / modality / "run" / "health.jsonl").read_text().splitlines()[-1])
    assert health["rankme"] > 1 and health["random_init/rankme"] > 1 and 0 < health["between_samples"] <= 1
    encoder = load_encoder(runs / modality / "run")
    assert (encoder.preprocessing.modality, encoder.config.sides) == (modality, SIDES[modality][1:])
    config = load_config(
        ROOT / f"configs/jepa/{modality}_debug.yaml", [f"data.root={runs / modality / 'shards'}"], schema_of
    )
    with open_shards(config.data, "val") as shards:
        samples = shards.read(np.arange(len(shards)))
    features = encoder.embed_samples(samples, windows=1)
    assert features.shape == (len(samples), encoder.config.token_width)
    assert np.allclose(features[1:2], encoder.embed_samples(samples[1:2], windows=1), atol=1e-6)
    drawn = random_encoder(encoder, 0).embed_samples(samples, windows=1)
    assert not np.allclose(drawn, features, atol=1e-3)
    with pytest.raises(ValueError, match=f"the encoder takes {modality}, not ECGs: use embed_samples"):
        encoder.embed(np.zeros((1, 12, 100)))


@pytest.mark.parametrize("modality", MODALITIES)
def test_features_and_a_linear_probe_of_a_run(runs, modality, tmp_path):
    root, run = runs / modality / "shards", runs / modality / "run"
    given = [f"data.root={root}", f"init_from={run}", "data.tests={val: {split: val}}", "data.validation=null"]
    given += ["rows.raw=samples", "scores.draws=20", f"logging.folder={tmp_path}", "head.folds=2", "features.windows=1"]
    succeed("--fname", "configs/probe/ecg_debug.yaml", "--devices", "cpu", "--set", *given)
    rows = json.loads((tmp_path / "results.json").read_text())["tests"]["val"]["scores"]
    assert set(rows) == {"pretrained", "random_init", "raw"}


def test_an_encoder_is_loaded_for_inputs_of_another_size(runs):
    encoder = load_encoder(runs / "image" / "run", sides=(48, 48))
    assert (encoder.config.grid, encoder.preprocessing.size) == ((12, 12), 48)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1, 48, 48)).shape == (1, 144, 32)
    clip = load_encoder(runs / "video" / "run", sides=(16, 32, 32))
    assert (clip.config.grid, clip.preprocessing.clip.frames) == ((8, 4, 4), 16)
    with pytest.raises(ValueError, match=r"has 2 sides, \[32, 32\], not \[48\]"):
        load_encoder(runs / "image" / "run", sides=(48,))
    with pytest.raises(ValueError, match=r"can't be \[30, 30\]"):
        load_encoder(runs / "image" / "run", sides=(30, 30))


def test_a_run_starts_from_learned_positions_of_another_length(tmp_path):
    """As a cooldown with more frames does; under an engine that reads parts of tensors too."""
    words = [
        "--fname",
        "configs/jepa/image_debug.yaml",
        "--devices",
        "cpu",
        "--set",
        f"data.root={tmp_path / 'shards'}",
    ]
    words += ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.warmup_steps=0"]
    words += ["model.encoder.positions=learned", "evaluation.every=null", "optimization.weight_decay=0"]
    words += ["optimization.final_weight_decay=0"]
    succeed(*words, "optimization.steps=4", f"logging.folder={tmp_path / 'small'}")
    larger = ["data.transform.size=48", "model.encoder.input=[48, 48]", f"init_from={tmp_path / 'small'}"]
    larger += [
        "model.teacher.momentum=1",
        "optimization.steps=1",
        "optimization.lr=1e-12",
        "optimization.final_lr=0",
        "optimization.start_lr=0",
    ]
    wanted = load_encoder(tmp_path / "small", sides=(48, 48)).network.state_dict()
    for engine in ("plain", "fsdp"):
        succeed(*words, *larger, f"engine.name={engine}", f"logging.folder={tmp_path / engine}")
        found = load_encoder(tmp_path / engine).network.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in found)
    assert wanted["places.learned"].shape == (1, 144, 32)


S4 = S4Config(name="s4", leads=2, length=40, patch=4, width=8, depth=1)


def test_an_encoder_that_can_leave_nothing_out_sees_zeros_instead():
    torch.manual_seed(0)
    jepa = JEPA(
        ModelConfig.model_validate({"encoder": S4, "predictor": {"width": 8, "depth": 1, "heads": 2}}), LossConfig()
    )
    signal, context = torch.randn(3, 2, 40), torch.tensor([[0, 2, 9], [1, 2, 3], [4, 5, 6]])
    seen = jepa.see(signal, context)
    hidden = signal.clone()
    for row, kept in enumerate(context.tolist()):
        for token in set(range(10)) - set(kept):
            hidden[row, :, 4 * token : 4 * token + 4] = 0
    wanted = jepa.student(hidden)
    assert torch.equal(seen, torch.stack([wanted[row, kept] for row, kept in enumerate(context.tolist())]))
    batch = {"ecg": signal, "context": context, "targets": torch.tensor([[[7, 8]], [[7, 8]], [[0, 1]]])}
    jepa(batch)["prediction"].backward()
    assert all(parameter.grad is not None for parameter in jepa.student.parameters())


def test_what_is_hidden_of_a_picture_is_whole_patches():
    signal = torch.ones(1, 3, 5, 6)  # the last patch of 2 rows is cut short
    seen = hide(signal, torch.tensor([[1, 5]]), (3, 3))
    wanted = torch.zeros(5, 6)
    wanted[0:2, 2:4], wanted[2:4, 4:6] = 1, 1
    assert torch.equal(seen, wanted.expand(1, 3, 5, 6))


def collate(encoder):
    config = load_config(ROOT / "configs" / "jepa" / "ecg_debug.yaml", [], schema_of)
    model = config.model.model_copy(update={"encoder": encoder})
    config = config.model_copy(update={"model": model})
    preprocessing = Preprocessing(leads=STANDARD_LEADS, sampling_rate=100.0, length=400, normalize="none", clip=None)
    return Collate(config, preprocessing)


def masks_of(made, count=4):
    """A batch of masks alone."""
    made.input = lambda step, samples, streams: {}
    return made(0, [None] * count, Streams.of_samples(0, np.zeros(count, np.int64), np.arange(count)))


def lead_encoder(**keys):
    section = {"name": "ecg_lead_tiny", "leads": 12, "length": 400, "patch": 10, "width": 16, "depth": 3, "heads": 2}
    return read_encoder_section(json.dumps(section | keys))


def test_masks_over_time_are_the_same_on_all_leads():
    batch = masks_of(collate(lead_encoder()))
    for tokens in (batch["context"], batch["targets"][:, 0]):
        leads = tokens.reshape(4, 12, -1)
        assert torch.equal(leads - 40 * torch.arange(12)[:, None], leads[:, :1].expand_as(leads))
        assert leads[:, 0].min() >= 0 and leads[:, 0].max() < 40
    assert on_all(np.array([[0, 3]]), 2, 5).tolist() == [[0, 3, 5, 8]]


def test_branches_come_with_the_batch_where_some_are_dropped():
    plain, dropping = masks_of(collate(lead_encoder())), masks_of(collate(lead_encoder(drop_path=0.5)), 400)
    assert "branches" not in plain and dropping["branches"].shape == (400, 3, 2)
    assert dropping["branches"][:, 0].all() and abs(dropping["branches"][:, 2].float().mean() - 0.5) < 0.06


def test_the_student_drops_branches_and_the_teacher_never():
    torch.manual_seed(0)
    section = ModelConfig.model_validate({"encoder": lead_encoder(drop_path=0.5)})
    jepa = JEPA(section, LossConfig())
    context = torch.arange(0, 480, 2).expand(2, -1)
    batch = {"ecg": torch.randn(2, 12, 400), "context": context, "targets": torch.tensor([[[1, 3]], [[1, 3]]])}
    kept, dropped = torch.ones(2, 3, 2, dtype=torch.bool), torch.zeros(2, 3, 2, dtype=torch.bool)
    losses = [jepa(batch | {"branches": branches})["prediction"] for branches in (kept, dropped)]
    assert losses[0] != losses[1] and torch.equal(jepa.whole(batch), jepa.whole(batch | {"branches": dropped}))
    tokens = jepa.see(batch["ecg"], context, dropped)
    embedded = jepa.student.places(jepa.student.patch_embed(batch["ecg"].unsqueeze(1)), None)[0]
    assert torch.allclose(
        tokens, jepa.student.norm(embedded.gather(1, context[..., None].expand(-1, -1, 16))), atol=1e-6
    )
