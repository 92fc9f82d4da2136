"""What a user may say to DeepSpeed in its own words, and what belongs to the config."""

import json

import pytest
from pydantic import ValidationError

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.engines.zero_settings import deepspeed_settings


def settings(tmp_path, raw=None, clip=0.5, trained=10**9, **engine):
    path = tmp_path / "deepspeed.json"
    if raw is not None:
        path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
        engine["deepspeed"] = str(path)
    config = EngineConfig.model_validate({"name": "deepspeed", **engine})
    return deepspeed_settings(config, OptimizationConfig(steps=1, lr=1e-3, clip=clip), trained)


def test_a_raw_json_is_merged_on_top(tmp_path):
    raw = {"zero_optimization": {"reduce_bucket_size": 1000}, "wall_clock_breakdown": True}
    found = settings(tmp_path, raw, zero_stage=2)
    assert found["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 1000}
    assert found["wall_clock_breakdown"] is True


def test_the_buffer_for_gradients_is_a_quarter_of_the_model_and_200_megabytes_at_most(tmp_path):
    for trained, size in ((2, 1), (1000, 250), (10**9, 50_000_000)):
        assert settings(tmp_path, trained=trained)["zero_optimization"]["reduce_bucket_size"] == size


def test_clipping_is_the_configs_and_never_deepspeeds_default_of_1(tmp_path):
    assert settings(tmp_path, zero_stage=1)["gradient_clipping"] == 0.5
    assert settings(tmp_path, zero_stage=1, clip=None)["gradient_clipping"] == 0.0


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_16_bits_are_autocast(tmp_path, precision, dtype):
    found = settings(tmp_path, precision=precision)
    assert found["torch_autocast"]["dtype"] == dtype and not {"bf16", "fp16"} & found.keys()


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"bf16": {"enabled": True}}, ["enables bf16", "casts parameters and teachers", "engine.precision: bf16"]),
        ({"fp16": {"enabled": True}}, ["enables fp16", "engine.precision: fp16"]),
        ({"bfloat16": {"enabled": True}}, ["enables bfloat16", "engine.precision: bf16"]),
        ({"amp": {"enabled": True}}, ["amp", "engine.precision"]),
        ({"bf16": True}, ["bf16", "engine.precision"]),
        ({"bf16": {"enabled": False}}, ["bf16", "engine.precision"]),
        ({"gradient_clipping": 1.0}, ["gradient_clipping", "optimization.clip"]),
        ({"train_batch_size": 8}, ["train_batch_size", "data.batch_size"]),
        ({"optimizer": {"type": "Adam"}}, ["optimizer", "optimization"]),
        ({"zero_optimization": {"stage": 1}}, ["zero_optimization.stage", "engine.zero_stage"]),
        (
            {"zero_optimization": {"offload_param": {"device": "cpu"}}},
            ["zero_optimization.offload_param", "engine.offload.parameters"],
        ),
        (
            {"zero_optimization": {"stage3_param_persistence_threshold": 1}},
            ["stage3_param_persistence_threshold", "teacher"],
        ),
        ({"zero_optimization": 3}, ["zero_optimization", "object"]),
        ([1], ["must hold an object"]),
        ("{", ["can't be read as JSON"]),
    ],
)
def test_what_belongs_to_the_config_or_would_cast_the_teacher_is_refused(tmp_path, raw, parts):
    with pytest.raises(ValueError) as raised:
        settings(tmp_path, raw)
    told = str(raised.value)
    assert told.startswith("engine.deepspeed: ") and "\n" not in told and "deepspeed.json" in told
    assert all(part in told for part in parts), told


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"engine\.deepspeed: .*none\.json can't be read"):
        settings(tmp_path, deepspeed=str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("engine", "where"),
    [
        ({"name": "ddp", "offload": {"optimizer": True}}, "zero_stage 1, 2 or 3"),
        ({"name": "fsdp", "offload": {"optimizer": True}}, "zero_stage 1, 2 or 3"),
        ({"name": "deepspeed", "zero_stage": 0, "offload": {"optimizer": True}}, "zero_stage 1, 2 or 3"),
        ({"name": "deepspeed", "zero_stage": 2, "offload": {"parameters": True}}, "deepspeed with zero_stage 3"),
        ({"name": "plain", "offload": {"parameters": True}}, "fsdp, or deepspeed with zero_stage 3"),
        ({"name": "deepspeed", "replicas": 2}, "it needs fsdp"),
        ({"name": "fsdp", "zero_stage": 3}, "it needs deepspeed"),
        ({"zero_stage": 0}, "it needs deepspeed"),
        ({"name": "fsdp", "deepspeed": "x.json"}, "it needs deepspeed"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_one_that_can(engine, where):
    with pytest.raises(ValidationError, match="is not for engine") as raised:
        EngineConfig.model_validate(engine)
    assert where in str(raised.value)
