"""python -m tools.import_weights: weights of others are an encoder, and a start of training, as a run leaves them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    IJepaConfig,
    IJepaForImageClassification,
    IJepaModel,
    SegformerConfig,
    ViTConfig,
    ViTModel,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
)

from src.config.data import SyntheticConfig
from src.config.load import load_config
from src.data.shards import Shards
from src.data.synthetic import make_synthetic
from src.evaluation.encoder import load_encoder
from src.models.published import from_ijepa, from_vjepa2
from ssls.objectives import schema_of
from tests.commands import ROOT, succeed
from tests.config.record_reads import experiment
from tools.embed import main as embed
from tools.import_weights import main

SIZE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
IJEPA = IJepaConfig(**SIZE, image_size=32, patch_size=8, num_channels=1, layer_norm_eps=1e-6)
PREDICTOR = {"pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
VJEPA2 = VJEPA2Config(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    in_chans=1,
    frames_per_clip=8,
    crop_size=32,
    patch_size=8,
    **PREDICTOR,
    pred_num_mask_tokens=2,
)
CLOSE = {"rtol": 0.0, "atol": 1e-5}


def saved(folder, kind, config, **processor):
    """A model of transformers with random weights, and the file of its processor."""
    torch.manual_seed(0)
    model = kind(config).eval()
    model.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def take(capsys, source, output, *more):
    """(exit code, stdout, stderr)."""
    code = main(["--from", str(source), "--output", str(output), *map(str, more)])
    said = capsys.readouterr()
    return code, said.out, "\n".join(line for line in said.err.splitlines() if line.startswith("error: "))


def test_ijepa_is_an_encoder_that_embeds_images(tmp_path, capsys):
    model = saved(tmp_path / "theirs", IJepaModel, IJEPA, image_mean=[0.3], image_std=[0.2])
    code, out, _ = take(capsys, tmp_path / "theirs", tmp_path / "ours")
    assert code == 0 and "[4, 4] x 24" in out
    shutil.rmtree(tmp_path / "theirs")
    encoder = load_encoder(tmp_path / "ours")
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(encoder(images), model(images).last_hidden_state, **CLOSE)
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == ((0.3,), (0.2,))

    make_synthetic(tmp_path / "shards", SyntheticConfig(samples=16, sides=(32, 32)), (), "image")
    words = ["--encoder", tmp_path / "ours", "--shards", tmp_path / "shards", "--split", "val"]
    assert embed([str(word) for word in [*words, "--output", tmp_path / "features"]]) == 0
    features = np.load(tmp_path / "features" / "features.npy")
    with Shards(tmp_path / "shards", "val") as shards:
        pixels = torch.from_numpy(np.stack([sample["image"] for sample in shards.read(np.arange(len(shards)))]))
    theirs = model((pixels.float().unsqueeze(1) / 255 - 0.3) / 0.2).last_hidden_state.mean(1)
    np.testing.assert_allclose(features, theirs.detach().numpy(), rtol=0.0, atol=1e-5)


def test_vjepa2_is_an_encoder_of_clips_at_the_rate_that_it_was_trained_on(tmp_path, capsys):
    size = {"do_center_crop": True, "size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    model = saved(tmp_path / "theirs", VJEPA2Model, VJEPA2, **size)
    assert take(capsys, tmp_path / "theirs", tmp_path / "ours")[0] == 0
    encoder, videos = load_encoder(tmp_path / "ours"), torch.randn(2, 1, 8, 32, 32)
    theirs = model(videos.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encoder(videos), theirs, **CLOSE)
    own = encoder.preprocessing
    assert (own.size, own.shorter_side, own.clip.frames, own.clip.rate) == (32, 36, 8, 4.0)
    assert take(capsys, tmp_path / "theirs", tmp_path / "slow", "--stride", 2)[0] == 0
    clip = load_encoder(tmp_path / "slow").preprocessing.clip
    assert (clip.stride, clip.rate) == (2, None)


def test_another_backbone_is_an_encoder_that_needs_its_folder_no_more(tmp_path, capsys):
    """DINOv2's images are smaller than its config says; its processor tells the size."""
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    size = {"do_center_crop": True, "size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    model = saved(tmp_path / "theirs", Dinov2Model, config, **size)
    assert take(capsys, tmp_path / "theirs", tmp_path / "ours")[0] == 0
    shutil.rmtree(tmp_path / "theirs")
    encoder, images = load_encoder(tmp_path / "ours"), torch.randn(2, 3, 28, 28)
    assert (encoder.preprocessing.size, encoder.preprocessing.shorter_side) == (28, 32)
    torch.testing.assert_close(encoder(images), model(images).last_hidden_state[:, 1:], **CLOSE)


@pytest.mark.parametrize(
    ("kind", "config"), [(IJepaForImageClassification, IJEPA), (VJEPA2ForVideoClassification, VJEPA2)]
)
def test_a_classifier_lends_its_backbone(tmp_path, capsys, kind, config):
    model = saved(tmp_path / "theirs", kind, config)
    assert take(capsys, tmp_path / "theirs", tmp_path / "ours")[0] == 0
    encoder = load_encoder(tmp_path / "ours")
    backbone = from_ijepa(model.ijepa) if kind is IJepaForImageClassification else from_vjepa2(model.vjepa2)[0]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(encoder.network.state_dict()[name], tensor), name


def checkpoint_of_the_authors(path):
    """As theirs, of a ViT-Ti of two blocks on 16 tokens and a predictor of one."""
    generator = torch.Generator().manual_seed(3)

    def network(blocks, width, depth, **others):
        shapes = {f"norm{k}.{part}": (width,) for k in (1, 2) for part in ("weight", "bias")}
        layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
        for name, (outer, inner) in layers.items():
            shapes |= {f"{name}.weight": (outer * width, inner * width), f"{name}.bias": (outer * width,)}
        shapes = {f"{blocks}.{n}.{name}": shape for n in range(depth) for name, shape in shapes.items()}
        found = shapes | {name.replace("__", "."): shape for name, shape in others.items()}
        return {f"module.{name}": 0.1 * torch.randn(*shape, generator=generator) for name, shape in found.items()}

    embed = {"patch_embed__proj__weight": (192, 1, 8, 8), "patch_embed__proj__bias": (192,)}
    encoder = embed | {"pos_embed": (1, 16, 192), "norm__weight": (192,), "norm__bias": (192,)}
    inner = {"mask_token": (1, 1, 24), "predictor_pos_embed": (1, 16, 24)}
    inner |= {"predictor_embed__weight": (24, 192), "predictor_embed__bias": (24,)}
    inner |= {"predictor_proj__weight": (192, 24), "predictor_proj__bias": (192,)}
    inner |= {"predictor_norm__weight": (24,), "predictor_norm__bias": (24,)}
    saved = {name: network("blocks", 192, 2, **encoder) for name in ("encoder", "target_encoder")}
    torch.save(saved | {"predictor": network("predictor_blocks", 24, 1, **inner), "epoch": 300}, path)
    return path


def tensors(folder, network):
    """Of a network in the only checkpoint of a folder, by their names."""
    (checkpoint,) = (folder / "checkpoints").iterdir()
    start = f"model/{network}."
    found = load_file(checkpoint / "rank-00000.safetensors")
    return {name.removeprefix(start): tensor for name, tensor in found.items() if name.startswith(start)}


def test_a_checkpoint_of_the_authors_is_an_encoder_and_a_start(tmp_path, capsys):
    path = checkpoint_of_the_authors(tmp_path / "in1k.pth.tar")
    code, out, _ = take(capsys, path, tmp_path / "ours", "--for-training", "--predictor-heads", 2)
    assert code == 0 and "drawn" not in out
    theirs = torch.load(path, weights_only=True)
    for network, their in {"student": "encoder", "teacher": "target_encoder"}.items():
        found, expected = tensors(tmp_path / "ours", network), theirs[their]["module.blocks.1.attn.qkv.weight"]
        assert torch.equal(found["blocks.1.attn.qkv.weight"].view(-1), expected.view(-1))
    assert load_encoder(tmp_path / "ours").config.size == (192, 2, 3)


SHORT = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.steps=2", "evaluation.every=null"]


@pytest.mark.parametrize(
    ("kind", "config", "base", "more"),
    [
        (IJepaModel, IJEPA, "image_debug", ("--predictor", 16, 1, 2)),
        (VJEPA2Model, VJEPA2, "video_debug", ("--rate", 12.5)),
    ],
)
def test_a_jepa_starts_from_it(tmp_path, capsys, kind, config, base, more):
    """Its first checkpoint, after two steps at a learning rate of zero, holds the imported weights."""
    saved(tmp_path / "theirs", kind, config)
    code, out, _ = take(capsys, tmp_path / "theirs", tmp_path / "ours", "--for-training", *more)
    assert code == 0 and ("its predictor is drawn" in out) == (kind is IJepaModel)
    tree = yaml.safe_load((ROOT / "configs" / "jepa" / f"{base}.yaml").read_text())
    tree |= yaml.safe_load((tmp_path / "ours" / "model.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    places = [
        f"data.root={tmp_path / 'shards'}",
        f"logging.folder={tmp_path / 'run'}",
        f"init_from={tmp_path / 'ours'}",
    ]
    still = ["optimization.lr=1e-30", "optimization.weight_decay=0", "optimization.final_weight_decay=0"]
    experiment(load_config(tmp_path / "run.yaml", [*SHORT, *still, *places], schema_of), check=False)
    assert "starting from the weights of" in capsys.readouterr().out
    for network in ("student", "teacher", "predictor"):
        found, expected = tensors(tmp_path / "run", network), tensors(tmp_path / "ours", network)
        assert found.keys() == expected.keys() and found
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "config", "processor", "message"),
    [
        (IJepaModel, IJepaConfig(**SIZE, image_size=32, patch_size=8), {}, "IJepaConfig.layer_norm_eps is 1e-12"),
        (IJepaModel, IJEPA, {"rescale_factor": 1.0}, "set do_rescale, and rescale_factor to 1/255"),
        (IJepaModel, IJEPA, {"image_mean": [0.1, 0.2]}, "image_mean and image_std must be 1 numbers"),
        (ViTModel, ViTConfig(**SIZE, image_size=(32, 16), patch_size=8), {}, "pictures are squares of 1 or 3 channels"),
    ],
)
def test_what_has_no_place_here_is_told_in_a_sentence(tmp_path, capsys, kind, config, processor, message):
    saved(tmp_path / "theirs", kind, config, **processor)
    code, _, err = take(capsys, tmp_path / "theirs", tmp_path / "ours")
    assert code == 1 and message in err and not (tmp_path / "ours").exists()


