"""The sections that every experiment shares, typed; each default stands here and nowhere else.

An objective adds its own `model`, `mask` and `loss` sections in ssls/<objective>/config.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)


def ordered(span: tuple[float, float]) -> tuple[float, float]:
    """The span, if it is one: raises ValueError where low is above high."""
    if span[0] > span[1]:
        raise ValueError(f"must be [low, high] with low <= high, got {list(span)}")
    return span


def is_address(root: str) -> bool:
    """Whether shards lie behind an address (https://...); a path and file://... are folders of this machine."""
    return "://" in root and not root.startswith("file://")


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Amount = Annotated[float, Field(ge=0.0, le=1000.0)]
Positive = Annotated[float, Field(gt=0.0, le=1000.0)]
Weight = Annotated[float, Field(gt=0.0, le=1e9)]
SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
EventRate = Annotated[float, Field(gt=0.0, le=20.0)]
Shares = Annotated[tuple[Share, Share], AfterValidator(ordered)]
Gains = Annotated[tuple[Positive, Positive], AfterValidator(ordered)]
Parts = Annotated[tuple[Probability, Probability], AfterValidator(ordered)]
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


class Section(BaseModel):
    """A part of the config: unknown keys, strings for numbers and later changes are refused.

    Defaults are validated too, so that one written 5 for a float is 5.0, as it would be from a file: one run, one hash.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, use_attribute_docstrings=True
    )


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


class SyntheticConfig(Section):
    """A few made-up ECGs, written as shards into data.root when nothing is there yet: for a first try without data."""

    samples: PositiveInt = 64
    length: PositiveInt = 500
    """Samples of each lead."""
    sampling_rate: PositiveFloat = 100.0
    """Hz."""
    seed: NonNegativeInt = 0


class CacheConfig(Section):
    """Where shards that lie elsewhere are kept on this machine; several runs may share it."""

    folder: str
    """On a local disk."""
    size: Annotated[float, Field(gt=0.0, le=1e9)]
    """GB (10^9 bytes) that its shards may take together; those that were not used for longest make room."""


def check_cache(cache: CacheConfig | None, roots: Sequence[str], why: str) -> None:
    """Refuse addresses without a cache, and a cache without addresses, where `why` says what the roots are instead."""
    remote = any(map(is_address, roots))
    if remote and cache is None:
        raise ValueError(
            "data.cache is missing though data.root is an address: give it the folder and the size in GB that copies "
            "of its shards may take"
        )
    if cache is not None and not remote:
        raise ValueError(f"data.cache does nothing where {why}: leave it out")


class SourceConfig(Section):
    """Another folder of shards that is mixed in."""

    root: str
    """Folder or address of its shards: those of data.root in modality, leads and sampling rate."""
    split: str = "train"
    weight: Weight = 1.0
    """Its share of the positions, beside data.weight and the weights of the others."""


class DataConfig(Section):
    """Where samples come from and how many make a batch."""

    root: str
    """Folder of tar shards with their index.json (python -m tools.build_shards), or its address (http, s3, gs)."""
    split: str = "train"
    mixture: dict[str, SourceConfig] = {}
    """Other sources by name; data.root stays what statistics and evaluation are of. Each has epochs of its own."""
    weight: Weight = 1.0
    """Share of data.root in a mixture."""
    balance: Literal["none", "labels", "patients"] = "none"
    """labels: each label as often as any other, a sample with several for each of them; patients: each patient once in
    a round, with another of its samples each time."""
    cache: CacheConfig | None = None
    """Needed where data.root is an address (http, https, s3, gs)."""
    window: PositiveInt | None = None
    """Shards whose samples are shuffled together, one window after the other; null shuffles all."""
    lanes: PositiveInt = 1
    """Ranges of an epoch that are walked through side by side, each by its part of the batch, which they divide: set
    it to the number of ranks or a multiple, so that each reads shards of its own."""
    broken: NonNegativeInt = 10
    """So many broken samples are skipped, each giving its place to the next of its epoch; one more ends the run."""
    timeout: Annotated[float, Field(gt=0.0, le=1500.0)] = 600.0
    """Seconds without a batch after which a rank ends the run and says what its workers are at; the other ranks, which
    wait for it, give up after 1,800."""
    batch_size: PositiveInt
    """Global: samples of one optimizer step over all ranks."""
    micro_batch_size: PositiveInt | None = None
    """Largest number of samples in one forward of one rank; null takes the rank's whole share."""
    workers: NonNegativeInt = 0
    """Loader processes of each rank; 0 loads in the rank's own process."""
    leads: tuple[str, ...] = STANDARD_LEADS
    """Leads in the order the model sees them; shards in another order are refused."""
    transform: ECGTransformConfig = ECGTransformConfig()
    synthetic: SyntheticConfig | None = None
    """Make these samples if data.root holds none."""

    @model_validator(mode="after")
    def _orders_go_together(self) -> Self:
        if self.batch_size % self.lanes:
            raise ValueError(f"data.lanes {self.lanes} must divide data.batch_size {self.batch_size}")
        if self.mixture and self.lanes > 1:
            raise ValueError("data.lanes is for one source: leave it 1 where data.mixture names others")
        if self.balance != "none" and (self.mixture or self.window is not None or self.lanes > 1):
            raise ValueError(
                f"data.balance {self.balance} picks single samples: it goes with no data.mixture, data.window or "
                "data.lanes"
            )
        if wrong := [name for name in self.mixture if not SOURCE.fullmatch(name) or name == "root"]:
            raise ValueError(
                f"data.mixture can't name a source {wrong[0]!r}: use a letter, then up to 63 letters, digits, - and _, "
                "and another name than root, which is data.root's"
            )
        if self.weight != 1.0 and not self.mixture:
            raise ValueError("data.weight does nothing without data.mixture: leave it out")
        return self

    @model_validator(mode="after")
    def _remote_shards_are_cached(self) -> Self:
        if self.synthetic is not None and is_address(self.root):
            raise ValueError("data.synthetic writes shards, and data.root is an address: name a local folder")
        roots = [self.root, *(source.root for source in self.mixture.values())]
        check_cache(self.cache, roots, "data.root is a folder of this machine")
        return self


class NetworkRates(Section):
    """How one network of the objective learns, beside the others."""

    lr: NonNegativeFloat = 1.0
    """Times the learning rate of every step."""
    weight_decay: NonNegativeFloat = 1.0
    """Times the weight decay of every step."""


class OptimizationConfig(Section):
    """AdamW with linear warm-up, then a cosine, of learning rate and weight decay."""

    epochs: PositiveInt | None = None
    """Passes over the split; either this or steps."""
    steps: PositiveInt | None = None
    """Optimizer steps; either this or epochs."""
    lr: PositiveFloat
    """Peak learning rate, reached at the end of the warm-up; never scaled by the batch."""
    start_lr: NonNegativeFloat = 0.0
    """Learning rate of step 0 when there is a warm-up."""
    final_lr: NonNegativeFloat = 0.0
    """Learning rate of the last step."""
    warmup_epochs: NonNegativeFloat | None = None
    """Length of the warm-up in epochs; at most one of this and warmup_steps, none is no warm-up."""
    warmup_steps: NonNegativeInt | None = None
    weight_decay: NonNegativeFloat = 0.05
    """Of matrices; biases, norms, tokens and other 1-D parameters have none."""
    final_weight_decay: NonNegativeFloat | None = None
    """Weight decay of the last step, reached along a cosine without warm-up; null keeps it constant."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    clip: PositiveFloat | None = None
    """Largest global gradient norm; null does not clip."""
    max_skipped: PositiveInt = 10
    """So many steps in a row with a gradient that is not finite stop the run."""
    networks: dict[str, NetworkRates] = {}
    """Networks of the objective (student, predictor, ...) that learn or decay at other rates than the rest."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of optimization.epochs and optimization.steps must be set")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("at most one of optimization.warmup_epochs and optimization.warmup_steps can be set")
        too_long = (self.steps is not None and (self.warmup_steps or 0) >= self.steps) or (
            self.epochs is not None and (self.warmup_epochs or 0) >= self.epochs
        )
        if too_long:
            raise ValueError("optimization.warmup_* must be shorter than the run")
        return self


