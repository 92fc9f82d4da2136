"""The `engine` section, typed: what runs the model, and what each engine can do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from src.config.section import Section


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
    timeout: Annotated[float, Field(gt=0.0, le=1e6)] = 1800.0
    """Seconds without a sign of life (a step, a batch of an evaluation, a checkpoint) after which a rank writes down
    where it stands and ends, as one in a collective that others never come to."""

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
