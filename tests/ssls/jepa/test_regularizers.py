"""SIGReg and VICReg in JEPA: equal to their definitions, and what keeps a student without a teacher from collapse."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from src.checkpoints.read import checkpoint_folders
from src.config import load_config
from src.config.engine import EngineConfig
from src.config.optimization import OptimizationConfig
from src.distributed.ranks import Ranks
from src.engines.build import build_engine
from src.engines.engine import Setup
from src.evaluation.encoder import load_encoder
from src.losses.config import SIGRegConfig, VICRegConfig
from src.losses.sigreg import draw_directions
from src.models.config import EncoderConfig, PredictorConfig
from src.run.logs import LOGGER
from ssls.jepa.config import Config, LossConfig, ModelConfig, TeacherConfig
from ssls.jepa.model import JEPA
from ssls.objectives import schema_of
from tests.commands import lines, same_tensors, tensors
from tests.config.record_reads import experiment
from tests.conftest import ROOT
from tools.parity import ENGINES, discrepancies, train, train_all

DEBUG, STUDENT_ONLY = (ROOT / "configs" / "jepa" / f"{stem}.yaml" for stem in ("ecg_debug", "ecg_lejepa_debug"))
SEED, STEP = 5, 3
REGULARIZERS = {
    "sigreg": SIGRegConfig(kind="sigreg", coefficient=0.3, directions=24, projection=(12, 6)),
    "vicreg": VICRegConfig(kind="vicreg", variance=2.0, covariance=0.5),
}
CASES = {
    "sigreg, no teacher, two masks": ("sigreg", "none", 2),
    "vicreg, no teacher": ("vicreg", "none", 1),
    "sigreg beside a teacher": ("sigreg", "ema", 1),
    "vicreg beside a teacher, two masks": ("vicreg", "ema", 2),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several, by far where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_jepa(regularizer, teacher, kinds):
    torch.manual_seed(0)
    model = ModelConfig(
        encoder=EncoderConfig(name="ecg_tiny", leads=2, length=48, patch=4, width=16, depth=2, heads=2),
        predictor=PredictorConfig(width=8, depth=1, heads=2),
        teacher=TeacherConfig(kind=teacher),
    )
    return JEPA(model, LossConfig(regularizer=REGULARIZERS[regularizer]), kinds, seed=SEED)


def make_batch(rows, kinds):
    draw = torch.Generator().manual_seed(1)
    batch = {"ecg": torch.randn(rows, 2, 48, generator=draw), "step": torch.full((rows,), STEP)}
    for kind in range(kinds):
        order = torch.stack([torch.randperm(12, generator=draw) for _ in range(rows)])
        number = f"_{kind}" if kinds > 1 else ""
        batch |= {f"context{number}": order[:, :5].sort(1).values, f"targets{number}": order[:, 5:11].view(-1, 2, 3)}
    return batch


def cut(batch, sizes):
    """Micro-batches of these rows."""
    parts = {name: value.split(sizes) for name, value in batch.items()}
    return [{name: part[number] for name, part in parts.items()} | {"keys": []} for number in range(len(sizes))]


def by_definition(jepa, batch, regularizer, teacher, kinds):
    """Losses of one process, without engine, weights or collectives; the papers' formulas over each view."""
    whole = jepa.student(batch["ecg"]) if teacher == "none" else jepa.teacher(batch["ecg"]).detach()
    views, losses = [whole] if teacher == "none" else [], {}
    for number in [f"_{kind}" for kind in range(kinds)] if kinds > 1 else [""]:
        context, targets = batch[f"context{number}"], batch[f"targets{number}"]
        views.append(jepa.student(batch["ecg"], context))
        wanted = F.layer_norm(whole, (16,))[torch.arange(len(whole))[:, None, None], targets]
        losses[f"prediction{number}"] = F.smooth_l1_loss(jepa.predictor(views[-1], context, targets), wanted)
    views = [jepa.projection(view.mean(1)) for view in views]
    if regularizer == "sigreg":
        directions, t = draw_directions(6, 24, SEED, STEP).float(), torch.linspace(-5, 5, 17)
        gaussian = torch.exp(-t.square() / 2)
        ecfs = [torch.exp(1j * (view @ directions).unsqueeze(2) * t).mean(0) for view in views]
        found = [torch.trapezoid((ecf - gaussian).abs().square() * gaussian, t, dim=1).mean() for ecf in ecfs]
        losses["sigreg"] = len(whole) * sum(found) / len(found)
    else:
        losses["variance"] = sum(F.relu(1 - (view.var(0) + 1e-4).sqrt()).mean() for view in views) / len(views)
        off = [view.T.cov() * (1 - torch.eye(view.shape[1])) for view in views]
        losses["covariance"] = sum(part.square().sum() / len(part) for part in off) / len(off)
    weights = {"sigreg": 0.3, "variance": 2.0, "covariance": 0.5}
    losses["loss"] = sum(weights.get(name, 1 / kinds) * value for name, value in losses.items())
    return losses