class OffloadConfig(Section):
    """What is kept in the machine's memory instead of the GPU's."""

    optimizer: bool = False
    """Moments and fp32 masters (deepspeed, zero_stage 1 to 3); the update is computed there."""
    parameters: bool = False
    """Parameters too (deepspeed with zero_stage 3; fsdp, whose optimizer goes with them)."""


class EngineConfig(Section):
    """What runs the model; may change between a kill and its resume."""

    name: Literal["auto", "plain", "ddp", "fsdp", "deepspeed"] = "auto"
    """plain: one process; ddp: DistributedDataParallel; fsdp: FSDP2, everything sharded; deepspeed: ZeRO; auto: plain
    for one process, ddp for more."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are autocast: parameters, moments and teachers stay fp32; fp16 scales the loss."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """deepspeed only. What is sharded: 0 nothing, 1 the optimizer, 2 gradients too, 3 parameters too; null is 2."""
    offload: OffloadConfig = OffloadConfig()
    replicas: PositiveInt = 1
    """fsdp only. Copies of the model, each sharded over its part of the ranks (hybrid sharding)."""
    deepspeed: str | None = None
    """deepspeed only. A JSON of DeepSpeed's own settings, merged on top."""
    recompute: NonNegativeInt = 0
    """Activation checkpointing: 0 keeps all activations, 1 recomputes those of every block, n of every n-th."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of each block; auto: on a GPU, and eager with a warning where it does not work."""

    @property
    def stage(self) -> int:
        """The ZeRO stage where the engine is deepspeed."""
        return 2 if self.zero_stage is None else self.zero_stage

    @model_validator(mode="after")
    def _offered(self) -> Self:
        """Refuse what the engine can't do."""
        sharded = self.name == "deepspeed" and self.stage > 0
        refused = {
            "offload.optimizer": (self.offload.optimizer and not sharded, "deepspeed with zero_stage 1, 2 or 3"),
            "offload.parameters": (
                self.offload.parameters and self.name != "fsdp" and not (sharded and self.stage == 3),
                "fsdp, or deepspeed with zero_stage 3",
            ),
            "replicas": (self.replicas > 1 and self.name != "fsdp", "fsdp"),
            "zero_stage": (self.zero_stage is not None and self.name != "deepspeed", "deepspeed"),
            "deepspeed": (self.deepspeed is not None and self.name != "deepspeed", "deepspeed"),
        }
        for key, (asked, where) in refused.items():
            if asked:
                raise ValueError(f"{key} is not for engine {self.name}; it needs {where}")
        return self


