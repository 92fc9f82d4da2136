"""JEPA on ECGs of different lengths is JEPA on each of them at its own length."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.config import load_config
from src.data.inputs import open_shards, preprocessing_of
from src.distributed.ranks import Ranks
from src.models.config import TransformerConfig
from src.randomness import Streams
from ssls.jepa.config import Config, LossConfig, ModelConfig
from ssls.jepa.model import JEPA, hide
from ssls.jepa.train import Collate
from ssls.objectives import schema_of
from tests.conftest import ROOT
from tests.ssls.jepa.test_regularizers import REGULARIZERS, SEED, STEP, cut, one_thread, step_of_engine  # noqa: F401

LENGTHS = ROOT / "configs" / "jepa" / "ecg_lengths_debug.yaml"
PATCH, TIMES = 4, 12
ENDS = (48, 28, 12, 21, 48, 4)
"""Samples of each record; the fourth ends inside its sixth token, the last has no signal in its context."""
VIT = {"name": "ecg_tiny", "leads": 2, "length": 48, "patch": PATCH, "width": 16, "depth": 2, "heads": 2}
ENCODERS = {
    "vit": VIT,
    "registers, rope": VIT | {"registers": 2, "positions": "rope"},
    "leads": VIT | {"name": "ecg_lead_tiny", "registers": 1},
    "s4": {"name": "s4", "leads": 2, "length": 48, "patch": PATCH, "width": 16, "depth": 2},
}
ALONE = Ranks(0, 1, torch.device("cpu"))


def make_jepa(encoder="vit", regularizer=None, teacher="ema", per_lead=False, **keys):
    """With weights that look in earnest, and a teacher of its own."""
    torch.manual_seed(0)
    predictor = {"width": 8, "depth": 2, "heads": 2, "per_lead": per_lead}
    sections = {"encoder": ENCODERS[encoder], "predictor": predictor, "teacher": {"kind": teacher}}
    model = ModelConfig.model_validate_json(json.dumps(sections))
    jepa = JEPA(model, LossConfig(regularizer=REGULARIZERS.get(regularizer)), seed=SEED, **{"padded": True} | keys)
    with torch.no_grad():
        for parameter in jepa.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return jepa


def make_batch(leads=1, ends=ENDS):
    """Zeros behind the ends; masks over time that are the same on all leads, the last context where no signal is."""
    draw = torch.Generator().manual_seed(1)
    others = torch.stack([1 + torch.randperm(TIMES - 1, generator=draw) for _ in ends])
    order = torch.cat([torch.zeros(len(ends), 1, dtype=torch.int64), others], 1)
    order[-1] = torch.tensor([2, 4, 6, 8, 10, 0, 1, 3, 5, 7, 9, 11])
    context, targets = order[:, :5].sort(1).values, order[:, 5:11].view(-1, 2, 3)
    keep = torch.arange(48) < torch.tensor(ends)[:, None]
    on_leads = torch.arange(leads)[:, None] * TIMES
    return {
        "ecg": torch.randn(len(ends), 2, 48, generator=draw) * keep[:, None],
        "keep": keep,
        "context": (context[:, None] + on_leads).flatten(1),
        "targets": (targets[:, :, None] + on_leads).flatten(2),
        "step": torch.full((len(ends),), STEP),
    }


def seen(student, ecg, context, tokens, leads):
    """The student's features of a context, numbered in the grid of the record's own length."""
    if isinstance(student.config, TransformerConfig):
        return student(ecg, context)
    return student(hide(ecg, context, (tokens // leads,))).gather(1, context[..., None].expand(-1, -1, 16))


def one_by_one(jepa, batch, leads):
    """Mean loss and the features of each view, each record cut to the tokens that hold its signal."""
    losses, wholes, contexts = [], [], []
    for row, keep in enumerate(batch["keep"]):
        times = -(-int(keep.sum()) // PATCH)
        ecg, at = (
            batch["ecg"][row : row + 1, :, : times * PATCH],
            [n for n in range(leads * TIMES) if n % TIMES < times],
        )
        tokens = jepa.get_submodule(jepa.exported)(ecg)
        wholes.append(tokens.mean(1))
        context = [n for n in batch["context"][row].tolist() if n in at]
        if not context:
            continue
        own = torch.tensor([[at.index(n) for n in context]])
        features = seen(jepa.student, ecg, own, len(at), leads)
        contexts.append(features.mean(1))
        for block in batch["targets"][row].tolist():
            block = [n for n in block if n in at]
            if block:
                guesses = jepa.predictor(features, torch.tensor([context]), torch.tensor([[block]]))[0, 0]
                wanted = F.layer_norm(tokens[0, [at.index(n) for n in block]], (16,))
                losses += [F.smooth_l1_loss(guess, one) for guess, one in zip(guesses, wanted, strict=True)]
    return torch.stack(losses), torch.cat(wholes), torch.cat(contexts)


def slopes_of(jepa, loss):
    jepa.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in jepa.named_parameters() if p.grad is not None}


def assert_same_slopes(found, wanted):
    for name, slope in wanted.items():
        allowed = 1e-5 * max(1.0, slope.abs().max().item())
        torch.testing.assert_close(found[name], slope, rtol=0.0, atol=allowed, msg=name)


@pytest.mark.parametrize("teacher", ["ema", "none"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_loss_and_gradients_are_those_of_each_record_at_its_own_length(encoder, teacher):
    """That no mask is read as one more kind of token shows at once: a record of 12 samples has 3 tokens of 12."""
    leads = 2 if encoder == "leads" else 1
    jepa = make_jepa(encoder, "vicreg" if teacher == "none" else None, teacher, per_lead=encoder == "leads")
    batch = make_batch(leads)
    losses, _, contexts = one_by_one(jepa, batch, leads)
    assert len(contexts) == len(ENDS) - 1, "the last record has no signal in its context"
    weight = jepa.weights(batch)["prediction"]
    assert weight == len(losses) < batch["targets"].numel()
    wanted = slopes_of(jepa, losses.mean())
    found = jepa(batch)["prediction"] / weight
    assert found.item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert_same_slopes(slopes_of(jepa, found), wanted)


@pytest.mark.parametrize("sizes", [[6], [1, 2, 3]], ids=["whole", "micro_batches"])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_regulariser_sees_means_over_signal_of_samples_that_have_it(regularizer, sizes):
    jepa, batch = make_jepa("vit", regularizer, "none"), make_batch()
    losses, wholes, contexts = one_by_one(jepa, batch, 1)
    views = {"whole": jepa.projection(wholes), "context": jepa.projection(contexts)}
    found = jepa.regularizer_losses(views | {"step": batch["step"]})  # the rows that count, and no others
    wanted = {name: value / 5.5 for name, value in found.items()} | {"prediction": losses.mean()}
    wanted["loss"] = sum(jepa.coefficients[name] * value for name, value in wanted.items())
    slopes = slopes_of(jepa, wanted["loss"])
    micro_batches = cut(batch, sizes)
    if len(sizes) > 1:  # the first record alone has no padding, and no mask
        assert micro_batches[0].pop("keep").all()
    jepa.zero_grad()
    losses, own = step_of_engine(jepa, micro_batches, ALONE)
    assert losses == pytest.approx({name: value.item() for name, value in wanted.items()}, rel=1e-4)
    assert_same_slopes(own, slopes)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_lies_in_the_padding_changes_no_bit(encoder):
    leads = 2 if encoder == "leads" else 1
    jepa, batch = make_jepa(encoder, "sigreg"), make_batch(leads)
    beyond = torch.arange(48) >= -(-batch["keep"].sum(1, keepdim=True) // PATCH) * PATCH
    found = []
    for garbage in (0.0, 1e3):
        ecg = batch["ecg"] + garbage * torch.randn(6, 2, 48) * beyond[:, None]
        losses, slopes = step_of_engine(jepa, cut(batch | {"ecg": ecg}, [6]), ALONE)
        embedded = jepa(batch | {"ecg": ecg}, mode="embed")
        found.append((losses, slopes, embedded["targets"][embedded["valid"]]))
        jepa.zero_grad()
    (losses, slopes, targets), (others, other_slopes, other_targets) = found
    assert losses == others and torch.equal(targets, other_targets)
    assert all(torch.equal(slopes[name], other_slopes[name]) for name in slopes)


@pytest.mark.parametrize("regularizer", [None, "sigreg", "vicreg"])
def test_a_batch_in_which_none_is_short_is_what_it_is_without_padding(regularizer):
    batch = make_batch()
    del batch["keep"]
    found = []
    for padded in (False, True):
        jepa = make_jepa("vit", regularizer, padded=padded)
        found.append((jepa.weights(batch), *step_of_engine(jepa, cut(batch, [4, 2]), ALONE)))
    (weights, losses, slopes), (others, other_losses, other_slopes) = found
    assert weights == others and losses == other_losses
    assert all(torch.equal(slopes[name], other_slopes[name]) for name in slopes)


def test_a_batch_without_anything_to_predict_moves_nothing():
    """Every context lies where no signal is."""
    from src.config.engine import EngineConfig
    from src.config.optimization import OptimizationConfig
    from src.engines.build import build_engine
    from src.engines.engine import Setup

    batch = make_batch(ends=(4, 4, 4)) | {"context": torch.tensor([[2, 3, 4]] * 3)}
    jepa = make_jepa(regularizer="sigreg")
    assert not any(jepa.weights(batch).values())
    optimization = OptimizationConfig(steps=9, lr=0.1, max_skipped=3)
    engine = build_engine(jepa, Setup(EngineConfig(), optimization, ALONE, 0, lambda step: 0.1, lambda step: 0.1))
    before = {name: value.clone() for name, value in jepa.state_dict().items()}
    for step in range(3):
        losses = engine.forward_backward(step, cut(batch, [2, 1]))
        assert losses["loss"] == 0
        if step == 2:
            with pytest.raises(ValueError, match=r"step 2: for 3 steps in a row no loss counted anything of its batch"):
                engine.step(step)
            break
        engine.step(step)
        engine.ema("teacher", "student", 0.5)
    assert all(torch.equal(value, before[name]) for name, value in jepa.state_dict().items())
    assert engine.optimizer_steps == 0 and engine.metrics()["empty_steps/prediction"] == 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The config, its shards and its preprocessing."""
    config = load_config(LENGTHS, [f"data.root={tmp_path_factory.mktemp('made') / 'shards'}"], schema_of)
    shards = open_shards(config.data)
    return config, shards, preprocessing_of(config.data, shards, config.model.encoder)


