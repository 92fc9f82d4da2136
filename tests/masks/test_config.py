import pytest
from pydantic import ValidationError

from src.masks.config import MaskConfig


def test_defaults_are_those_of_the_published_config() -> None:
    config = MaskConfig()
    assert (config.style, config.targets, config.min_context) == ("multiblock", 4, 10)
    assert (config.target_scale, config.target_aspect, config.context_scale) == ((0.15, 0.2), (0.75, 1.5), (0.85, 1.0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_scale", [0.3, 0.2]),
        ("target_scale", [0.0, 0.2]),
        ("context_scale", [0.5, 1.1]),
        ("temporal_scale", [float("nan"), 1.0]),
        ("target_aspect", [0.0, 1.0]),
        ("target_aspect", [2.0, 1.0]),
        ("targets", 0),
        ("min_context", 0),
        ("legacy_batch", 0),
        ("keep", [0.25, 0.15]),
        ("keep", [0.0, 0.25]),
        ("shortest", 0),
        ("style", "random"),
    ],
)
def test_impossible_values_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as error:
        MaskConfig.model_validate({key: tuple(value) if isinstance(value, list) else value})
    assert [problem["loc"][0] for problem in error.value.errors()] == [key]


def test_a_wrong_range_is_told_in_one_sentence() -> None:
    with pytest.raises(ValidationError, match=r"must be \[low, high\] with 0 < low <= high <= 1, got \[0.3, 0.2\]"):
        MaskConfig(target_scale=(0.3, 0.2))


def test_keys_that_do_nothing_with_a_style_are_named() -> None:
    keys = {"targets": 5, "target_scale": (0.2, 0.3), "context_scale": (0.9, 1.0), "min_context": 4, "shortest": 8}
    assert MaskConfig(style="runs", **keys).unused(1) == ["targets", "target_scale", "context_scale", "min_context"]
    assert MaskConfig(style="complement", keep=(0.2, 0.3), **keys).unused(1) == ["context_scale", "keep", "shortest"]
