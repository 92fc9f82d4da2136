"""Weights of others as an encoder of this project: embeddings, probes and new runs take it as they take a run.

python -m tools.import_weights --from facebook/ijepa_vith14_1k --output weights/ijepa
python -m tools.import_weights --from IN1K-vit.h.14-300e.pth.tar --output weights/ijepa --for-training

Takes transformers' I-JEPA, V-JEPA 2 and every backbone that `name: transformers` takes, from a folder or the hub, and
checkpoints of I-JEPA's authors. No code that comes with them is run. docs/weights.md tells more.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import yaml
from pydantic import ValidationError
from torch import nn

from src.checkpoints.manifest import Manifest
from src.checkpoints.write import write_checkpoint
from src.config.transforms import ClipConfig
from src.distributed.ranks import Ranks
from src.engines.engine import Piece
from src.evaluation.encoder import EncoderPart, export_encoder
from src.models.backbone import load_transformers
from src.models.backbone_config import BackboneConfig, read_architecture
from src.models.build import build_encoder
from src.models.config import PredictorConfig, VisionEncoderConfig
from src.models.encoder import AnyEncoder
from src.models.predictor import Predictor
from src.models.published import from_authors, from_ijepa, from_vjepa2
from src.transforms.processor import from_processor, read_processor, side_of

MODEL = "model.yaml"
PUBLISHED_RATE = 4.0
"""Frames per second that V-JEPA 2 was trained on."""
SHAPE = (384, 12, 12)
"""Width, depth and heads of I-JEPA's published predictors."""


class Imported(NamedTuple):
    """What a source holds, in networks of this project."""

    encoder: AnyEncoder
    student: AnyEncoder | None = None
    """Where it is another than the encoder."""
    predictor: Predictor | None = None
    rate: float | None = None
    """Frames per second of the clips that it was trained on; None is each frame."""
    said: Mapping[str, Any] = MappingProxyType({})
    """By its processor's file."""


def read(source: str, heads: int | None, predictor_heads: int) -> Imported:
    """The networks of a file of I-JEPA's authors, of a folder, or of a name on the hub.

    Raises:
        ValueError: nothing of these, an architecture that is not built here, or weights that are lacking.
    """
    if Path(source).is_file():
        found = from_authors(source, heads, predictor_heads)
        return Imported(found.teacher, found.student, found.predictor)
    kind, said = read_architecture(source).model_type, read_processor(source)
    if kind not in ("ijepa", "vjepa2"):
        return Imported(_backbone(source, said), said=said)
    model, missing = load_transformers(source)
    if missing:
        raise ValueError(f"{source} lacks weights of its model, such as {min(missing)}: save it again")
    if kind == "ijepa":
        return Imported(from_ijepa(model), said=said)
    encoder, predictor = from_vjepa2(model)
    return Imported(encoder, predictor=predictor, rate=PUBLISHED_RATE, said=said)


def _backbone(source: str, said: Mapping[str, Any]) -> AnyEncoder:
    """Any other model of transformers, with inputs of the size that its processor makes."""
    config = BackboneConfig(name="transformers", folder=source)
    side = side_of(said)
    if side is not None and side != config.sides[-1]:
        config = BackboneConfig(name="transformers", folder=source, input=(*config.sides[:-2], side, side))
    return build_encoder(config)


def write_start(folder: Path, found: Imported, part: EncoderPart) -> None:
    """Write a checkpoint of a JEPA that has trained no step, from which init_from starts, and its section `model`."""
    encoder, predictor = found.encoder, found.predictor
    assert predictor is not None
    model = {"encoder": encoder.config.model_dump(mode="json", exclude_defaults=True)}
    model["predictor"] = predictor.config.model_dump(mode="json", exclude_defaults=True)
    networks = {"student": found.student or copy.deepcopy(encoder), "teacher": encoder, "predictor": predictor}
    pieces = [
        Piece("model", f"{network}.{name}", tuple(tensor.shape), 0, tensor.detach().flatten())
        for network, module in networks.items()
        for name, tensor in module.named_parameters()
    ]
    manifest = Manifest(
        step=0,
        samples=0,
        attempt=1,
        world_size=1,
        engine="plain",
        optimizer_steps=0,
        identity={"objective": "jepa", "model": model},
        config_hash="",
        data_sha256="",
        state={},
        encoder=part.describe(),
    )
    write_checkpoint(folder / "checkpoints", manifest, pieces, Ranks(0, 1, torch.device("cpu")))
    (folder / MODEL).write_text(yaml.safe_dump({"model": model}, sort_keys=False))


