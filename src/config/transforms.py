"""What images, videos and CT volumes go through between shard and model, typed; each default stands here alone.

A file of configs/transforms/ holds one such section; `modality` tells which. The ECG's is in ecg_transforms.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from src.config.section import Amount, Gains, Probability, Section, Shares, ordered

Side = Annotated[int, Field(ge=1, le=4096)]
Ratio = Annotated[float, Field(ge=0.1, le=10.0)]
Ratios = Annotated[tuple[Ratio, Ratio], AfterValidator(ordered)]
Sigma = Annotated[float, Field(ge=0.0, le=100.0)]
Sigmas = Annotated[tuple[Sigma, Sigma], AfterValidator(ordered)]
Gamma = Annotated[float, Field(ge=0.1, le=10.0)]
Gammas = Annotated[tuple[Gamma, Gamma], AfterValidator(ordered)]
Degrees = Annotated[float, Field(ge=0.0, le=180.0)]
Hounsfield = Annotated[float, Field(ge=-1024.0, le=32767.0)]
Deviation = Annotated[float, Field(gt=0.0, le=1000.0)]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FlipConfig(Section):
    """The picture mirrored; it has another side then, so it is off unless the anatomy has none."""

    probability: Probability = 0.0
    """Share of the samples that get it."""


class AreaCropConfig(Section):
    """A part of the picture from anywhere in it, resized to the model's square (Szegedy et al. 2015)."""

    probability: Probability = 0.0
    """Share of the samples that get it; the others show the middle, as in evaluation."""
    scale: Shares = (0.3, 1.0)
    """Smallest and largest part, as shares of the picture's area."""
    ratio: Ratios = (0.75, 1.3333333333333333)
    """Narrowest and widest part, width to height; its logarithm is uniform."""


class ColorJitterConfig(Section):
    """Brightness, contrast, saturation and hue, one after the other in a random order (SimCLR)."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    strength: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """The published s; what the four below are multiplied by."""
    brightness: Probability = 0.8
    """Largest change of the factor of all values; uniform in 1 +- it, never below 0."""
    contrast: Probability = 0.8
    """Largest change of the factor of the distance to the picture's mean; uniform in 1 +- it, never below 0."""
    saturation: Probability = 0.8
    """Largest change of the factor of the distance to gray; uniform in 1 +- it, never below 0."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.2
    """Largest turn of the hue, as a share of the whole circle; uniform in +- it."""

    @model_validator(mode="after")
    def _half_a_circle(self) -> Self:
        if self.strength * self.hue > 0.5:
            raise ValueError("strength times hue is more than half of the circle: lower strength or hue")
        return self


class GrayscaleConfig(Section):
    """Colours become gray (ITU-R BT.601)."""

    probability: Probability = 0.0
    """Share of the samples that get it."""


class ImageBlurConfig(Section):
    """A Gaussian filter of the picture that the model sees."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    sigma: Sigmas = (0.1, 2.0)
    """Lowest and highest standard deviation in pixels of the model's input."""
    kernel: Probability = 0.1
    """Width of the kernel as a share of `size`, in whole odd pixels; the published filter is cut off there."""


