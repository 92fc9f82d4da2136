"""What an ECG goes through between shard and model, typed; each default stands here alone.

It is `data.transform` of an experiment; images, videos and CT volumes have transforms.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from src.config.section import Amount, Gains, Positive, Probability, Section, Shares, ordered

EventRate = Annotated[float, Field(gt=0.0, le=20.0)]
Parts = Annotated[tuple[Probability, Probability], AfterValidator(ordered)]


class ResizedCropConfig(Section):
    """A shorter piece from anywhere in the record, stretched to the model's length by linear interpolation."""

    probability: Probability = 0.0
    """Share of the samples that get it; the others are cut as `crop` says."""
    scale: Shares = (0.5, 1.0)
    """Shortest and longest piece, as shares of the model's length."""


class WarpConfig(Section):
    """Time runs faster here and slower there, smoothly; both ends of the window stay where they are."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    strength: Probability = 0.2
    """Standard deviation of the logarithm of the speed."""
    period: Annotated[float, Field(ge=0.25, le=1000.0)] = 2.0
    """Shortest period of the speed in s."""


class ReverseConfig(Section):
    """Time runs backwards; not physiological."""

    probability: Probability = 0.0
    """Share of the samples that get it."""


class BlurConfig(Section):
    """A Gaussian filter along time."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    sigma: Positive = 0.02
    """Largest standard deviation of the filter in s; uniform from 0."""


class SobelConfig(Section):
    """The derivative in time, in mV/s, times `seconds`: mV again; not physiological."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    seconds: Positive = 0.02
    """What the derivative is multiplied by, in s."""


class VCGConfig(Section):
    """The heart's electrical vector turned and scaled (3KG); for the twelve standard leads only."""

    probability: Probability = 0.0
    """Share of the samples that get it; those without one of I, II, V1-V6 stay as they are."""
    angle: Annotated[float, Field(ge=0.0, le=180.0)] = 45.0
    """Largest angle about each of the axes x, y and z in degrees; uniform in +-angle."""
    scale: Gains = (1.0, 1.5)
    """Lowest and highest factor along each axis."""


class ChannelResizeConfig(Section):
    """A gain for each lead."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    gain: Gains = (0.33, 3.0)
    """Lowest and highest factor; its logarithm is uniform."""


class InvertConfig(Section):
    """Another sign for all leads; not physiological."""

    probability: Probability = 0.0
    """Share of the samples that get it."""


class WanderConfig(Section):
    """Baseline wander: one sine for each lead."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: NonNegativeFloat = 0.1
    """Largest amplitude in mV."""
    frequency: PositiveFloat = 0.5
    """Highest frequency in Hz."""


class BaselineWanderConfig(Section):
    """Baseline wander: a sum of cosines 0.01 Hz apart, up to a cutoff (Lenis et al. 2017)."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: Amount = 0.1
    """Largest amplitude of a cosine in mV (the published C); the sum of 50 has a standard deviation of 2.9 C."""
    cutoff: Annotated[float, Field(gt=0.0, le=5.0)] = 0.5
    """Highest frequency in Hz."""


class BaselineShiftConfig(Section):
    """Segments in which each lead is shifted by a constant."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: Amount = 0.2
    """Largest shift in mV."""
    seconds: Positive = 3.0
    """Mean length of a segment in s; uniform from half of it to one and a half."""
    rate: EventRate = 0.3
    """Most segments per second; uniform from one segment in the window."""


class ElectrodeMotionConfig(Section):
    """Electrodes that move: sudden deflections of the baseline that decay."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: Amount = 0.5
    """Largest deflection in mV."""
    decay: Annotated[float, Field(ge=0.001, le=1000.0)] = 0.3
    """Time in s after which a deflection has fallen to 1/e."""
    rate: EventRate = 0.5
    """Most deflections per second; uniform from one in the window."""


class PowerlineConfig(Section):
    """Mains hum and its harmonics; those above half of the sampling rate are left out."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: Amount = 0.05
    """Largest amplitude at `frequency` in mV; harmonics have less."""
    frequency: Literal[50, 60] = 50
    """Hz."""
    harmonics: Annotated[int, Field(ge=1, le=100)] = 3
    """So many multiples of `frequency`, itself included."""


class NoiseConfig(Section):
    """White noise."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    std: NonNegativeFloat = 0.02
    """Standard deviation in mV."""


class TimeOutConfig(Section):
    """A segment of all leads set to zero, after normalising."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    fraction: Parts = (0.0, 0.5)
    """Shortest and longest segment, as shares of the window."""


class LeadMaskConfig(Section):
    """Leads set to zero."""

    probability: Probability = 0.0
    """Share of the samples in which leads may be dropped."""
    lead_probability: Probability = 0.5
    """Probability that a lead of such a sample is dropped; one lead always stays."""


class ECGTransformConfig(Section):
    """What an ECG goes through between shard and model, in the order of these keys."""

    modality: Literal["ecg"] = "ecg"
    """What the samples are; the only one that can be left out."""
    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """Samples of a lead that a batch may have: each step draws one of them, and one that stands here twice is drawn
    twice as often; null is the model's one length."""
    short: Literal["refuse", "pad"] = "refuse"
    """A record that is shorter than its batch: an error, or zeros behind its end, where `keep` is False."""
    crop: Literal["random", "center"] = "random"
    """Where the batch's length is cut from a longer record."""
    resized_crop: ResizedCropConfig = ResizedCropConfig()
    warp: WarpConfig = WarpConfig()
    reverse: ReverseConfig = ReverseConfig()
    blur: BlurConfig = BlurConfig()
    sobel: SobelConfig = SobelConfig()
    vcg: VCGConfig = VCGConfig()
    channel_resize: ChannelResizeConfig = ChannelResizeConfig()
    invert: InvertConfig = InvertConfig()
    wander: WanderConfig = WanderConfig()
    baseline_wander: BaselineWanderConfig = BaselineWanderConfig()
    baseline_shift: BaselineShiftConfig = BaselineShiftConfig()
    electrode_motion: ElectrodeMotionConfig = ElectrodeMotionConfig()
    powerline: PowerlineConfig = PowerlineConfig()
    noise: NoiseConfig = NoiseConfig()
    normalize: Literal["dataset", "sample", "none"] = "dataset"
    """Per lead: by the training split's mean and std, by the sample's own, or not at all (mV)."""
    clip: PositiveFloat | None = 5.0
    """Values beyond +-clip (after normalising) are cut off; null leaves them."""
    time_out: TimeOutConfig = TimeOutConfig()
    lead_mask: LeadMaskConfig = LeadMaskConfig()
