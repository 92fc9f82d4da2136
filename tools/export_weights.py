"""An encoder of this project as a model of transformers, for whoever works with those.

python -m tools.export_weights --encoder runs/mine --output published/mine
model = AutoModel.from_pretrained("published/mine")

Images become I-JEPA, videos and volumes V-JEPA 2 with the run's predictor, a backbone of transformers what it was.
Other architectures are refused, by the key that has no place there. docs/weights.md tells more.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.checkpoints.read import Checkpoint
from src.evaluation.encoder import Encoder, find_checkpoint, load_encoder
from src.models.backbone import TransformersBackbone
from src.models.config import PredictorConfig
from src.models.predictor import Predictor
from src.models.published import to_ijepa, to_vjepa2
from src.models.vit import VisionTransformer
from src.transforms.plain import ImagePreprocessing, VideoPreprocessing
from src.transforms.processor import to_processor


def as_transformers(path: Path) -> tuple[Any, Encoder]:
    """The model of transformers with the weights of an encoder, and that encoder.

    Raises:
        ValueError: no class of transformers has its architecture, or V-JEPA 2's predictor is not at hand.
    """
    encoder = load_encoder(path)
    network = encoder.network
    if isinstance(network, TransformersBackbone):
        return network.model, encoder
    if not isinstance(network, VisionTransformer):
        raise ValueError(f"model.encoder.name: transformers has no class with the layers of a {type(network).__name__}")
    if len(encoder.config.sides) != 3:
        return to_ijepa(network), encoder
    checkpoint = _checkpoint_of(path)
    encoder = load_encoder(checkpoint.folder)
    assert isinstance(encoder.network, VisionTransformer)
    return to_vjepa2(encoder.network, read_predictor(checkpoint, encoder.network)), encoder


def _checkpoint_of(path: Path) -> Checkpoint:
    try:
        return find_checkpoint(path)
    except ValueError as error:
        raise ValueError(
            f"{path} has no predictor, which V-JEPA 2 has: name a run folder with checkpoints, or one of them ({error})"
        ) from None


def read_predictor(checkpoint: Checkpoint, encoder: VisionTransformer) -> Predictor:
    """The predictor in a JEPA's checkpoint.

    Raises:
        ValueError: it has none.
    """
    model = checkpoint.manifest.identity.get("model", {})
    if "predictor" not in model:
        raise ValueError(f"{checkpoint.folder} has no predictor, which V-JEPA 2 has: name a JEPA's")
    section = PredictorConfig.model_validate_json(json.dumps(model["predictor"]))
    predictor = Predictor(section, encoder.width, encoder.config.grid, encoder.config.positions)
    for name, tensor in predictor.state_dict().items():
        tensor.copy_(checkpoint.read("model", f"predictor.{name}", tuple(tensor.shape)))
    return predictor


def write(model: Any, encoder: Encoder, output: Path) -> None:
    """Write the model and its processor into the new folder `output`, which is whole or not there."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output: {output} is there already; name a new folder")
    draft = output.with_name(output.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    preprocessing = encoder.preprocessing
    if isinstance(preprocessing, ImagePreprocessing | VideoPreprocessing):
        name, said = to_processor(preprocessing)
        (draft / name).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    else:
        print(f"no processor of transformers makes its input: see {preprocessing.modality} in docs/weights.md")
    draft.replace(output)
    print(f"{type(model).__name__} of {list(encoder.config.sides)}: {output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.export_weights", description="An encoder, for others.")
    parser.add_argument("--encoder", type=Path, required=True, help="run folder, checkpoint or exported encoder/")
    parser.add_argument("--to", choices=("transformers",), default="transformers", help="whose format")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the model and its processor")
    words = parser.parse_args(arguments)
    try:
        write(*as_transformers(words.encoder), words.output)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
