"""Published JEPA weights, into this project's encoders and predictors and back.

encoder, predictor = from_vjepa2(VJEPA2Model.from_pretrained(folder))
model = to_ijepa(encoder)                       # for whoever works with transformers

Transformers' I-JEPA and V-JEPA 2, and the files that I-JEPA's authors published. Other architectures are refused.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from src.models.build import build_encoder
from src.models.config import VISION_SIZES, PredictorConfig, VisionEncoderConfig, pair
from src.models.predictor import Predictor
from src.models.vit import VisionTransformer

if TYPE_CHECKING:
    from transformers import IJepaModel, VJEPA2Model

EPS = 1e-6
"""Of every LayerNorm here, and of those of the published weights."""
PARTS = ("weight", "bias")
QKV = "blocks.{n}.attn.qkv"


@dataclass(frozen=True)
class Layout:
    """How somebody names the layers of ours; {n} is the number of a block."""

    layers: dict[str, str]
    qkv: tuple[str, ...] = ()
    """Where theirs are three layers, and ours is one: those of queries, keys and values."""

    def ours(self, state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
        """Their tensors by our names."""
        found = {
            f"{own}.{part}": state[f"{their}.{part}"] for own, their in self._numbered(depth).items() for part in PARTS
        }
        for n in range(depth if self.qkv else 0):
            for part in PARTS:
                three = [state[f"{their.format(n=n)}.{part}"] for their in self.qkv]
                found[f"{QKV.format(n=n)}.{part}"] = torch.cat(three)
        return found

    def theirs(self, state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
        """Our tensors by their names."""
        found = {
            f"{their}.{part}": state[f"{own}.{part}"] for own, their in self._numbered(depth).items() for part in PARTS
        }
        for n in range(depth if self.qkv else 0):
            for part in PARTS:
                three = state[f"{QKV.format(n=n)}.{part}"].chunk(3)
                found |= {f"{their.format(n=n)}.{part}": one for their, one in zip(self.qkv, three, strict=True)}
        return found

    def _numbered(self, depth: int) -> dict[str, str]:
        return {own.format(n=n): their.format(n=n) for own, their in self.layers.items() for n in range(depth)}


def _blocks(their: str, **layers: str) -> dict[str, str]:
    return {f"blocks.{{n}}.{own.replace('_', '.')}": f"{their}.{layer}" for own, layer in layers.items()}


IJEPA = Layout(
    {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        **_blocks("layers.{n}", norm1="layernorm_before", norm2="layernorm_after", attn_proj="attention.o_proj"),
        **_blocks("layers.{n}", mlp_fc1="mlp.fc1", mlp_fc2="mlp.fc2"),
        "norm": "layernorm",
    },
    tuple(f"layers.{{n}}.attention.{name}_proj" for name in "qkv"),
)
_VJEPA2_BLOCK = {"norm1": "norm1", "norm2": "norm2", "attn_proj": "attention.proj"}
_VJEPA2_BLOCK |= {"mlp_fc1": "mlp.fc1", "mlp_fc2": "mlp.fc2"}
_VJEPA2_QKV = ("attention.query", "attention.key", "attention.value")
VJEPA2 = Layout(
    {
        "patch_embed.proj": "encoder.embeddings.patch_embeddings.proj",
        **_blocks("encoder.layer.{n}", **_VJEPA2_BLOCK),
        "norm": "encoder.layernorm",
    },
    tuple(f"encoder.layer.{{n}}.{name}" for name in _VJEPA2_QKV),
)
VJEPA2_PREDICTOR = Layout(
    {
        "predictor_embed": "predictor.embeddings.predictor_embeddings",
        **_blocks("predictor.layer.{n}", **_VJEPA2_BLOCK),
        "norm": "predictor.layernorm",
        "predictor_proj": "predictor.proj",
    },
    tuple(f"predictor.layer.{{n}}.{name}" for name in _VJEPA2_QKV),
)
_TIMM_BLOCK = {"norm1": "norm1", "norm2": "norm2", "attn_qkv": "attn.qkv", "attn_proj": "attn.proj"}
_TIMM_BLOCK |= {"mlp_fc1": "mlp.fc1", "mlp_fc2": "mlp.fc2"}
AUTHORS = Layout({"patch_embed.proj": "patch_embed.proj", **_blocks("blocks.{n}", **_TIMM_BLOCK), "norm": "norm"})
AUTHORS_PREDICTOR = Layout(
    {
        "predictor_embed": "predictor_embed",
        **_blocks("predictor_blocks.{n}", **_TIMM_BLOCK),
        "norm": "predictor_norm",
        "predictor_proj": "predictor_proj",
    }
)
MASK_TOKENS, POSITIONS = "predictor.embeddings.mask_tokens", "embeddings.position_embeddings"


def from_ijepa(model: IJepaModel) -> VisionTransformer:
    """The encoder of transformers' I-JEPA; its positions are learned ones here, as they are parameters there.

    Raises:
        ValueError: an architecture that is not built here.
    """
    config = model.config
    _refuse(config, qkv_bias=True, hidden_act="gelu", layer_norm_eps=EPS)
    encoder = build_encoder(
        _vision(
            size=(config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size),
            colors=config.num_channels,
            input=pair(config.image_size),
            patch=pair(config.patch_size),
            positions="learned",
        )
    )
    state = model.state_dict()
    _fill(encoder, IJEPA.ours(state, len(encoder.blocks)) | {"places.learned": state[POSITIONS]})
    return encoder


def to_ijepa(encoder: VisionTransformer) -> IJepaModel:
    """Transformers' I-JEPA with an encoder's weights.

    Raises:
        ValueError: it has no place for them: no encoder of images, turning positions, registers, oblong inputs.
    """
    from transformers import IJepaConfig, IJepaModel

    config = _exportable(encoder, "I-JEPA", axes=2, positions=("sincos", "learned"))
    width, depth, heads = config.size
    model = IJepaModel(
        IJepaConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=config.mlp_width,
            num_channels=config.channels,
            image_size=config.sides[0],
            patch_size=config.patches[0],
            layer_norm_eps=EPS,
        )
    )
    places = encoder.places.waves if encoder.places.learned is None else encoder.places.learned[0]
    assert places is not None
    _fill(model, IJEPA.theirs(encoder.state_dict(), depth) | {POSITIONS: places.unsqueeze(0)})
    return model


def from_vjepa2(model: VJEPA2Model) -> tuple[VisionTransformer, Predictor]:
    """Encoder and predictor of transformers' V-JEPA 2, whose positions turn as the published code does.

    Raises:
        ValueError: an architecture that is not built here.
    """
    config = model.config
    _refuse(config, qkv_bias=True, hidden_act="gelu", layer_norm_eps=EPS, pred_mlp_ratio=4.0)
    mlp_width = int(config.hidden_size * config.mlp_ratio)
    patch = pair(config.patch_size)
    encoder = build_encoder(
        _vision(
            size=(config.hidden_size, config.num_hidden_layers, config.num_attention_heads, mlp_width),
            colors=config.in_chans,
            input=(config.frames_per_clip, config.crop_size, config.crop_size),
            patch=(config.tubelet_size, *patch),
            positions="rope_vjepa2",
        )
    )
    section = PredictorConfig(
        width=config.pred_hidden_size,
        depth=config.pred_num_hidden_layers,
        heads=config.pred_num_attention_heads,
        mask_tokens=config.pred_num_mask_tokens,
        zero_mask_tokens=config.pred_zero_init_mask_tokens,
    )
    predictor = Predictor(section, encoder.width, encoder.config.grid, encoder.config.positions)
    state = model.state_dict()
    _fill(encoder, VJEPA2.ours(state, len(encoder.blocks)))
    tokens = {f"mask_tokens.{kind}": token for kind, token in enumerate(state[MASK_TOKENS])}
    _fill(predictor, VJEPA2_PREDICTOR.ours(state, len(predictor.blocks)) | tokens)
    return encoder, predictor


def to_vjepa2(encoder: VisionTransformer, predictor: Predictor) -> VJEPA2Model:
    """Transformers' V-JEPA 2 with the weights of an encoder and its predictor.

    Raises:
        ValueError: it has no place for them: no encoder of videos, other positions, registers, oblong frames.
    """
    from transformers import VJEPA2Config, VJEPA2Model

    config = _exportable(encoder, "V-JEPA 2", axes=3, positions=("rope_vjepa2",))
    width, depth, heads = config.size
    section = predictor.config
    model = VJEPA2Model(
        VJEPA2Config(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            mlp_ratio=_ratio(config.mlp_width, width),
            in_chans=config.channels,
            frames_per_clip=config.sides[0],
            crop_size=config.sides[1],
            tubelet_size=config.patches[0],
            patch_size=config.patches[1],
            pred_hidden_size=section.width,
            pred_num_hidden_layers=section.depth,
            pred_num_attention_heads=section.heads,
            pred_num_mask_tokens=section.mask_tokens,
            pred_zero_init_mask_tokens=section.zero_mask_tokens,
        )
    )
    state = VJEPA2.theirs(encoder.state_dict(), depth)
    state |= VJEPA2_PREDICTOR.theirs(predictor.state_dict(), section.depth)
    _fill(model, state | {MASK_TOKENS: torch.stack(list(predictor.mask_tokens))})
    return model


class Authors(NamedTuple):
    """The networks in a checkpoint of I-JEPA's authors."""

    teacher: VisionTransformer
    """Their `target_encoder`, the average, which features are read off."""
    predictor: Predictor
    student: VisionTransformer
    """Their `encoder`, which was trained."""


