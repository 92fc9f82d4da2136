"""JEPA against its definition."""

import json

import pytest
import torch
import torch.nn.functional as F

from src.models.config import EncoderConfig, PredictorConfig
from ssls.jepa.config import Config, LossConfig, ModelConfig, TeacherConfig
from ssls.jepa.model import JEPA

MODEL = ModelConfig(
    encoder=EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=2, heads=2),
    predictor=PredictorConfig(width=8, depth=2, heads=2),
    teacher=TeacherConfig(),
)


@pytest.fixture
def jepa():
    torch.manual_seed(0)
    return JEPA(MODEL, LossConfig())


def make_batch(B=4):
    generator = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(12, generator=generator) for _ in range(B)])
    return {
        "ecg": torch.randn(B, 2, 48, generator=generator),
        "context": order[:, :5].sort(1).values,
        "targets": order[:, 5:11].view(B, 2, 3),
    }


@pytest.mark.parametrize("kind", ["smooth_l1", "l1"])
def test_loss_is_the_sum_over_target_tokens_one_block_at_a_time(kind):
    torch.manual_seed(0)
    jepa = JEPA(MODEL, LossConfig(kind=kind))
    with torch.no_grad():  # a teacher of its own, with an affine norm that layer_norm must follow, not replace
        for p in jepa.teacher.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    batch = make_batch()
    expected = 0.0
    for b in range(4):
        tokens = jepa.teacher(batch["ecg"][b : b + 1])[0]
        context = jepa.student(batch["ecg"][b : b + 1], batch["context"][b : b + 1])
        for block in batch["targets"][b]:
            predicted = jepa.predictor(context, batch["context"][b : b + 1], block.view(1, 1, 3))[0, 0]
            for token, guess in zip(block, predicted, strict=True):
                h = tokens[token]
                target = (h - h.mean()) / torch.sqrt(h.var(unbiased=False) + 1e-5)
                distance = (guess - target).abs()
                huber = torch.where(distance < 1, 0.5 * distance**2, distance - 0.5)
                expected += (huber if kind == "smooth_l1" else distance).mean().item()
    assert jepa(batch)["prediction"].item() == pytest.approx(expected, rel=1e-5)
    assert jepa.weights(batch) == {"prediction": 4 * 2 * 3}


def test_target_blocks_do_not_see_one_another(jepa):
    batch = make_batch()
    context = jepa.student(batch["ecg"], batch["context"])
    together = jepa.predictor(context, batch["context"], batch["targets"])
    alone = jepa.predictor(context, batch["context"], batch["targets"][:, 1:])
    torch.testing.assert_close(together[:, 1:], alone, rtol=1e-5, atol=1e-6)


def test_the_student_sees_only_the_context(jepa):
    batch = make_batch()
    before = jepa.student(batch["ecg"], batch["context"])
    hidden = torch.ones(4, 12, dtype=torch.bool).scatter(1, batch["context"], False)
    noise = torch.randn(4, 2, 48) * hidden.repeat_interleave(4, dim=1).unsqueeze(1)
    assert torch.equal(before, jepa.student(batch["ecg"] + noise, batch["context"]))


def test_every_trainable_parameter_gets_a_gradient_and_the_teacher_none(jepa):
    jepa(make_batch())["prediction"].backward()
    for name, parameter in jepa.named_parameters():
        if name.startswith("teacher."):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_teacher_starts_as_the_student(jepa):
    for (name, own), other in zip(jepa.teacher.named_parameters(), jepa.student.parameters(), strict=True):
        assert torch.equal(own, other), name


def test_embed_gives_the_teachers_tokens(jepa):
    batch = make_batch()
    tokens = jepa(batch, mode="embed")["tokens"]
    assert torch.equal(tokens, jepa.teacher(batch["ecg"])) and not tokens.requires_grad


def test_no_parameter_is_zero_dimensional(jepa):
    """FSDP2 and DeepSpeed refuse scalars."""
    assert all(parameter.dim() > 0 for parameter in jepa.parameters())


def test_loss_is_computed_in_fp32_under_autocast(jepa):
    with torch.autocast("cpu", torch.bfloat16):
        assert jepa(make_batch())["prediction"].dtype == torch.float32


def test_a_prediction_of_the_target_costs_nothing():
    from src.losses.regression import feature_regression

    h = F.layer_norm(torch.randn(2, 3, 8), (8,))
    assert feature_regression(h, h, "l1").sum() == 0 and feature_regression(h, h, "smooth_l1").sum() == 0


def two_kinds():
    first, second = make_batch(), make_batch(4)
    second["context"], second["targets"] = (
        second["targets"].flatten(1)[:, :4].sort(1).values,
        second["context"][:, None],
    )
    batch = {"ecg": first["ecg"]}
    for number, kind in enumerate((first, second)):
        batch |= {f"{name}_{number}": kind[name] for name in ("context", "targets")}
    return batch, first, second


@pytest.mark.parametrize("tokens", [1, 2])
def test_two_kinds_of_masks_are_two_predictions_of_one_student(tokens):
    torch.manual_seed(0)
    predictor = MODEL.predictor.model_copy(update={"mask_tokens": tokens})
    model = MODEL.model_copy(update={"predictor": predictor})
    both, single = JEPA(model, LossConfig(), kinds=2), JEPA(model, LossConfig())
    single.load_state_dict(both.state_dict())
    batch, first, second = two_kinds()
    found = both(batch)
    assert found.keys() == both.coefficients.keys() == {"prediction_0", "prediction_1"}
    assert set(both.coefficients.values()) == {0.5}
    assert both.weights(batch) == {"prediction_0": 24.0, "prediction_1": 20.0}
    assert torch.equal(found["prediction_0"], single(first)["prediction"])
    other = single(second)["prediction"]
    assert torch.equal(found["prediction_1"], other) == (tokens == 1)  # else another token stands at its targets
    sum(found.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in both.predictor.mask_tokens)


@pytest.mark.parametrize("kinds", [1, 3])
def test_as_many_mask_tokens_as_kinds_of_masks(kinds):
    mask = {"targets": 2, "min_context": 4}
    keys = {
        "objective": "jepa",
        "data": {"root": "shards", "batch_size": 4, "leads": ["I", "II"]},
        "model": {"encoder": MODEL.encoder.model_dump(mode="json"), "predictor": {"mask_tokens": 2}},
        "mask": mask,
        "more_masks": [mask] * (kinds - 1),
        "optimization": {"steps": 4, "lr": 1e-3},
        "logging": {"folder": "runs/x"},
    }
    with pytest.raises(ValueError, match=f"mask_tokens is 2, but mask and more_masks are {kinds} kinds"):
        Config.model_validate_json(json.dumps(keys))