def test_what_is_no_model_is_told_in_a_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pth.tar").write_bytes(b"no tensors")
    SegformerConfig().save_pretrained(tmp_path / "other")
    saved(tmp_path / "lacking", IJepaModel, IJEPA)
    content = json.loads((tmp_path / "lacking" / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "lacking" / "config.json").write_text(json.dumps(content))
    told = {
        "empty": "has no config.json of a model that transformers knows",
        "file.pth.tar": "is no checkpoint of I-JEPA",
        "other": "whose tokens have no place that is known here",
        "lacking": "lacks weights of its model, such as layers.2.",
        "nowhere/at/all": "has no config.json of a model that transformers knows",
    }
    for name, message in told.items():
        code, _, err = take(capsys, tmp_path / name, tmp_path / "ours")
        assert code == 1 and message in err and not (tmp_path / "ours").exists(), err


def test_only_what_is_built_here_is_a_start_and_a_folder_that_is_taken_stays(tmp_path, capsys):
    saved(tmp_path / "vit", ViTModel, ViTConfig(**SIZE, image_size=32, patch_size=8))
    code, _, err = take(capsys, tmp_path / "vit", tmp_path / "ours", "--for-training")
    assert code == 1 and "model.encoder: {name: transformers, folder: ...}" in err
    code, _, err = take(capsys, tmp_path / "vit", tmp_path / "vit")
    assert code == 1 and "is there already; name a new folder" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rate", 4), "--rate and --stride are of videos, and"),
        (("--predictor", 16, 1, 2), "--predictor is of --for-training: give both or neither"),
        (("--for-training", "--predictor", 16, 1, 3), "width 16 must be even and divisible by heads 3"),
    ],
)
def test_flags_that_do_not_go_together_are_told_in_a_sentence(tmp_path, capsys, more, message):
    saved(tmp_path / "theirs", IJepaModel, IJEPA)
    code, _, err = take(capsys, tmp_path / "theirs", tmp_path / "ours", *more)
    assert code == 1 and message in err and not (tmp_path / "ours").exists()


def test_code_in_a_folder_is_not_run(tmp_path, capsys):
    saved(tmp_path / "theirs", ViTModel, ViTConfig(**SIZE, image_size=32, patch_size=8))
    path = Path(tmp_path / "theirs" / "config.json")
    content = json.loads(path.read_text()) | {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    path.write_text(json.dumps(content))
    (tmp_path / "theirs" / "mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    assert take(capsys, tmp_path / "theirs", tmp_path / "ours")[0] == 1
    assert not (tmp_path / "was_run").exists()


@pytest.mark.distributed
def test_the_command_runs_from_the_repositorys_root(tmp_path):
    saved(tmp_path / "theirs", IJepaModel, IJEPA)
    words = ["--from", str(tmp_path / "theirs"), "--output", str(tmp_path / "ours")]
    assert "an encoder with 0.0 M parameters of [32, 32]" in succeed("tools.import_weights", *words, script="-m")
