"""An encoder with a head as one module: gradients, dropout, padding, and stages that stay as they are."""

import copy
import math

import pytest
import torch

from src.models.config import EncoderConfig, ResNetConfig, S4Config
from ssls.finetune.config import FocalConfig, HeadConfig, LossConfig, ModelConfig
from ssls.finetune.model import BRANCHES, KEPT, LABELS, FineTuned, frozen_modules

VIT = EncoderConfig(name="ecg_tiny", leads=2, length=64, patch=8, width=16, depth=2, heads=2)
RESNET = ResNetConfig(name="xresnet1d_50", leads=2, length=64, depths=(1, 1, 1, 1), widths=(4, 4, 4, 4))
S4 = S4Config(name="s4", leads=2, length=64, patch=8, width=16, depth=2)
ENCODERS = {"vit": VIT, "resnet": RESNET, "s4": S4}


def built(encoder=VIT, task="multilabel", weights=None, model=None, loss=None):
    torch.manual_seed(0)
    return FineTuned(model or ModelConfig(), loss or LossConfig(), encoder, "ecg", task, 3, weights)


def batch(rows=6, seed=1):
    torch.manual_seed(seed)
    return {"ecg": torch.randn(rows, 2, 64), LABELS: (torch.rand(rows, 3) > 0.5).float()}


@pytest.mark.parametrize("pool", ["mean", "attentive"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_trainable_parameter_gets_a_gradient(kind, pool):
    model = built(ENCODERS[kind], model=ModelConfig(head=HeadConfig(pool=pool)))
    sums = model(batch())
    assert sums.keys() == model.weights(batch()).keys() == model.coefficients.keys()
    sums["classification"].backward()
    lacking = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking and all(p.ndim for p in model.parameters())


def test_the_sum_over_the_weight_is_the_mean_over_known_labels():
    model, given = built().eval(), batch()
    given[LABELS][0] = math.nan
    given[LABELS][1, 2] = math.nan
    assert model.weights(given) == {"classification": 14.0}
    with torch.no_grad():
        p = model(given, mode="predict")["probabilities"].double()
    truth = given[LABELS].double()
    mean = -torch.nanmean(truth * p.log() + (1 - truth) * (1 - p).log())
    assert model(given)["classification"].item() / 14 == pytest.approx(mean.item(), rel=1e-5)


def test_samples_of_unknown_class_count_as_none():
    model, given = built(task="multiclass"), batch()
    given[LABELS] = torch.eye(3).repeat(2, 1)
    given[LABELS][4] = math.nan
    assert model.weights(given) == {"classification": 5.0}
    probabilities = model(given, mode="predict")["probabilities"]
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    without = {name: torch.cat([value[:4], value[5:]]) for name, value in given.items()}
    torch.testing.assert_close(model(given)["classification"], model(without)["classification"])


def test_weights_and_focal_reach_the_loss():
    plain = built()(batch())["classification"]
    for other in (
        built(weights=torch.tensor([3.0, 1.0, 1.0])),
        built(loss=LossConfig(focal=FocalConfig())),
        built(loss=LossConfig(label_smoothing=0.1)),
    ):
        assert other(batch())["classification"] != plain


def test_class_weights_are_in_no_checkpoint():
    """They are counted again, so that a checkpoint of other weights does not bring them in unseen."""
    model = built(weights=torch.ones(3))
    assert model.state_dict().keys() == built().state_dict().keys()


def test_dropout_leaves_out_what_the_batch_says_and_only_in_training():
    model, given = built(model=ModelConfig(head=HeadConfig(dropout=0.25))), batch()
    given[KEPT] = torch.zeros(6, 16, dtype=torch.bool)
    bias_alone = torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros(6, 3), given[LABELS], reduction="sum")
    torch.testing.assert_close(model(given)["classification"], bias_alone)
    torch.manual_seed(0)
    kept = torch.rand(20000, 16) >= 0.25
    tokens = torch.ones(20000, 4, 16)
    mean = model.head(tokens, None, kept).mean(0)
    torch.testing.assert_close(mean, model.head(tokens[:1], None, None)[0], rtol=0.02, atol=1e-3)
    first = model(given, mode="predict")["probabilities"]
    given[KEPT].fill_(True)
    assert torch.equal(model(given, mode="predict")["probabilities"], first)


def test_branches_that_are_dropped_change_training_alone():
    encoder = VIT.model_copy(update={"drop_path": 0.5})
    model, given = built(encoder), batch()
    given[BRANCHES] = torch.zeros(6, 2, 2, dtype=torch.bool)
    all_kept = {**given, BRANCHES: torch.ones(6, 2, 2, dtype=torch.bool)}
    assert model(given)["classification"] != model(all_kept)["classification"]
    predicted = (model(one, mode="predict")["probabilities"] for one in (given, all_kept))
    assert torch.equal(*predicted)


@pytest.mark.parametrize("pool", ["mean", "attentive"])
def test_padding_changes_no_prediction(pool):
    model = built(model=ModelConfig(head=HeadConfig(pool=pool))).eval()
    given = batch()
    given["keep"] = torch.ones(6, 64, dtype=torch.bool)
    given["keep"][:, 40:] = False
    other = {**given, "ecg": given["ecg"].clone()}
    other["ecg"][:, :, 40:] = 1e3
    torch.testing.assert_close(
        model(given, mode="predict")["probabilities"], model(other, mode="predict")["probabilities"]
    )


def test_frozen_stages_do_not_move_nor_do_their_statistics():
    """By an engine, as a run has it, which keeps them in evaluation."""
    from src.config.engine import EngineConfig
    from src.config.optimization import OptimizationConfig
    from src.distributed.ranks import Ranks
    from src.engines.build import build_engine
    from src.engines.engine import Setup

    model = built(RESNET, model=ModelConfig(freeze=3))
    before = copy.deepcopy(model.state_dict())
    setup = Setup(
        EngineConfig(),
        OptimizationConfig(steps=3, lr=0.1, layer_decay=0.5),
        Ranks(0, 1, torch.device("cpu")),
        0,
        lambda step: 0.1,
        lambda step: 0.1,
    )
    engine = build_engine(model, setup)
    for step in range(3):
        engine.forward_backward(step, [{**batch(seed=step), "keys": []}])
        engine.step(step)
        engine({"ecg": batch()["ecg"]}, "predict")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("encoder.stem.", "encoder.blocks.0.", "encoder.blocks.1.")
    assert not {name for name in moved if name.startswith(frozen)}
    assert {name for name in before if not name.startswith(frozen)} == moved
    assert any(name.startswith(frozen) and "running_mean" in name for name in before)


def test_stages_are_frozen_by_number_or_by_name():
    stages = built().encoder.stages()
    assert frozen_modules(stages, 0) == ()
    assert frozen_modules(stages, 2) == frozen_modules(stages, ("stem", "block_0"))
    assert frozen_modules(stages, 3)[-2:] == ("encoder.blocks.1", "encoder.norm")
    with pytest.raises(ValueError, match="model.freeze is 4, but the encoder has 3 stages: stem, block_0, block_1"):
        frozen_modules(stages, 4)
    with pytest.raises(ValueError, match="the encoder has no stage block_2; it has stem, block_0, block_1"):
        frozen_modules(stages, ("block_2",))


def test_heads_that_do_not_fit_the_width_are_refused():
    with pytest.raises(ValueError, match="model.head.heads: 3 do not divide the encoder's width 16"):
        built(model=ModelConfig(head=HeadConfig(pool="attentive", heads=3)))
