"""Sections that describe networks; free of torch, so that a config can be checked without loading it."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.section import Section

# name: width, depth, heads. xs and s are Weimann & Conrad's ViT-XS and ViT-S (arXiv 2410.13867), b is ViT-B.
ECG_SIZES = {
    "ecg_tiny": (128, 4, 4),
    "ecg_xs": (192, 8, 6),
    "ecg_s": (384, 8, 6),
    "ecg_b": (768, 12, 12),
}
# name: width, depth, heads, hidden width of the MLP. As timm's; giant and gigantic are those of Zhai et al. 2022
# (arXiv 2106.04560).
VISION_SIZES = {
    "vit_tiny": (192, 12, 3, 768),
    "vit_small": (384, 12, 6, 1536),
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_huge": (1280, 32, 16, 5120),
    "vit_giant": (1408, 40, 16, 6144),
    "vit_gigantic": (1664, 48, 16, 8192),
}
# name: residual blocks of each stage, their inner widths, and how many times as wide they end. He et al. 2015 (arXiv
# 1512.03385); the x ones are Strodthoff et al. 2020's for ECG (arXiv 2004.13701), whose stages all have one width.
RESNETS = {
    "resnet1d_18": ((2, 2, 2, 2), (64, 128, 256, 512), 1),
    "resnet1d_34": ((3, 4, 6, 3), (64, 128, 256, 512), 1),
    "resnet1d_50": ((3, 4, 6, 3), (64, 128, 256, 512), 4),
    "xresnet1d_50": ((3, 4, 6, 3), (64, 64, 64, 64), 4),
    "xresnet1d_101": ((3, 4, 23, 3), (64, 64, 64, 64), 4),
}
PositionKind = Literal["sincos", "learned", "rope", "rope_vjepa2"]
FourSizes = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class EncoderSection(Section):
    """What every encoder says of itself, whatever it is; `name` tells them apart."""

    drops_tokens: ClassVar[bool] = False
    """Whether it can be asked for a part of its tokens, the others left out before it looks at them."""
    knows_padding: ClassVar[bool] = False
    """Whether it can be told which tokens are padding, that the others may not look at."""

    @property
    def channels(self) -> int:
        """Channels of the input: leads, colours, windows of a CT."""
        raise NotImplementedError

    @property
    def sides(self) -> tuple[int, ...]:
        """Size of the input along each axis."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens along each axis."""
        raise NotImplementedError

    @property
    def token_width(self) -> int:
        """Numbers of a token."""
        raise NotImplementedError

    def drawn(self) -> Self:
        """The same architecture, with weights that are drawn and not read from anywhere."""
        return self


class TransformerConfig(EncoderSection):
    """What all vision transformers may be told, whatever they look at."""

    drops_tokens = True
    knows_padding = True

    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    positions: PositionKind = "sincos"
    """How a token knows where it is: sincos: fixed waves are added; learned: a vector for each token is; rope: queries
    and keys are turned by it (rotary); rope_vjepa2: as V-JEPA 2's published weights are, whose code turns each pair by
    the sine and cosine of two different angles."""
    registers: NonNegativeInt = 0
    """Learned tokens without a place that all others may write to (arXiv 2309.16588); no features are read off them."""

    @property
    def patches(self) -> tuple[int, ...]:
        """Size of a token's part of the input along each axis."""
        raise NotImplementedError

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, depth and heads after the overrides."""
        raise NotImplementedError

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLPs."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(side // patch for side, patch in zip(self.sides, self.patches, strict=True))

    @property
    def token_width(self) -> int:
        return self.size[0]

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        width, _, heads = self.size
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and divisible by heads {heads}")
        axes = len(self.sides)
        if self.positions.startswith("rope") and width // heads < 2 * axes:
            raise ValueError(
                f"positions: {self.positions} turns pairs of a head's numbers on each of {axes} axes, but a head is "
                f"{width // heads} wide; use fewer heads or another kind"
            )
        return self


class EncoderConfig(TransformerConfig):
    """A vision transformer over lead-patches: one token is all leads x `patch` samples."""

    name: Literal["ecg_tiny", "ecg_xs", "ecg_s", "ecg_b"]
    """Size; width, depth and heads below override parts of it."""
    leads: PositiveInt = 12
    """Leads of the input; data.leads names them."""
    length: PositiveInt
    """Samples of each lead that the model sees; longer records are cropped."""
    patch: PositiveInt
    """Samples of a token; must divide length."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of the MLP over the width."""

    @property
    def channels(self) -> int:
        return self.leads

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch,)

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads = ECG_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads

    @property
    def mlp_width(self) -> int:
        return int(self.size[0] * self.mlp_ratio)

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.length % self.patch:
            raise ValueError(f"patch {self.patch} does not divide length {self.length}")
        return self