def test_masks_are_what_they_are_for_records_of_one_length(made):
    config, shards, preprocessing = made
    numbers = np.arange(12)
    samples, streams = shards.read(numbers), Streams.of_samples(0, np.zeros(12, np.int64), numbers)
    batch = Collate(config, preprocessing)(3, samples, streams)
    ends = [min(sample["ecg"].shape[1], 400) for sample in samples]
    assert min(ends) < 200 and batch["keep"].sum(1).tolist() == ends and batch["keep"].shape == (12, 400)
    whole = [{**sample, "ecg": np.zeros((12, 400), np.float32)} for sample in samples]
    other = Collate(config, preprocessing)(3, whole, streams)
    assert "keep" not in other and all(torch.equal(batch[name], other[name]) for name in ("context", "targets"))


def test_lengths_that_a_step_draws_are_refused():
    def keys(encoder, **transform):
        sections = {
            "objective": "jepa",
            "data": {"root": "shards", "batch_size": 4, "leads": ["I", "II"], "transform": transform},
            "model": {"encoder": encoder},
            "optimization": {"steps": 4, "lr": 1e-3},
            "logging": {"folder": "runs/x"},
        }
        return Config.model_validate_json(json.dumps(sections))

    for encoder in ENCODERS.values():
        assert keys(encoder, short="pad").data.transform.short == "pad"
    with pytest.raises(ValueError, match=r"lengths is not for this objective.* data.transform.short to pad"):
        keys(VIT, lengths=[24, 48], short="pad")


def test_no_token_to_look_at_is_no_number_anywhere():
    """The record without signal in its context beside others, in 16 bits too."""
    jepa, batch = make_jepa("registers, rope"), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = jepa(batch)["prediction"]
    loss.backward()
    assert math.isfinite(loss.item()) and all(p.grad.isfinite().all() for p in jepa.student.parameters())
