"""What DeepSpeed is told: the config's settings, and a user's own JSON on top of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig

LARGEST_BUCKET = 50_000_000
"""Elements; DeepSpeed allocates a bucket as a whole, and its default of ten times as many takes 2 GB of every rank."""


def deepspeed_settings(config: EngineConfig, optimization: OptimizationConfig, trained: int) -> dict[str, Any]:
    """What DeepSpeed is told: the config's settings, and the raw JSON of `engine.deepspeed` merged on top.

    `trained` is the number of trained parameters: gradients travel in four parts or more, of 200 MB at most.

    Raises:
        ValueError: the JSON sets what belongs to the config or would cast parameters and teachers; names the key.
    """
    zero: dict[str, Any] = {"stage": config.stage, "reduce_bucket_size": max(min(trained // 4, LARGEST_BUCKET), 1)}
    if config.stage == 3:  # small parameters would stay gathered, and a teacher's forward lag a step behind
        zero |= {"stage3_param_persistence_threshold": 0}
    if config.offload.optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload.parameters:
        zero["offload_param"] = {"device": "cpu"}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": optimization.clip or 0.0 if config.stage else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if config.precision != "fp32":
        settings["torch_autocast"] = {
            "enabled": True,
            "dtype": {"bf16": "bfloat16", "fp16": "float16"}[config.precision],
            "lower_precision_safe_modules": [],  # gradients are summed over ranks in fp32
        }
    return merged(settings, raw_settings(config.deepspeed)) if config.deepspeed else settings


OWNED = {
    "train_batch_size": "data.batch_size",
    "train_micro_batch_size_per_gpu": "data.micro_batch_size",
    "gradient_accumulation_steps": "data.micro_batch_size",
    "managed_gradient_accumulation": "data.micro_batch_size",
    "gradient_clipping": "optimization.clip",
    "optimizer": "optimization",
    "scheduler": "optimization",
    "bf16": "engine.precision",
    "bfloat16": "engine.precision",
    "fp16": "engine.precision",
    "amp": "engine.precision",
    "data_types": "engine.precision",
    "torch_autocast": "engine.precision",
    "zero_allow_untested_optimizer": "optimization",
    "zero_force_ds_cpu_optimizer": "optimization",
}
CASTS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16"}
"""Keys that would cast parameters and teachers, and the precision to ask for instead."""


OWNED_OF_ZERO = {
    "stage": "engine.zero_stage decides",
    "offload_optimizer": "engine.offload.optimizer decides",
    "offload_param": "engine.offload.parameters decides",
    "stage3_param_persistence_threshold": "must be 0, since a teacher's small parameters would lag a step behind",
}


def raw_settings(path: str) -> dict[str, Any]:
    """The JSON of `engine.deepspeed`.

    Raises:
        ValueError: no such file, no JSON object, or a key that the config owns.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"engine.deepspeed: {path} can't be read as JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"engine.deepspeed: {path} must hold an object, as DeepSpeed's config does")
    for key, value in raw.items():
        if key in CASTS and isinstance(value, dict) and value.get("enabled"):
            raise ValueError(
                f"engine.deepspeed: {path} enables {key}, which casts parameters and teachers, and an average in 16 "
                f"bits never moves; remove it and set engine.precision: {CASTS[key]}, which keeps them in fp32"
            )
        if key in OWNED:
            raise ValueError(f"engine.deepspeed: {path} sets {key}, which {OWNED[key]} decides; remove it there")
    zero = raw.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ValueError(f"engine.deepspeed: zero_optimization in {path} must be an object")
    for key, owner in OWNED_OF_ZERO.items():
        if key in zero:
            raise ValueError(f"engine.deepspeed: {path} sets zero_optimization.{key}, which {owner}; remove it there")
    return raw


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` on top of `below`, mapping by mapping."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found
