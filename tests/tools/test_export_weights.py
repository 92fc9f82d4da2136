"""python -m tools.export_weights: transformers gives the tokens of our encoder, and they come back to the last bit."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, ViTConfig, ViTModel

from src.config.transforms import ClipConfig, WindowConfig
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder
from src.models.backbone_config import BackboneConfig
from src.models.config import EncoderConfig, PredictorConfig, S4Config, VisionEncoderConfig
from src.models.predictor import Predictor
from src.transforms.plain import CTPreprocessing, ImagePreprocessing, VideoPreprocessing
from src.transforms.preprocessing import Preprocessing
from tests.commands import succeed
from tools.export_weights import main
from tools.import_weights import Imported, write
from tools.import_weights import main as bring_back

SMALL = {"name": "vit_tiny", "width": 24, "depth": 2, "heads": 2}
IMAGE = VisionEncoderConfig(**SMALL, input=(32, 32), patch=(8, 8))
VIDEO = VisionEncoderConfig(**SMALL, input=(4, 32, 32), patch=(2, 8, 8), positions="rope_vjepa2")
PICTURE = {"size": 32, "channels": 3, "shorter_side": 36, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
OF_IMAGES = ImagePreprocessing(modality="image", **PICTURE)
OF_VIDEOS = VideoPreprocessing(modality="video", clip=ClipConfig(frames=4, rate=5.0), **PICTURE)
OF_VOLUMES = CTPreprocessing(modality="ct", size=(4, 32, 32), windows=(WindowConfig(center=40, width=400),) * 3)
OF_ECGS = Preprocessing(leads=("I", "II"), sampling_rate=100.0, length=40, normalize="sample", clip=None)
CLOSE = {"rtol": 0.0, "atol": 1e-5}


def run_folder(folder, config, preprocessing, predictor=None):
    """What a run leaves: its encoder, and with a predictor a checkpoint too."""
    torch.manual_seed(1)
    encoder = Encoder(config, preprocessing).eval()
    part = EncoderPart("teacher", config, preprocessing)
    if predictor is not None:
        predictor = Predictor(predictor, encoder.network.width, config.grid, config.positions)
    write(Imported(encoder.network, predictor=predictor), part, folder, training=predictor is not None)
    return encoder


def give(capsys, source, output):
    """(exit code, stdout, stderr)."""
    capsys.readouterr()
    code = main(["--encoder", str(source), "--to", "transformers", "--output", str(output)])
    said = capsys.readouterr()
    return code, said.out, "\n".join(line for line in said.err.splitlines() if line.startswith("error: "))


def same_weights(one, other):
    left, right = one.network.state_dict(), other.network.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_an_encoder_of_images_is_ijepa_and_comes_back(tmp_path, capsys, positions):
    config = IMAGE.model_copy(update={"positions": positions})
    encoder = run_folder(tmp_path / "run", config, OF_IMAGES)
    code, out, _ = give(capsys, tmp_path / "run", tmp_path / "theirs")
    assert code == 0 and "IJepaModel of [32, 32]" in out
    model, images = AutoModel.from_pretrained(tmp_path / "theirs").eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images).last_hidden_state, encoder(images), **CLOSE)

    assert bring_back(["--from", str(tmp_path / "theirs"), "--output", str(tmp_path / "back")]) == 0
    back = load_encoder(tmp_path / "back")
    assert back.preprocessing == encoder.preprocessing
    torch.testing.assert_close(back(images), encoder(images), rtol=0.0, atol=1e-6)
    own = back.network.state_dict()
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(own.pop(name), tensor), name
    assert set(own) == ({"places.learned"} if positions == "sincos" else set())


def test_its_processor_makes_the_same_input(tmp_path, capsys):
    """Of a picture that needs no resizing, which each library does its own way."""
    encoder = run_folder(tmp_path / "run", IMAGE, OF_IMAGES)
    assert give(capsys, tmp_path / "run", tmp_path / "theirs")[0] == 0
    picture = np.random.default_rng(0).integers(0, 256, (36, 40, 3), np.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "theirs")(Image.fromarray(picture), return_tensors="np")
    own = encoder.preprocessing.windows_of({"key": "one", "image": picture}, None)
    np.testing.assert_allclose(theirs["pixel_values"], own, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("preprocessing", [OF_VIDEOS, OF_VOLUMES], ids=["video", "ct"])
def test_a_run_on_videos_or_volumes_is_vjepa2_with_its_predictor(tmp_path, capsys, preprocessing):
    section = PredictorConfig(width=16, depth=1, heads=2, mask_tokens=2)
    encoder = run_folder(tmp_path / "run", VIDEO, preprocessing, section)
    code, out, _ = give(capsys, tmp_path / "run", tmp_path / "theirs")
    assert code == 0 and "VJEPA2Model of [4, 32, 32]" in out
    model, videos = AutoModel.from_pretrained(tmp_path / "theirs").eval(), torch.randn(2, 3, 4, 32, 32)
    theirs = model(videos.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(theirs, encoder(videos), **CLOSE)
    has_processor = (tmp_path / "theirs" / "video_preprocessor_config.json").exists()
    assert has_processor == (preprocessing is OF_VIDEOS) == ("no processor" not in out)

    words = ["--from", tmp_path / "theirs", "--output", tmp_path / "back", "--for-training", "--rate", 5]
    assert bring_back([str(word) for word in words]) == 0
    assert same_weights(load_encoder(tmp_path / "back"), encoder)
    assert preprocessing is OF_VOLUMES or load_encoder(tmp_path / "back").preprocessing == preprocessing
    first, second = (next((tmp_path / name / "checkpoints").glob("*/*.safetensors")) for name in ("run", "back"))
    assert first.read_bytes() == second.read_bytes()


def test_an_export_without_its_run_has_no_predictor_for_vjepa2(tmp_path, capsys):
    run_folder(tmp_path / "run", VIDEO, OF_VIDEOS, PredictorConfig(width=16, depth=1, heads=2))
    code, _, err = give(capsys, tmp_path / "run" / "encoder", tmp_path / "theirs")
    assert code == 1 and "has no predictor, which V-JEPA 2 has: name a run folder with checkpoints" in err


def test_a_backbone_goes_back_as_what_it_was_though_its_folder_is_gone(tmp_path, capsys):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    theirs = ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).eval()
    theirs.save_pretrained(tmp_path / "vit")
    config = BackboneConfig(name="transformers", folder=str(tmp_path / "vit"))
    encoder = Encoder(config, OF_IMAGES)
    encoder.network.model.load_state_dict(theirs.state_dict())
    export_encoder(tmp_path / "run" / "encoder", encoder.network.state_dict(), EncoderPart("x", config, OF_IMAGES))
    shutil.rmtree(tmp_path / "vit")
    assert give(capsys, tmp_path / "run", tmp_path / "again")[0] == 0
    images = torch.randn(2, 3, 32, 32)
    again = AutoModel.from_pretrained(tmp_path / "again").eval()
    torch.testing.assert_close(again(images).last_hidden_state, theirs(images).last_hidden_state)


@pytest.mark.parametrize(
    ("config", "preprocessing", "message"),
    [
        (IMAGE.model_copy(update={"registers": 1}), OF_IMAGES, "registers have no place in I-JEPA"),
        (IMAGE.model_copy(update={"positions": "rope"}), OF_IMAGES, "positions: rope have no place in I-JEPA"),
        (VIDEO.model_copy(update={"positions": "rope"}), OF_VIDEOS, "positions: rope have no place in V-JEPA 2"),
        (EncoderConfig(name="ecg_tiny", leads=2, length=40, patch=4, depth=1), OF_ECGS, "an encoder of 1 axes"),
        (S4Config(name="s4", leads=2, length=40, width=8, depth=1), OF_ECGS, "model.encoder.name: transformers has no"),
    ],
)
def test_an_architecture_without_a_class_is_told_by_its_key(tmp_path, capsys, config, preprocessing, message):
    predictor = PredictorConfig(width=16, depth=1, heads=2) if config.name == "vit_tiny" else None
    run_folder(tmp_path / "run", config, preprocessing, predictor)
    code, _, err = give(capsys, tmp_path / "run", tmp_path / "theirs")
    assert code == 1 and message in err and not (tmp_path / "theirs").exists()


def test_a_folder_that_is_taken_stays(tmp_path, capsys):
    run_folder(tmp_path / "run", IMAGE, OF_IMAGES)
    code, _, err = give(capsys, tmp_path / "run", tmp_path / "run")
    assert code == 1 and "is there already; name a new folder" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["encoder"]


@pytest.mark.distributed
def test_the_command_runs_from_the_repositorys_root(tmp_path):
    run_folder(tmp_path / "run", IMAGE, OF_IMAGES)
    words = ["--encoder", str(tmp_path / "run"), "--output", str(tmp_path / "theirs")]
    assert "IJepaModel of [32, 32]" in succeed("tools.export_weights", *words, script="-m")
    said = json.loads((tmp_path / "theirs" / "preprocessor_config.json").read_text())
    assert said["size"] == {"shortest_edge": 36} and said["crop_size"] == {"height": 32, "width": 32}