class CheckpointConfig(Section):
    """When a checkpoint is written and which are kept."""

    every: PositiveInt = 1000
    """Steps between checkpoints; the last step always writes one."""
    keep_last: PositiveInt = 3
    """So many of the newest checkpoints are kept."""
    keep_every: PositiveInt | None = None
    """Checkpoints at multiples of so many steps are kept for ever."""
    background: bool = False
    """Copy everything to the machine's memory and write it while training goes on."""


class EvaluationConfig(Section):
    """Health of the representation while training, beside that of the randomly initialised encoder: health.jsonl."""

    every: PositiveInt | None = 500
    """Steps between evaluations; the last step always has one; null never evaluates."""
    split: str = "val"
    """Split that is looked at; where the shards have none, data.split is, without probe and kNN."""
    samples: PositiveInt = 1000
    """At most so many of that split, and of data.split so many to fit the probe on."""
    windows: PositiveInt | None = 1
    """Evenly spaced windows of the model's length in each record; null covers it."""
    alarm: Probability = 0.5
    """Warn where effective rank, probe (AUROC above 0.5) or the loss of predicting the mean falls below this share of
    the random encoder's."""


class WandbConfig(Section):
    """Weights & Biases: config and lines of metrics.jsonl and health.jsonl, sent or kept to be sent; nothing else."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline writes wandb/ in the run folder without account or network, to be sent with `wandb sync`."""
    project: str = "medssl"
    entity: str | None = None
    """User or team; null is the account's default."""
    name: str | None = None
    """Name of the run; null is that of the run folder."""
    tags: tuple[str, ...] = ()


class LoggingConfig(Section):
    """The run folder and what is written into it."""

    folder: str
    """Run folder: config, logs, checkpoints, encoder. The same folder continues the run."""
    every: PositiveInt = 10
    """Steps between lines of metrics.jsonl; the last step always writes one."""
    audit: bool = True
    """Write the keys of every step's samples to audit/rank-N.jsonl."""
    wandb: WandbConfig = WandbConfig()


class RunConfig(Section):
    """What every run has, whether it trains or not."""

    objective: str
    """A folder of ssls/."""
    seed: NonNegativeInt = 0
    engine: EngineConfig = EngineConfig()
    logging: LoggingConfig


class ExperimentConfig(RunConfig):
    """One experiment that trains step by step."""

    data: DataConfig
    optimization: OptimizationConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    init_from: str | None = None
    """A run folder or checkpoint whose weights (nothing else) start this run."""

    @model_validator(mode="after")
    def _evaluated_apart(self) -> Self:
        held_out = (self.data.root.rstrip("/"), self.evaluation.split)
        for name, source in self.data.mixture.items():
            if (source.root.rstrip("/"), source.split) == held_out:
                raise ValueError(
                    f"data.mixture.{name} would train on split {source.split} of data.root, which evaluation.split "
                    "holds out: name another split in one of them"
                )
        return self