class VisionEncoderConfig(TransformerConfig):
    """A vision transformer over the patches of images, or the tubelets of videos and CT volumes."""

    name: Literal["vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge", "vit_giant", "vit_gigantic"]
    """Size; width, depth, heads and mlp_hidden below override parts of it."""
    colors: PositiveInt = 3
    """Channels of the input: 3 colours, or the windows of a CT."""
    input: tuple[PositiveInt, ...]
    """Size of the input: [height, width], or [frames or slices, height, width]."""
    patch: tuple[PositiveInt, ...]
    """Size of a token along the same axes; must divide the input's."""
    mlp_hidden: PositiveInt | None = None
    """Hidden width of the MLP."""

    @property
    def channels(self) -> int:
        return self.colors

    @property
    def sides(self) -> tuple[int, ...]:
        return self.input

    @property
    def patches(self) -> tuple[int, ...]:
        return self.patch

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads, _ = VISION_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads

    @property
    def mlp_width(self) -> int:
        if self.mlp_hidden is not None:
            return self.mlp_hidden
        width, _, _, hidden = VISION_SIZES[self.name]
        return round(self.size[0] * hidden / width)

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if len(self.input) not in (2, 3) or len(self.patch) != len(self.input):
            raise ValueError(
                f"input {list(self.input)} and patch {list(self.patch)} must both have two numbers (images) or three "
                "(videos, volumes)"
            )
        if any(side % patch for side, patch in zip(self.input, self.patch, strict=True)):
            raise ValueError(f"patch {list(self.patch)} does not divide input {list(self.input)}")
        return self

    @property
    def tokens(self) -> int:
        """Of the whole input."""
        return math.prod(self.grid)


