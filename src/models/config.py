"""Sections that describe networks; free of torch, so that a config can be checked without loading it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from src.config.section import Section

# name: width, depth, heads. xs and s are Weimann & Conrad's ViT-XS and ViT-S (arXiv 2410.13867), b is ViT-B.
ECG_SIZES = {
    "ecg_tiny": (128, 4, 4),
    "ecg_xs": (192, 8, 6),
    "ecg_s": (384, 8, 6),
    "ecg_b": (768, 12, 12),
}
LEAD_SIZES = {name.replace("ecg", "ecg_lead"): size for name, size in ECG_SIZES.items()}
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
DropRate = Annotated[float, Field(ge=0.0, lt=1.0)]
FourSizes = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


def pair(side: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Height and width, of which the configs of transformers may tell one number for both."""
    height, width = (side, side) if isinstance(side, int) else side
    return height, width


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

    def carried(self) -> Self:
        """The same architecture with all that it takes to build it, where another file tells a part of it."""
        return self


class TransformerConfig(EncoderSection):
    """What all vision transformers may be told, whatever they look at."""

    drops_tokens = True
    knows_padding = True
    channels_apart: ClassVar[bool] = False
    """Whether a token is of one channel alone: then channels are the first axis of the grid, and a token looks only at
    those that share its channel or its place in it."""

    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    positions: PositionKind = "sincos"
    """How a token knows where it is: sincos: fixed waves are added; learned: a vector for each token is; rope: queries
    and keys are turned by it (rotary); rope_vjepa2: as V-JEPA 2's published weights are, whose code turns each pair by
    the sine and cosine of two different angles."""
    registers: NonNegativeInt = 0
    """Learned tokens without a place that all others may write to (arXiv 2309.16588); no features are read off them."""
    drop_path: DropRate = 0.0
    """How often the last block leaves out its attention, and its MLP, for a sample in training (stochastic depth, arXiv
    1603.09382); it rises linearly from 0 in the first block."""

    @property
    def patches(self) -> tuple[int, ...]:
        """Size of a token's part of the input along each axis of the grid."""
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
        return self.grid_of(self.sides)

    def grid_of(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens along each axis of an input of another size; what makes no whole token is left over."""
        whole = (self.channels, *sides) if self.channels_apart else sides
        return tuple(side // patch for side, patch in zip(whole, self.patches, strict=True))

    @property
    def token_width(self) -> int:
        return self.size[0]

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        width, _, heads = self.size
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and divisible by heads {heads}")
        axes = len(self.patches)
        if self.positions.startswith("rope") and width // heads < 2 * axes:
            raise ValueError(
                f"positions: {self.positions} turns pairs of a head's numbers on each of {axes} axes, but a head is "
                f"{width // heads} wide; use fewer heads or another kind"
            )
        return self


class ECGTransformerConfig(TransformerConfig):
    """What transformers over the leads of an ECG may be told."""

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
        return (1, self.patch) if self.channels_apart else (self.patch,)

    @property
    def mlp_width(self) -> int:
        return int(self.size[0] * self.mlp_ratio)

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.length % self.patch:
            raise ValueError(f"patch {self.patch} does not divide length {self.length}")
        return self


class EncoderConfig(ECGTransformerConfig):
    """A vision transformer over lead-patches: one token is all leads x `patch` samples."""

    name: Literal["ecg_tiny", "ecg_xs", "ecg_s", "ecg_b"]
    """Size; width, depth and heads override parts of it."""

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads = ECG_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads


class LeadEncoderConfig(ECGTransformerConfig):
    """A vision transformer over leads x time: one token is one lead x `patch` samples (Kim, arXiv 2410.08559)."""

    channels_apart = True

    name: Literal["ecg_lead_tiny", "ecg_lead_xs", "ecg_lead_s", "ecg_lead_b"]
    """Size; width, depth and heads override parts of it."""

    @property
    def size(self) -> tuple[int, int, int]:
        width, depth, heads = LEAD_SIZES[self.name]
        return self.width or width, self.depth or depth, self.heads or heads


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


class PredictorConfig(Section):
    """The transformer that predicts target tokens from context tokens."""

    width: PositiveInt = 192
    depth: PositiveInt = 4
    heads: PositiveInt = 6
    mask_tokens: PositiveInt = 1
    """Learned tokens that stand for what is hidden, one for each kind of mask."""
    zero_mask_tokens: bool = False
    """Whether they begin at zero, as V-JEPA's; else with a standard deviation of 0.02."""
    per_lead: bool = False
    """Predict each lead from the context of that lead alone, as Kim (arXiv 2410.08559); for encoders whose tokens are
    of one lead, ecg_lead_*."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by heads {self.heads}")
        return self
