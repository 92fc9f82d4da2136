"""What every experiment has, typed; each default stands here or in the file of its section, and nowhere else.

An objective adds its own `model`, `mask` and `loss` sections in ssls/<objective>/config.py.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from src.config.data import DataConfig
from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.config.section import Probability, Section


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

    @property
    def shards_needed(self) -> dict[str, tuple[str, str]]:
        """The shards that must be there before it starts, by the key of the split: folder or address, and split."""
        return {}

    @property
    def starts_from(self) -> tuple[str, ...]:
        """The paths of init_from."""
        return ()


class ExperimentConfig(RunConfig):
    """One experiment that trains step by step."""

    data: DataConfig
    optimization: OptimizationConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    init_from: str | None = None
    """A run folder or checkpoint whose weights (nothing else) start this run."""

    @property
    def shards_needed(self) -> dict[str, tuple[str, str]]:
        """data.root, unless its samples are made, and those of the mixture."""
        data = self.data
        main = {} if data.synthetic is not None else {"data.split": (data.root, data.split)}
        others = {f"data.mixture.{name}.split": (source.root, source.split) for name, source in data.mixture.items()}
        return main | others

    @property
    def starts_from(self) -> tuple[str, ...]:
        return () if self.init_from is None else (self.init_from,)

    @property
    def starts_whole_from(self) -> str | None:
        """The run or checkpoint of the same objective whose weights, all of them, start this run; None where init_from
        names an encoder, which the objective loads by itself."""
        return self.init_from

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

    @model_validator(mode="after")
    def _who_waits_for_data_says_so(self) -> Self:
        if self.data.timeout >= self.engine.timeout:
            raise ValueError(
                f"data.timeout {self.data.timeout:g} must be below engine.timeout {self.engine.timeout:g}, after which "
                "a rank that waits for data would be ended before it can say so: lower the one or raise the other"
            )
        return self