def with_predictor(found: Imported, shape: Sequence[int]) -> Imported:
    """The same with a predictor, drawn where the source has none; torch's generator is left as it was.

    Raises:
        ValueError: the encoder is none that these predictors are trained beside.
    """
    encoder = found.encoder
    if not isinstance(encoder.config, VisionEncoderConfig):
        raise ValueError(
            "--for-training is for I-JEPA and V-JEPA 2: of other models a run takes the weights by "
            "model.encoder: {name: transformers, folder: ...}"
        )
    if found.predictor is not None:
        return found
    width, depth, heads = shape
    section = PredictorConfig(width=width, depth=depth, heads=heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = Predictor(section, encoder.width, encoder.config.grid, encoder.config.positions)
    print(f"its predictor is drawn ({width} wide, {depth} deep, {heads} heads): the weights come without one")
    return found._replace(predictor=drawn)


def write(found: Imported, part: EncoderPart, output: Path, training: bool) -> None:
    """Write encoder/, and for training a checkpoint and model.yaml beside it, into the new folder `output`."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output: {output} is there already; name a new folder")
    output.mkdir(parents=True, exist_ok=True)
    if training:
        write_start(output, found, part)
    export_encoder(output / "encoder", found.encoder.state_dict(), part)
    shape = f"{_millions(found.encoder)} of {list(part.config.sides)}, tokens {list(part.config.grid)}"
    print(f"an encoder with {shape} x {part.config.token_width}: {output / 'encoder'}")
    if training:
        print(f"init_from: {output} starts a JEPA from it whose model is that of {output / MODEL}")


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} M parameters"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    words = _parser().parse_args(arguments)
    try:
        found = read(words.source, words.heads, words.predictor_heads)
        config = found.encoder.config
        if len(config.sides) == 2 and (words.rate is not None or words.stride is not None):
            raise ValueError(f"--rate and --stride are of videos, and {words.source} takes images: leave them out")
        rate = words.rate if words.rate is not None else found.rate if words.stride is None else None
        clip = ClipConfig(rate=rate, stride=words.stride)
        part = EncoderPart("teacher", config, from_processor(found.said, config, clip))
        if words.for_training:
            found = with_predictor(found, words.predictor or SHAPE)
        elif words.predictor is not None:
            raise ValueError("--predictor is of --for-training: give both or neither")
        write(found, part, words.output, words.for_training)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"error: {'.'.join(map(str, first['loc'])) or error.title}: {first['msg']}", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.import_weights", description="Weights of others, for here.")
    add = parser.add_argument
    add("--from", dest="source", required=True, help="folder or hub name of transformers, or I-JEPA's .pth.tar")
    add("--output", type=Path, required=True, help="new folder, which is used as a run's")
    add("--for-training", action="store_true", help="also write student, teacher and predictor, for init_from")
    shape = ("WIDTH", "DEPTH", "HEADS")
    add("--predictor", type=int, nargs=3, metavar=shape, help="of the one drawn where there is none")
    add("--heads", type=int, help=".pth.tar: heads of the encoder, if it is as wide as no usual ViT")
    add("--predictor-heads", type=int, default=SHAPE[2], help=".pth.tar: heads of the predictor")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--rate", type=float, help="videos: frames per second of a clip; V-JEPA 2: 4, others: each frame")
    step.add_argument("--stride", type=int, help="videos: every so manieth frame instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
