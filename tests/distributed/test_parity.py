"""One process and two give the same training, where differences would show: peak rate, fast EMA, decay, clipping."""

import pytest
import torch

from tests.commands import metrics, succeed, tensors

pytestmark = pytest.mark.distributed
STEPS = 20
CLIP, BETA = 0.05, 0.9
GRADIENT_TOLERANCE, UPDATE_TOLERANCE = 1e-5, 1e-3
SETTINGS = [
    "optimization.epochs=null",
    f"optimization.steps={STEPS}",
    "optimization.warmup_epochs=null",
    "optimization.lr=3e-3",
    "optimization.final_lr=3e-3",
    "optimization.weight_decay=0.1",
    "optimization.final_weight_decay=null",
    f"optimization.clip={CLIP}",
    "model.teacher.momentum=0.9",
    "model.teacher.final_momentum=0.9",
    "checkpoint.every=1",
    "checkpoint.keep_last=100",
    "logging.every=1",
]
FAULTS = ["ema_off", "weight_decay_off", "gradients_halved", "batch_doubled"]


def train(folder, shards, world_size, extra=(), fault=None):
    script = "main.py" if fault is None else "tests/distributed/faulty_main.py"
    words = [] if fault is None else ["--fault", fault]
    settings = [f"logging.folder={folder}", f"data.root={shards}", *SETTINGS, *extra]
    debug = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", *["cpu"] * world_size]
    succeed(*debug, *words, "--set", *settings, script=script)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module")
def one_process(shards, tmp_path_factory):
    return train(tmp_path_factory.mktemp("one"), shards, 1)


def flat(found, kind, network=""):
    chosen = [value.flatten() for key, value in sorted(found.items()) if key[0] == kind and key[1].startswith(network)]
    return torch.cat(chosen).double()


def first_gradient(folder):
    """The raw global gradient of step 0, from the first moment: exp_avg = (1 - beta) * clipped gradient."""
    norm = metrics(folder)[0]["grad_norm"]
    assert norm > CLIP, "clipping must be active"
    return flat(tensors(folder, 1), "exp_avg") / (1 - BETA) * (norm / CLIP)


def relative(difference, scale):
    return (difference.norm() / scale.norm()).item()


def discrepancies(reference, other):
    """Relative differences: gradient of step 1; update, teacher and moments after all steps."""
    gradient = first_gradient(reference)
    found = {"gradient": relative(first_gradient(other) - gradient, gradient)}
    early, ends = tensors(reference, 1), (tensors(reference, STEPS), tensors(other, STEPS))
    for name, kind, network in [
        ("update", "model", "student."),
        ("predictor update", "model", "predictor."),
        ("teacher", "model", "teacher."),
        ("first moment", "exp_avg", ""),
        ("second moment", "exp_avg_sq", ""),
    ]:
        at_one, at_end, other_end = (flat(where, kind, network) for where in (early, *ends))
        found[name] = relative(other_end - at_end, at_end - at_one)
    return found


def within(found):
    return all(
        value <= (GRADIENT_TOLERANCE if name == "gradient" else UPDATE_TOLERANCE) for name, value in found.items()
    )


@pytest.mark.parametrize(
    ("world_size", "micro_batch_size"), [(2, "null"), (1, 5), (2, 3)], ids=["two-ranks", "accumulated", "both"]
)
def test_training_does_not_depend_on_ranks_or_accumulation(one_process, shards, tmp_path, world_size, micro_batch_size):
    other = train(tmp_path, shards, world_size, [f"data.micro_batch_size={micro_batch_size}"])
    found = discrepancies(one_process, other)
    print(found)
    assert within(found), found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees_a_seeded_fault(one_process, shards, tmp_path, fault):
    found = discrepancies(one_process, train(tmp_path, shards, 2, fault=fault))
    assert not within(found), found


def test_bf16_computes_in_bf16_and_keeps_weights_moments_and_a_moving_teacher_in_fp32(one_process, shards, tmp_path):
    rounded = train(tmp_path, shards, 2, ["engine.precision=bf16"])
    exact_losses, losses = ([record["loss"] for record in metrics(folder)] for folder in (one_process, rounded))
    assert losses[0] != exact_losses[0] and losses == pytest.approx(exact_losses, rel=2e-2)
    found = tensors(rounded, STEPS)
    assert all(value.dtype == torch.float32 for value in found.values())
    moved = flat(found, "model", "teacher.") - flat(tensors(rounded, 1), "model", "teacher.")
    expected = flat(tensors(one_process, STEPS), "model", "teacher.") - flat(
        tensors(one_process, 1), "model", "teacher."
    )
    assert relative(moved - expected, expected) < 0.2