class SolarizeConfig(Section):
    """Values from a threshold on are turned over, v to 1 - v (BYOL); no detector does that."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    threshold: Probability = 0.5
    """Of values in 0 .. 1."""


class ImageTransformConfig(Section):
    """What an image goes through between shard and model, in the order of these keys."""

    modality: Literal["image"]
    size: Side = 224
    """Height and width of the model's input in pixels."""
    channels: Literal[1, 3] = 3
    """1: gray, what is coloured too; 3: red, green and blue, which gray images have alike."""
    shorter_side: Side | None = None
    """Where nothing is drawn: the shorter side is resized to so many pixels, then the middle is cut out; null is
    `size`."""
    resized_crop: AreaCropConfig = AreaCropConfig()
    flip_horizontal: FlipConfig = FlipConfig()
    flip_vertical: FlipConfig = FlipConfig()
    color_jitter: ColorJitterConfig = ColorJitterConfig()
    grayscale: GrayscaleConfig = GrayscaleConfig()
    blur: ImageBlurConfig = ImageBlurConfig()
    solarize: SolarizeConfig = SolarizeConfig()
    mean: tuple[Probability, ...] = IMAGENET_MEAN
    """Of each channel, subtracted from values in 0 .. 1; the default is ImageNet's."""
    std: tuple[Deviation, ...] = IMAGENET_STD
    """Of each channel; values are divided by it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one_for_each_channel(self.channels, self.mean, self.std)
        _margin(self.size, self.shorter_side)
        jitter = self.color_jitter
        colours = {
            "grayscale.probability": self.grayscale.probability,
            "color_jitter.saturation": jitter.probability * jitter.strength * jitter.saturation,
            "color_jitter.hue": jitter.probability * jitter.strength * jitter.hue,
        }
        for key, used in colours.items():
            if self.channels == 1 and used:
                raise ValueError(f"{key} changes nothing where channels is 1: set {key} to 0")
        return self


class ClipConfig(Section):
    """Which frames of a video the model sees."""

    frames: Annotated[int, Field(ge=1, le=1024)] = 16
    """Frames of a clip."""
    stride: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Every so manieth frame, whatever the rate; null takes `rate`, or each frame where that is null too."""
    rate: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """Frames per second: each of a clip is the nearest one of the video; null takes `stride`."""
    where: Literal["random", "uniform", "center"] = "random"
    """random: each start is equally likely; uniform: clips evenly spaced from the first frame to the last, one is the
    middle; center: the middle."""
    clips: Annotated[int, Field(ge=1, le=1024)] = 1
    """Clips of each video."""
    short: Literal["repeat", "loop", "refuse"] = "repeat"
    """A video shorter than a clip: its last frame is repeated, it begins anew, or it is an error."""

    @model_validator(mode="after")
    def _one_step(self) -> Self:
        if self.stride is not None and self.rate is not None:
            raise ValueError("at most one of stride (in frames) and rate (in frames per second) can be set")
        if self.where == "center" and self.clips > 1:
            raise ValueError("where is center, so that all clips are the same: set clips to 1, or where to uniform")
        return self


Operation = Literal[
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]
PUBLISHED_OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class RandAugmentConfig(Section):
    """Some operations from a list, one after the other, at one magnitude (RandAugment); the same for all frames."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    count: Annotated[int, Field(ge=1, le=14)] = 2
    """Operations of a clip, drawn with replacement (the published N)."""
    magnitude: Annotated[float, Field(ge=0.0, le=10.0)] = 9.0
    """The published M: 0 changes nothing, 10 is the end of AutoAugment's ranges; two operations have none."""
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = PUBLISHED_OPERATIONS
    """What is drawn from. solarize, posterize, equalize and color make no sense on gray ultrasound."""


class BrightnessConfig(Section):
    """A factor of all values of a clip."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    strength: Probability = 0.2
    """Largest change of the factor; uniform in 1 +- it."""


class ContrastConfig(Section):
    """A factor of the distance to the clip's mean."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    strength: Probability = 0.2
    """Largest change of the factor; uniform in 1 +- it."""


class GammaConfig(Section):
    """Values v in 0 .. 1 become v to the power of gamma: another compression of the echo's dynamic range."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    gamma: Gammas = (0.7, 1.4)
    """Lowest and highest exponent; its logarithm is uniform."""


class VideoBlurConfig(Section):
    """A Gaussian filter of each frame, the same for all of a clip."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    sigma: Sigmas = (0.1, 2.0)
    """Lowest and highest standard deviation in pixels of the model's input."""


