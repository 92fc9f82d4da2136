"""Encoders of other libraries: any model of transformers, or of timm, that makes tokens of images or videos."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.models.backbone_config import BackboneConfig, TimmConfig
from src.models.encoder import AnyEncoder

# B batch, C channels, T frames, H height, W width of a map, L tokens, D width

SPECIAL = 2
"""So many tokens without a place may stand before the others, beside registers: class and distillation tokens."""


class TransformersBackbone(AnyEncoder):
    """The `last_hidden_state` of a model of transformers, without its class and register tokens.

    Weights come from safetensors alone and code from nowhere. What its last tokens do not depend on, such as a pooler
    or the mask token of DINOv2, is not trained.
    """

    config: BackboneConfig

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.token_width
        self.model, missing = _from_transformers(config)
        resized = config.input is not None and "interpolate_pos_encoding" in _arguments(self.model)
        self.options = {"interpolate_pos_encoding": True} if resized else {}
        lacking = sorted(missing - freeze_idle(self))
        if lacking:
            raise ValueError(
                f"model.encoder.folder {config.folder} lacks weights of its model ({lacking[0]} and {len(lacking) - 1} "
                "others): save it again, or set pretrained: false"
            )

    def forward(self, signal: Tensor, keep_BK: Tensor | None = None, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of images [B, C, H, W], or of videos [B, C, T, H, W]; none can be left out."""
        assert keep_BK is None and valid_BL is None, "a backbone takes whole inputs without padding"
        pixels = signal.transpose(1, 2) if signal.ndim == 5 else signal
        hidden = self.model(pixel_values=pixels, **self.options).last_hidden_state
        special = getattr(self.config.architecture, "num_register_tokens", 0) + SPECIAL
        return as_tokens(hidden, self.config, special)


class TimmBackbone(AnyEncoder):
    """The `forward_features` of a model of timm, without its class and register tokens."""

    config: TimmConfig

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.token_width
        self.model = _from_timm(config)
        freeze_idle(self)

    def forward(self, signal: Tensor, keep_BK: Tensor | None = None, valid_BL: Tensor | None = None) -> Tensor:
        """Tokens [B, L, D] of images [B, C, H, W]; none can be left out."""
        assert keep_BK is None and valid_BL is None, "a backbone takes whole inputs without padding"
        return as_tokens(self.model.forward_features(signal), self.config, getattr(self.model, "num_prefix_tokens", 0))


def as_tokens(features: Tensor, config: BackboneConfig | TimmConfig, special: int) -> Tensor:
    """Tokens [B, L, D] of a feature map [B, D, H, W] or [B, H, W, D], or of tokens with up to `special` before them.

    Raises:
        ValueError: the features are not of the grid and width that the config says.
    """
    grid, width = config.grid, config.token_width
    tokens = features
    if features.ndim == 4:
        last = features.shape[1:] == (*grid, width)
        tokens = features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        fits = last or features.shape[1:] == (width, *grid)
    else:
        count = math.prod(grid)
        fits = features.ndim == 3 and features.shape[2] == width and 0 <= features.shape[1] - count <= special
        tokens = features[:, -count:]
    if not fits:
        raise ValueError(
            f"it gives features of shape {list(features.shape)}, not {width} numbers for each token of a grid of "
            f"{list(grid)}; change its input, patch or width, or take another model"
        )
    return tokens


def freeze_idle(backbone: TransformersBackbone | TimmBackbone) -> set[str]:
    """Stop training the parameters that its tokens do not depend on; their names in the library's model.

    Found by a forward and a backward on the meta device, which computes nothing but shapes: so the shape of the
    features is checked as well.

    Raises:
        ValueError: the model takes no such input, or gives no such tokens.
    """
    own = dict(backbone.named_parameters())
    shapes = {name: torch.empty_like(tensor, device="meta", requires_grad=True) for name, tensor in own.items()}
    buffers = {name: torch.empty_like(tensor, device="meta") for name, tensor in backbone.named_buffers()}
    signal = torch.empty(1, backbone.config.channels, *backbone.config.sides, device="meta")
    try:
        tokens = torch.func.functional_call(backbone, shapes | buffers, (signal,))
    except (RuntimeError, TypeError, ValueError) as error:
        shape = list(signal.shape[1:])
        raise ValueError(f"model.encoder does not do for an input of {shape}: {_line(error)}") from None
    slopes = torch.autograd.grad(tokens.sum(), list(shapes.values()), allow_unused=True)
    idle = [name for name, slope in zip(own, slopes, strict=True) if slope is None]
    for name in idle:
        own[name].requires_grad_(False)
    return {name.removeprefix("model.") for name in idle}


def load_transformers(folder: str) -> tuple[Any, set[str]]:
    """The model of a folder or of a name on the hub, and the names of its weights that are lacking there.

    From safetensors alone, in 32 bits; no code is run.

    Raises:
        ValueError: there are no such weights.
    """
    from transformers import AutoModel

    try:
        model, found = AutoModel.from_pretrained(
            folder,
            local_files_only=Path(folder).is_dir(),
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} has no model.safetensors that fits its config.json ({_line(error)})") from None
    return model, set(found["missing_keys"])


def _from_transformers(config: BackboneConfig) -> tuple[Any, set[str]]:
    """The model, and the names of its weights that the folder lacks."""
    from transformers import AutoModel

    if not config.pretrained:
        return AutoModel.from_config(config.architecture, trust_remote_code=False, dtype=torch.float32).train(), set()
    try:
        model, missing = load_transformers(config.folder)
    except ValueError as error:
        raise ValueError(f"model.encoder.folder {error}") from None
    return model.train(), missing


def _from_timm(config: TimmConfig) -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise ValueError("model.encoder.name: timm needs timm, which is not installed: pip install timm") from None
    settings: dict[str, Any] = {"pretrained": config.pretrained, "num_classes": 0, "in_chans": config.colors}
    try:
        try:
            return timm.create_model(config.model, img_size=config.input, **settings)
        except TypeError:  # convolutional networks take any size, and no word of it
            return timm.create_model(config.model, **settings)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"model.encoder.model: timm does not give {config.model} ({_line(error)})") from None


def _arguments(model: nn.Module) -> Iterable[str]:
    return inspect.signature(model.forward).parameters


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