class ResNetConfig(EncoderSection):
    """A residual convolutional network over the leads of an ECG: one token is what it has seen of 32 samples."""

    name: Literal["resnet1d_18", "resnet1d_34", "resnet1d_50", "xresnet1d_50", "xresnet1d_101"]
    """Size; depths and widths below override parts of it."""
    leads: PositiveInt = 12
    """Leads of the input; data.leads names them."""
    length: PositiveInt
    """Samples of each lead that the model sees; longer records are cropped."""
    depths: FourSizes | None = None
    """Residual blocks of the four stages."""
    widths: FourSizes | None = None
    """Inner widths of their blocks."""

    @property
    def channels(self) -> int:
        return self.leads

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def grid(self) -> tuple[int, ...]:
        return (-(-self.length // 32),)

    @property
    def size(self) -> tuple[FourSizes, FourSizes, int]:
        """Blocks of each stage, their inner widths, and how many times as wide they end, after the overrides."""
        depths, widths, expansion = RESNETS[self.name]
        return self.depths or depths, self.widths or widths, expansion

    @property
    def token_width(self) -> int:
        _, widths, expansion = self.size
        return widths[-1] * expansion


class S4Config(EncoderSection):
    """Diagonal state spaces over the samples of an ECG; the defaults are Mehari & Strodthoff's (arXiv 2211.07579)."""

    knows_padding = True

    name: Literal["s4"]
    leads: PositiveInt = 12
    """Leads of the input; data.leads names them."""
    length: PositiveInt
    """Samples of each lead that the model sees; longer records are cropped."""
    patch: PositiveInt = 1
    """Samples of a token; must divide length."""
    width: PositiveInt = 512
    """Numbers of a token; each has a state of its own."""
    depth: PositiveInt = 4
    """Layers."""
    state: PositiveInt = Field(default=8, multiple_of=2)
    """Numbers of a state; even, for it is kept as half as many complex ones."""
    bidirectional: bool = True
    """Look ahead as well as back."""
    norm: Literal["pre", "post"] = "post"
    """Where a layer's LayerNorm stands: before what is added to the tokens is computed, or after it is added."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """How time becomes steps: the input held between samples, or the trapezoidal rule."""

    @property
    def channels(self) -> int:
        return self.leads

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def grid(self) -> tuple[int, ...]:
        return (self.length // self.patch,)

    @property
    def token_width(self) -> int:
        return self.width

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.length % self.patch:
            raise ValueError(f"patch {self.patch} does not divide length {self.length}")
        return self


class BackboneConfig(EncoderSection):
    """A model of transformers that makes tokens of images or videos: ViT, DINOv2, Swin, ConvNeXt, VideoMAE."""

    name: Literal["transformers"]
    folder: str
    """Folder with the model's config.json and model.safetensors, or its name on the Hugging Face hub."""
    pretrained: bool = True
    """Begin with its weights; false takes only its architecture."""
    input: tuple[PositiveInt, ...] | None = None
    """Size of the input where it is not the model's own: [height, width], or [frames, height, width]."""

    @cached_property
    def architecture(self) -> Any:
        """What the model's config.json says, as transformers reads it.

        Raises:
            ValueError: it can't be read, or describes nothing that makes tokens of images or videos.
        """
        from transformers import AutoConfig

        try:
            found = AutoConfig.from_pretrained(self.folder, local_files_only=self.is_local, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"model.encoder.folder {self.folder} has no config.json of a model that transformers knows "
                f"({str(error).splitlines()[0]})"
            ) from None
        missing = [key for key in ("image_size", "patch_size", "num_channels") if not hasattr(found, key)]
        if missing or (hasattr(found, "num_frames") and found.model_type != "videomae"):
            raise ValueError(
                f"model.encoder.folder {self.folder} is a {found.model_type}, whose tokens have no place that is known "
                "here; take a ViT, DINOv2, Swin, ConvNeXt or VideoMAE"
            )
        return found

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, so that nothing is asked of the hub."""
        return Path(self.folder).is_dir()

    @property
    def channels(self) -> int:
        return int(self.architecture.num_channels)

    @property
    def sides(self) -> tuple[int, ...]:
        frames = getattr(self.architecture, "num_frames", None)
        own = (*(() if frames is None else (frames,)), *_two(self.architecture.image_size))
        if self.input is not None and len(self.input) != len(own):
            raise ValueError(
                f"model.encoder.input {list(self.input)} must have {len(own)} numbers, as {list(own)} of {self.folder}"
            )
        return self.input or own

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(side // patch for side, patch in zip(self.sides, self.patches, strict=True))

    @property
    def patches(self) -> tuple[int, ...]:
        """Size of a token along each axis; those that have stages halve their grid before each but the first."""
        found = self.architecture
        halved = 2 ** (len(getattr(found, "depths", (0,))) - 1)
        frames = () if not hasattr(found, "tubelet_size") else (int(found.tubelet_size),)
        return (*frames, *(patch * halved for patch in _two(found.patch_size)))

    @property
    def token_width(self) -> int:
        widths = getattr(self.architecture, "hidden_sizes", None)
        return int(widths[-1] if widths else self.architecture.hidden_size)

    def drawn(self) -> Self:
        return self.model_copy(update={"pretrained": False})

    @model_validator(mode="after")
    def _two_or_three_sides(self) -> Self:
        if self.input is not None and len(self.input) not in (2, 3):
            raise ValueError(f"input {list(self.input)} must have two numbers (images) or three (videos)")
        return self


class TimmConfig(EncoderSection):
    """A model of timm, which is not among the requirements: pip install timm."""

    name: Literal["timm"]
    model: str
    """Its name there, such as convnext_tiny or vit_small_patch16_224."""
    pretrained: bool = True
    """Begin with the weights that timm downloads; false takes only the architecture."""
    colors: PositiveInt = 3
    """Channels of the input."""
    input: tuple[PositiveInt, PositiveInt]
    """Size of the input: [height, width]."""
    patch: tuple[PositiveInt, PositiveInt]
    """Size of a token along the same axes: the patch of a ViT, the stride of the last feature map of a ConvNet."""
    width: PositiveInt
    """Numbers of a token."""

    @property
    def channels(self) -> int:
        return self.colors

    @property
    def sides(self) -> tuple[int, ...]:
        return self.input

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(side // patch for side, patch in zip(self.input, self.patch, strict=True))

    @property
    def token_width(self) -> int:
        return self.width

    def drawn(self) -> Self:
        return self.model_copy(update={"pretrained": False})


def _two(side: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    height, width = (side, side) if isinstance(side, int) else side
    return height, width


class PredictorConfig(Section):
    """The transformer that predicts target tokens from context tokens."""

    width: PositiveInt = 192
    depth: PositiveInt = 4
    heads: PositiveInt = 6
    mask_tokens: PositiveInt = 1
    """Learned tokens that stand for what is hidden, one for each kind of mask."""
    zero_mask_tokens: bool = False
    """Whether they begin at zero, as V-JEPA's; else with a standard deviation of 0.02."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by heads {self.heads}")
        return self
