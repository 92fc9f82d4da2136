"""The sections that every experiment shares, typed; each default stands here and nowhere else.

An objective adds its own `model`, `mask` and `loss` sections in ssls/<objective>/config.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


class Section(BaseModel):
    """A part of the config: unknown keys, strings for numbers and later changes are refused.

    Defaults are validated too, so that one written 5 for a float is 5.0, as it would be from a file: one run, one hash.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, use_attribute_docstrings=True
    )


class NoiseConfig(Section):
    """White noise."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    std: NonNegativeFloat = 0.02
    """Standard deviation in mV."""


class WanderConfig(Section):
    """Baseline wander: one sine for each lead."""

    probability: Probability = 0.0
    """Share of the samples that get it."""
    amplitude: NonNegativeFloat = 0.1
    """Largest amplitude in mV."""
    frequency: PositiveFloat = 0.5
    """Highest frequency in Hz."""


class LeadMaskConfig(Section):
    """Leads set to zero."""

    probability: Probability = 0.0
    """Share of the samples in which leads may be dropped."""
    lead_probability: Probability = 0.5
    """Probability that a lead of such a sample is dropped; one lead always stays."""


class ECGTransformConfig(Section):
    """What an ECG goes through between shard and model, in this order: crop, wander, noise, normalise, leads."""

    crop: Literal["random", "center"] = "random"
    """Where the model's length is cut from a longer record."""
    wander: WanderConfig = WanderConfig()
    noise: NoiseConfig = NoiseConfig()
    normalize: Literal["dataset", "sample", "none"] = "dataset"
    """Per lead: by the training split's mean and std, by the sample's own, or not at all (mV)."""
    clip: PositiveFloat | None = 5.0
    """Values beyond +-clip (after normalising) are cut off; null leaves them."""
    lead_mask: LeadMaskConfig = LeadMaskConfig()


class SyntheticConfig(Section):
    """A few made-up ECGs, written as shards into data.root when nothing is there yet: for a first try without data."""

    samples: PositiveInt = 64
    length: PositiveInt = 500
    """Samples of each lead."""
    sampling_rate: PositiveFloat = 100.0
    """Hz."""
    seed: NonNegativeInt = 0


class DataConfig(Section):
    """Where samples come from and how many make a batch."""

    root: str
    """Folder of tar shards with their index.json (python -m tools.build_shards)."""
    split: str = "train"
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