class VideoNoiseConfig(Section):
    """White noise, another in each frame, the same in all channels."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    std: Probability = 0.02
    """Standard deviation, of values in 0 .. 1."""


class SpeckleConfig(Section):
    """Values times 1 + std * grains, other grains in each frame: in the manner of ultrasound; black stays black."""

    probability: Probability = 0.0
    """Share of the clips that get it."""
    std: Probability = 0.1
    """Standard deviation of the factor."""
    grain: Annotated[float, Field(ge=0.0, le=20.0)] = 1.0
    """Size of a grain: the standard deviation of the Gaussian that the grains are, in pixels; 0 is each pixel apart."""


class VideoTransformConfig(Section):
    """What a video goes through between shard and model, in the order of these keys; frames of a clip share it."""

    modality: Literal["video"]
    videos: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Videos of a study: of more so many are drawn, of fewer the rest is zeros where `keep` is False; null draws one
    and leaves the axis of videos out."""
    clip: ClipConfig = ClipConfig()
    size: Side = 224
    """Height and width of the model's input in pixels."""
    channels: Literal[1, 3] = 3
    """1: gray, what is coloured too; 3: red, green and blue, which gray videos have alike."""
    shorter_side: Side | None = None
    """Where nothing is drawn: the shorter side is resized to so many pixels, then the middle is cut out; null is
    `size`."""
    resized_crop: AreaCropConfig = AreaCropConfig()
    flip_horizontal: FlipConfig = FlipConfig()
    flip_vertical: FlipConfig = FlipConfig()
    randaugment: RandAugmentConfig = RandAugmentConfig()
    gamma: GammaConfig = GammaConfig()
    contrast: ContrastConfig = ContrastConfig()
    brightness: BrightnessConfig = BrightnessConfig()
    blur: VideoBlurConfig = VideoBlurConfig()
    speckle: SpeckleConfig = SpeckleConfig()
    noise: VideoNoiseConfig = VideoNoiseConfig()
    mean: tuple[Probability, ...] = IMAGENET_MEAN
    """Of each channel, subtracted from values in 0 .. 1; the default is ImageNet's."""
    std: tuple[Deviation, ...] = IMAGENET_STD
    """Of each channel; values are divided by it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one_for_each_channel(self.channels, self.mean, self.std)
        _margin(self.size, self.shorter_side)
        if self.channels == 1 and self.randaugment.probability and "color" in self.randaugment.operations:
            raise ValueError(
                "randaugment.operations has color, which changes nothing where channels is 1: leave it out"
            )
        return self


class WindowConfig(Section):
    """A range of Hounsfield units that becomes 0 .. 1, one channel; what is beyond it is cut off.

    Then (value - mean) / std, as of images.
    """

    center: Hounsfield
    """Middle of the range in HU."""
    width: Annotated[float, Field(gt=0.0, le=65535.0)]
    """Length of the range in HU."""
    mean: Probability = 0.0
    """Of the values 0 .. 1 in it; 0 changes nothing. The index of the shards tells it."""
    std: Deviation = 1.0
    """Standard deviation of the values 0 .. 1; 1 changes nothing."""

    def drawable(self) -> Self:
        """The same, from 0 to 1."""
        return self.model_copy(update={"mean": 0.0, "std": 1.0})


class RotationConfig(Section):
    """The body turned about its axes, in millimetres: as rigid where voxels are no cubes."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    degrees: tuple[Degrees, Degrees, Degrees] = (15.0, 5.0, 5.0)
    """Largest angle about the axes D, H and W; uniform in +- it."""


class ScaleConfig(Section):
    """The body larger or smaller, alike in all directions."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    factor: Gains = (0.9, 1.1)
    """Lowest and highest factor of all lengths; its logarithm is uniform."""


class TranslationConfig(Section):
    """The body moved, beside the random crop, by parts of a voxel too."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    mm: tuple[Amount, Amount, Amount] = (10.0, 10.0, 10.0)
    """Largest way along D, H and W in mm; uniform in +- it."""


