"""MECLIP beside its definition: what counts, what does not, and one big batch beside its parts."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.door import contrasted
from src.engines.engine import Setup
from src.models.config import EncoderConfig
from src.models.text_config import JointHeadConfig, SmallTextConfig
from ssls.meclip.config import LossConfig, ModelConfig
from ssls.meclip.model import MECLIP

ROWS, LENGTH, TOKENS = 10, 7, 40
MODES = ("ignore", "exclude", "share")
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(duplicates="exclude", norm="layer", **loss):
    torch.manual_seed(0)
    head = JointHeadConfig(widths=(12, 8), norm=norm)
    model = ModelConfig(
        encoder=EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=1, heads=2),
        text=SmallTextConfig(name="small", width=16, depth=1, heads=2, positions=LENGTH),
        ecg_head=head,
        text_head=head,
    )
    return MECLIP(model, LossConfig(duplicates=duplicates, **loss), TOKENS)


def batch_of(ids=range(ROWS), silent=()):
    """Rows with these ids, some without a text."""
    draw = torch.Generator().manual_seed(1)
    keep = torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (ROWS, 1), generator=draw)
    keep[list(silent)] = False
    return {
        "ecg": torch.randn(ROWS, 2, 48, generator=draw),
        "text": torch.randint(0, TOKENS, (ROWS, LENGTH), generator=draw),
        "text_keep": keep,
        "has_text": keep.any(1),
        "ids": torch.tensor(list(ids)),
    }


def only(batch, rows):
    return {name: value[rows] for name, value in batch.items()}


def cut(batch, sizes):
    parts = {name: value.split(sizes) for name, value in batch.items()}
    return [{name: part[number] for name, part in parts.items()} | {"keys": []} for number in range(len(sizes))]


def step_of_engine(model, micro_batches):
    """The loss and every gradient of one step."""
    setup = Setup(EngineConfig(), OptimizationConfig(steps=1, lr=1e-3), ALONE, 0, lambda step: 1e-3, lambda step: 0.0)
    losses = build_engine(model, setup).forward_backward(0, micro_batches)
    learns = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return losses["clip"].item(), {name: value.grad.clone() for name, value in learns.items()}


def assert_close(slopes, wanted):
    """Up to the rounding of the largest: BatchNorm takes biases before it away, and leaves them rounding alone."""
    largest = max(slope.abs().max().item() for slope in wanted.values())
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, wanted[name], rtol=1e-4, atol=1e-5 * largest, msg=name)


def loss_of(model, batch):
    return (contrasted(model, model(batch))["clip"] / model.weights(batch)["clip"]).item()


def test_without_duplicates_it_is_clip_in_every_mode():
    batch = batch_of()
    model = make("ignore")
    features = model(batch)["features"]
    ecg, text = F.normalize(features["ecg"]), F.normalize(features["text"])
    logits, own = ecg @ text.T / 0.07, torch.arange(ROWS)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = [loss_of(make(mode), batch) for mode in MODES]
    assert found[0] == found[1] == found[2] == pytest.approx(expected.item(), rel=1e-5)


def test_with_duplicates_the_modes_differ():
    batch = batch_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    assert len({round(loss_of(make(mode), batch), 4) for mode in MODES}) == 3


def test_where_equal_ids_are_equal_texts_exclude_and_share_are_one_loss():
    """Equal texts have one vector, so what is right for one sample scores as what is right for all of them does."""
    batch = batch_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 0])
    for name in ("text", "text_keep"):
        batch[name] = batch[name][[0, 0, 0, 3, 3, 5, 6, 7, 8, 0]]
    batch["has_text"] = batch["text_keep"].any(1)
    (loss, slopes), (other, wanted) = (step_of_engine(make(mode), cut(batch, [ROWS])) for mode in ("exclude", "share"))
    assert loss == pytest.approx(other, rel=1e-6) and loss != pytest.approx(loss_of(make("ignore"), batch), rel=1e-3)
    assert_close(slopes, wanted)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_rows_without_text_change_nothing_for_the_others(mode, norm):
    silent = [2, 6, 7]
    batch = batch_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 0], silent)
    spoken = [row for row in range(ROWS) if row not in silent]
    model, alone = make(mode, norm), make(mode, norm)
    loss, slopes = step_of_engine(model, cut(batch, [ROWS]))
    expected, wanted = step_of_engine(alone, cut(only(batch, spoken), [len(spoken)]))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(slopes, wanted)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, dict(alone.named_buffers())[name], rtol=1e-5, atol=1e-6, msg=name)
    assert model.weights(batch) == {"clip": 7.0}


def test_micro_batches_are_one_big_batch():
    batch = batch_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 0], [4])
    loss, slopes = step_of_engine(make(), cut(batch, [3, 2, 5]))
    expected, wanted = step_of_engine(make(), cut(batch, [ROWS]))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_close(slopes, wanted)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_parameter_has_a_gradient_also_of_a_micro_batch_without_text(norm):
    batch = batch_of(silent=range(4))
    _, slopes = step_of_engine(make(norm=norm), cut(batch, [4, 1, 5]))
    lacking = [name for name, slope in slopes.items() if not slope.isfinite().all() or not slope.any()]
    assert all(name.endswith((".key.bias", ".bias")) for name in lacking), lacking


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_one_text_is_no_nan(mode):
    loss, slopes = step_of_engine(make(mode), cut(batch_of([3] * ROWS), [ROWS]))
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert (loss == 0.0) == (mode != "ignore") and not math.isnan(loss)


def test_a_batch_without_any_text_counts_nothing():
    model = make(norm="batch")
    loss, _ = step_of_engine(model, cut(batch_of(silent=range(ROWS)), [ROWS]))
    assert loss == 0.0 and model.weights(batch_of(silent=range(ROWS))) == {"clip": 0.0}
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_near_and_finite(mode, dtype):
    batch, model = batch_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 0], [1]), make(mode, "batch")
    with torch.autocast("cpu", dtype):
        found = loss_of(model, batch)
    assert found == pytest.approx(loss_of(make(mode, "batch"), batch), rel=0.05)


def test_labels_are_alike_from_their_overlap_on():
    batch = batch_of()
    labels = torch.eye(ROWS, dtype=torch.bool)
    labels[1, 0] = True  # {0, 1} beside {0}: half of what any of them has
    batch["ids"] = labels
    apart, alike = (loss_of(make("exclude", ids="labels", overlap=overlap), batch) for overlap in (1.0, 0.5))
    assert apart == pytest.approx(loss_of(make("ignore"), batch)) and alike < apart


def test_the_joint_features_are_of_length_one_and_alone_what_they_are_together():
    model, batch = make(norm="batch").train(), batch_of()
    model(batch)
    model.eval()
    tokens = model(batch, "embed")["tokens"]
    ecg = model({"features": tokens.mean(1)}, "join_ecg")["joint"]
    text = model(batch, "join_text")["joint"]
    torch.testing.assert_close(torch.cat([ecg, text]).norm(dim=1), torch.ones(2 * ROWS))
    torch.testing.assert_close(model(only(batch, [4]), "join_text")["joint"], text[4:5], atol=1e-6, rtol=0)
    assert not text.requires_grad