def step_of_engine(jepa, micro_batches, ranks):
    """Every loss and every gradient of one step."""
    setup = Setup(EngineConfig(), OptimizationConfig(steps=1, lr=1e-3), ranks, 0, lambda step: 1e-3, lambda step: 0.0)
    engine = build_engine(jepa, setup)
    losses = engine.forward_backward(STEP, micro_batches)
    trained = {name: value for name, value in jepa.named_parameters() if value.requires_grad}
    return {name: loss.item() for name, loss in losses.items()}, {n: p.grad.clone() for n, p in trained.items()}


def assert_step(found, jepa, rows, case):
    """An engine's step is that of the definition."""
    losses, slopes = found
    wanted = by_definition(jepa, make_batch(rows, case[2]), *case)
    wanted["loss"].backward()
    assert all(value > 0.01 for value in wanted.values())
    assert losses == pytest.approx({name: value.item() for name, value in wanted.items()}, rel=1e-5)
    for name, parameter in jepa.named_parameters():
        if parameter.requires_grad:
            allowed = 1e-5 * max(1.0, parameter.grad.abs().max().item())
            torch.testing.assert_close(slopes[name], parameter.grad, rtol=0.0, atol=allowed, msg=name)


@pytest.mark.parametrize("sizes", [[16], [5, 8, 3]], ids=["whole", "micro_batches"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_losses_and_gradients_are_the_definitions(case, sizes):
    found = step_of_engine(make_jepa(*case), cut(make_batch(16, case[2]), sizes), Ranks(0, 1, torch.device("cpu")))
    assert_step(found, make_jepa(*case), 16, case)


def test_every_trained_parameter_gets_a_gradient_even_at_weight_zero():
    jepa = make_jepa("sigreg", "none", 1)
    jepa.coefficients["sigreg"] = 0.0
    _, slopes = step_of_engine(jepa, cut(make_batch(8, 1), [8]), Ranks(0, 1, torch.device("cpu")))
    assert slopes.keys() == dict(jepa.named_parameters()).keys()
    assert all(slope.abs().sum() > 0 for name, slope in slopes.items() if not name.startswith("projection."))
    assert all(not slope.any() for name, slope in slopes.items() if name.startswith("projection."))


def test_directions_change_with_the_step_and_the_seed():
    jepa = make_jepa("sigreg", "none", 1)
    features = jepa(make_batch(8, 1))["features"]
    later = features | {"step": features["step"] + 1}
    of_steps = [jepa(given, mode="contrast")["sigreg"].item() for given in (features, features, later)]
    jepa.seed += 1
    assert of_steps[0] == of_steps[1] != of_steps[2] and of_steps[0] != jepa(features, mode="contrast")["sigreg"].item()


def test_features_are_looked_at_in_fp32_under_autocast():
    jepa, batch = make_jepa("sigreg", "none", 1), make_batch(8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        features = jepa(batch)["features"]
        loss = jepa(features, mode="contrast")["sigreg"]
    assert loss.dtype == features["whole"].dtype == features["context"].dtype == torch.float32


def test_a_sample_is_the_same_in_any_batch():
    """Behind BatchNorm its features would be those of its micro-batch."""
    jepa, batch = make_jepa("sigreg", "none", 1), make_batch(8, 1)
    (first,) = cut(batch, [3, 5])[:1]
    torch.testing.assert_close(jepa(first)["features"]["context"], jepa(batch)["features"]["context"][:3])


def keys(**sections):
    encoder = {"name": "ecg_tiny", "leads": 2, "length": 48, "patch": 4}
    return json.dumps(
        {
            "objective": "jepa",
            "data": {"root": "shards", "batch_size": 4, "leads": ["I", "II"]},
            "model": {"encoder": encoder, "teacher": sections.get("teacher", {})},
            "loss": sections.get("loss", {}),
            "optimization": {"steps": 4, "lr": 1e-3},
            "logging": {"folder": "runs/x"},
        }
    )


def test_no_teacher_and_no_regularizer_is_refused():
    with pytest.raises(ValueError, match="without loss.regularizer the features that are predicted would become one"):
        Config.model_validate_json(keys(teacher={"kind": "none"}))
    Config.model_validate_json(keys(teacher={"kind": "none"}, loss={"regularizer": {"kind": "vicreg"}}))


def test_a_key_of_the_other_regularizer_is_refused():
    with pytest.raises(ValueError, match="directions"):
        Config.model_validate_json(keys(loss={"regularizer": {"kind": "vicreg", "directions": 4}}))


def test_a_momentum_without_a_teacher_is_told():
    config = Config.model_validate_json(
        keys(teacher={"kind": "none", "momentum": 0.9}, loss={"regularizer": {"kind": "sigreg"}})
    )
    with pytest.warns(UserWarning, match="model.teacher.momentum has no effect"):
        JEPA(config.model, config.loss)


def health_after(folder, steps, *words):
    """What training at a high rate makes of the student, in shares of what it was at random initialisation."""
    settings = ["optimization.epochs=null", "optimization.warmup_epochs=null", "optimization.warmup_steps=10"]
    settings += ["optimization.lr=3e-3", "optimization.final_lr=3e-3", "logging.every=1000", "checkpoint.every=1000"]
    settings += [f"optimization.steps={steps}", f"evaluation.every={steps}"]
    places = [f"logging.folder={folder}", f"data.root={folder.parent / 'shards'}"]
    experiment(load_config(STUDENT_ONLY, [*settings, *places, *words], schema_of), check=False)
    found = lines(folder / "health.jsonl")[-1]
    return {name: found[name] / found[f"random_init/{name}"] for name in ("mean_loss", "feature_std", "rankme")}


def test_a_student_without_a_teacher_collapses_unless_it_is_regularized(tmp_path, monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [])
    free = health_after(tmp_path / "free", 40, "loss.regularizer.coefficient=0")
    kept = health_after(tmp_path / "kept", 40)
    assert free["mean_loss"] < 0.05 and free["feature_std"] < 0.2, free
    assert kept["mean_loss"] > 0.7 and kept["feature_std"] > 0.9, kept


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tmp_path_factory.mktemp("shards") / "debug"


@pytest.fixture(scope="module")
def one(shards, tmp_path_factory):
    """20 steps of one process, a checkpoint of each."""
    return train(STUDENT_ONLY, shards, tmp_path_factory.mktemp("one"), ["cpu"])


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_every_engine_trains_the_student_that_one_process_trains(one, shards, tmp_path):
    """Two ranks, each with micro-batches of three."""
    runs = {tmp_path / name: (*words, "data.micro_batch_size=3") for name, words in ENGINES.items()}
    train_all(STUDENT_ONLY, shards, runs, ["cpu", "cpu"])
    for folder in runs:
        found = discrepancies(one, folder)
        assert found.within and "teacher" not in found.values, (folder.name, found)


@pytest.mark.distributed
def test_the_student_is_exported_and_its_losses_are_told(one):
    assert {"loss/prediction", "loss/sigreg", "weight/sigreg"} <= lines(one / "metrics.jsonl")[-1].keys()
    trained = tensors(one)
    for name, weight in load_encoder(one).network.named_parameters():
        assert torch.equal(weight, trained["model", f"student.{name}"]), name
    assert {name.split(".")[0] for kind, name in trained if kind == "model"} == {"student", "predictor"}


@pytest.mark.distributed
def test_a_run_that_goes_on_draws_the_same_directions(one, shards, tmp_path):
    halfway = tmp_path / "halfway"  # as one that was killed after 10 steps
    shutil.copytree(one, halfway)
    shutil.rmtree(halfway / "encoder")
    for late in checkpoint_folders(halfway / "checkpoints"):
        if late.name > "step-00000010.z":
            shutil.rmtree(late)
    train(STUDENT_ONLY, shards, halfway, ["cpu"])
    assert same_tensors(halfway, one)