class AttenuationConfig(Section):
    """A factor of HU + 1000, the attenuation beyond air's: a scanner that is calibrated otherwise; air stays air."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    factor: Gains = (0.97, 1.03)
    """Lowest and highest factor."""


class CTNoiseConfig(Section):
    """White noise in each voxel that the model sees, before the windows."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    std: Amount = 20.0
    """Standard deviation in HU."""


class WindowJitterConfig(Section):
    """Other windows: the centre and the width of each are drawn apart."""

    probability: Probability = 0.0
    """Share of the volumes that get it."""
    center: Amount = 20.0
    """Largest shift of a centre in HU; uniform in +- it."""
    width: Amount = 40.0
    """Largest change of a width in HU; uniform in +- it."""


class CTTransformConfig(Section):
    """What a CT volume goes through between shard and model, in the order of these keys.

    Axes are those of the shards: D, H, W run to superior, posterior and left unless they were built otherwise.
    """

    modality: Literal["ct"]
    size: tuple[Side, Side, Side] = (64, 128, 128)
    """Voxels of the model's input along D, H and W; what a volume lacks is air."""
    crop: Literal["random", "center"] = "random"
    """Where the size is cut from a larger volume."""
    patches: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Parts of each volume, of one read and each with draws of its own; null is one, without an axis of patches."""
    rotation: RotationConfig = RotationConfig()
    scale: ScaleConfig = ScaleConfig()
    translation: TranslationConfig = TranslationConfig()
    flip_depth: FlipConfig = FlipConfig()
    flip_height: FlipConfig = FlipConfig()
    flip_width: FlipConfig = FlipConfig()
    attenuation: AttenuationConfig = AttenuationConfig()
    noise: CTNoiseConfig = CTNoiseConfig()
    window_jitter: WindowJitterConfig = WindowJitterConfig()
    windows: Annotated[tuple[WindowConfig, ...], Field(min_length=1)] = (
        WindowConfig(center=-600.0, width=1500.0),
        WindowConfig(center=40.0, width=400.0),
    )
    """One channel each; the default is lung and mediastinum."""

    def drawable(self) -> Self:
        """The same with windows from 0 to 1, as pictures have them."""
        return self.model_copy(update={"windows": tuple(window.drawable() for window in self.windows)})

    @model_validator(mode="after")
    def _patches_differ(self) -> Self:
        if self.crop == "center" and (self.patches or 1) > 1:
            raise ValueError("crop is center, so that all patches are the same: set patches to 1, or crop to random")
        return self

    @model_validator(mode="after")
    def _widths_stay_positive(self) -> Self:
        narrowest = min(window.width for window in self.windows)
        if self.window_jitter.probability and self.window_jitter.width >= narrowest:
            raise ValueError(
                f"window_jitter.width is {self.window_jitter.width:g} HU, but the narrowest of windows has "
                f"{narrowest:g} HU: lower window_jitter.width"
            )
        return self


class TokenizerConfig(Section):
    """What a report goes through between shard and model."""

    tokenizer: str | None = None
    """Folder of a Hugging Face tokenizer, or its name in the local cache; null trains one on the reports of
    data.split."""
    vocabulary: Annotated[int, Field(ge=261, le=1_000_000)] = 2000
    """Most tokens of one that is trained; 256 bytes and 5 special ones are always there."""
    length: Annotated[int, Field(ge=1, le=65536)] = 128
    """Tokens of every row, special ones included; longer reports are cut off, shorter ones padded."""


TransformConfig = ImageTransformConfig | VideoTransformConfig | CTTransformConfig
TRANSFORMS: dict[str, type[TransformConfig]] = {
    "image": ImageTransformConfig,
    "video": VideoTransformConfig,
    "ct": CTTransformConfig,
}


def _one_for_each_channel(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean has {len(mean)} numbers and std {len(std)}: with channels = {channels} give {channels} of each"
        )


def _margin(size: int, shorter_side: int | None) -> None:
    if shorter_side is not None and shorter_side < size:
        raise ValueError(f"shorter_side is {shorter_side}, less than size = {size}: give {size} or more")