def from_authors(path: Path | str, heads: int | None = None, predictor_heads: int = 12) -> Authors:
    """What a checkpoint of I-JEPA's authors (.pth.tar) holds.

    Sizes are read off the tensors, but for the heads, which leave no trace in them: without `heads` they are those of
    the usual ViT of that width (16 in the published ones; the published predictors have 12). Positions are fixed there
    and learned ones here.

    Raises:
        ValueError: no such file, or what it holds is not that.
    """
    path = Path(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        theirs, student = (_without_prefix(saved[name]) for name in ("target_encoder", "encoder"))
        inner = _without_prefix(saved["predictor"])
        section = _section_of(theirs, heads)
        teacher, trained = build_encoder(section), build_encoder(section)
        depth = _depth(inner, "predictor_blocks")
        narrow = PredictorConfig(width=len(inner["predictor_embed.weight"]), depth=depth, heads=predictor_heads)
        predictor = Predictor(narrow, section.token_width, section.grid, "learned")
        for encoder, state in ((teacher, theirs), (trained, student)):
            _fill(encoder, AUTHORS.ours(state, len(encoder.blocks)) | {"places.learned": state["pos_embed"]})
        own = {"mask_tokens.0": inner["mask_token"], "places.learned": inner["predictor_pos_embed"]}
        _fill(predictor, AUTHORS_PREDICTOR.ours(inner, depth) | own)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there") from None
    except (KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is no checkpoint of I-JEPA with target_encoder, encoder and predictor ({reason})"
        ) from None
    return Authors(teacher, predictor, trained)


def _section_of(theirs: Mapping[str, Tensor], heads: int | None) -> VisionEncoderConfig:
    """The section of an encoder of the authors', by its tensors.

    Raises:
        ValueError: the heads are not told, and no usual ViT is as wide.
    """
    D, C, side, _ = theirs["patch_embed.proj.weight"].shape
    grid = round(theirs["pos_embed"].shape[1] ** 0.5)
    usual = {width: count for width, _, count, _ in VISION_SIZES.values()}
    if heads is None and D not in usual:
        raise ValueError(f"an encoder {D} wide is no usual one, and its weights do not tell its heads: give --heads")
    return _vision(
        size=(D, _depth(theirs, "blocks"), heads or usual[D], len(theirs["blocks.0.mlp.fc1.weight"])),
        colors=C,
        input=(grid * side, grid * side),
        patch=(side, side),
        positions="learned",
    )


def _ratio(mlp_width: int, width: int) -> float:
    """What transformers multiplies with the width, and cuts off behind the point, to have that width of an MLP."""
    ratio = mlp_width / width
    return ratio if int(width * ratio) == mlp_width else math.nextafter(ratio, math.inf)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _depth(state: Mapping[str, Tensor], blocks: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{blocks}."))


def _vision(size: tuple[int, int, int, int], **keys: Any) -> VisionEncoderConfig:
    """The section of an encoder by its sizes: with the name of the usual one that it is or is nearest to."""
    width, depth, heads, hidden = size
    name = min(VISION_SIZES, key=lambda name: sum(a != b for a, b in zip(VISION_SIZES[name], size, strict=True)))
    usual = VISION_SIZES[name]
    own = {"width": width, "depth": depth, "heads": heads, "mlp_hidden": hidden}
    other = {key: value for (key, value), same in zip(own.items(), usual, strict=True) if value != same}
    if "width" in other:
        other["mlp_hidden"] = hidden
    return VisionEncoderConfig.model_validate({"name": name, **other, **keys})


def _refuse(config: Any, **wanted: Any) -> None:
    for key, value in wanted.items():
        if (found := getattr(config, key)) != value:
            raise ValueError(f"{type(config).__name__}.{key} is {found}; encoders here have {value}")


def _exportable(encoder: VisionTransformer, name: str, axes: int, positions: tuple[str, ...]) -> VisionEncoderConfig:
    config = encoder.config
    if not isinstance(config, VisionEncoderConfig) or len(config.sides) != axes:
        raise ValueError(f"an encoder of {len(config.sides)} axes has no place in {name}, which has {axes}")
    if config.positions not in positions:
        raise ValueError(f"positions: {config.positions} have no place in {name}; {' and '.join(positions)} do")
    if config.registers:
        raise ValueError(f"registers have no place in {name}")
    if config.sides[-1] != config.sides[-2] or config.patches[-1] != config.patches[-2]:
        raise ValueError(f"an input of {list(config.sides)} in patches of {list(config.patches)} is oblong, {name} not")
    return config


def _fill(module: nn.Module, state: dict[str, Tensor]) -> None:
    module.load_state_dict(state)
