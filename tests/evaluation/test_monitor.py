"""The health of a representation while it is trained: right, repeatable, and without a trace in the training."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from src.config import load_config
from src.config.data import STANDARD_LEADS
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.load_index import load_index
from src.data.synthetic import make_synthetic
from src.data.write_shards import Description, Record, write_shards
from src.distributed.ranks import Ranks
from src.evaluation.encoder import load_encoder
from src.evaluation.monitor import Monitor, macro_auroc
from src.randomness import derive_seed
from ssls.jepa.model import JEPA
from ssls.objectives import schema_of
from tests.commands import kill_tree, lines, metrics, same_tensors, start, succeed, wait_until
from tests.conftest import ROOT

STEPS, EVERY = 30, 7
DEBUG = ROOT / "configs" / "jepa" / "ecg_debug.yaml"
MEASURES = {
    "rankme",
    "feature_std",
    "dead_dimensions",
    "between_samples",
    "mean_loss",
    "knn_auroc",
    "probe_auroc",
}


def command(folder, shards, world_size=1, every=EVERY):
    settings = [f"logging.folder={folder}", f"data.root={shards}", f"evaluation.every={every}"]
    settings += ["optimization.epochs=null", f"optimization.steps={STEPS}", "checkpoint.every=4", "logging.every=1"]
    return ["--fname", str(DEBUG), "--devices", *["cpu"] * world_size, "--set", *settings]


def health(folder):
    """The lines of health.jsonl without the time that they took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder / "health.jsonl")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The ECGs of the debug config."""
    root = tmp_path_factory.mktemp("shards") / "debug"
    config = load_config(DEBUG, [], schema_of)
    make_synthetic(root, config.data.synthetic, config.data.leads)
    return root


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, succeed(*command(folder, shards))


@pytest.mark.distributed
def test_a_line_is_written_every_so_many_steps_and_after_the_last(undisturbed):
    folder, out = undisturbed
    found = health(folder)
    assert [line["step"] for line in found] == [6, 13, 20, 27, 29]
    losses = {line["step"]: line["loss"] for line in metrics(folder)}
    for line in found:
        assert set(line) == {"step", "loss", "records", "alarms"} | MEASURES | {f"random_init/{m}" for m in MEASURES}
        assert line["loss"] == losses[line["step"]] and line["records"] == 12 and line["alarms"] == []
    assert len({line["rankme"] for line in found}) == 5, "the encoder that is measured does not move"
    assert out.count("health at step") == 5 and "health at step 30: RankMe" in out


@pytest.mark.distributed
def test_the_random_encoder_is_that_of_the_seed_and_the_numbers_are_those_of_its_features(undisturbed, shards):
    """An independently built JEPA; RankMe by scipy's entropy, the vote's and the probe's AUROC above what they rank."""
    folder, _ = undisturbed
    random = [{key: value for key, value in line.items() if key.startswith("random_init/")} for line in health(folder)]
    assert all(line == random[0] for line in random)

    config = load_config(DEBUG, [], schema_of)
    torch.manual_seed(derive_seed(config.seed, "weights"))
    teacher = JEPA(config.model, config.loss).teacher
    validation = ECGShards(shards, "val", config.data.leads)
    ecgs = np.stack([sample["ecg"][:, 50:450] for sample in validation.read(np.arange(12))])
    batch = np.clip((ecgs - validation.mean_C[:, None]) / validation.std_C[:, None], -5, 5).astype(np.float32)
    with torch.no_grad():
        tokens = teacher(torch.from_numpy(batch)).double()
    features = tokens.mean(1).numpy()
    singular = np.linalg.svd(features - features.mean(0), compute_uv=False)
    assert random[0]["random_init/rankme"] == pytest.approx(np.exp(entropy(singular)), rel=1e-3)
    assert random[0]["random_init/feature_std"] == pytest.approx(features.std(0).mean(), rel=1e-4)
    targets = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
    between = targets.var(0).mean() / targets.flatten(0, 1).var(0).mean()
    assert random[0]["random_init/between_samples"] == pytest.approx(between.item(), rel=1e-4)
    of_mean = torch.nn.functional.smooth_l1_loss(targets.mean(0, keepdim=True).expand_as(targets), targets)
    assert random[0]["random_init/mean_loss"] == pytest.approx(of_mean.item(), rel=1e-4)


@pytest.mark.distributed
def test_pictures_have_what_the_exported_encoder_makes_of_the_validation_records(undisturbed, shards):
    folder, _ = undisturbed
    encoder = load_encoder(folder)
    samples = ECGShards(shards, "val", encoder.preprocessing.leads).read(np.arange(12))
    with np.load(folder / "embeddings.npz") as arrays:
        np.testing.assert_allclose(arrays["features"], encoder.embed_samples(samples, windows=1), rtol=1e-4, atol=1e-5)
        assert arrays["keys"].tolist() == [sample["key"] for sample in samples]
        assert arrays["label_names"].tolist() == ["fast"]
        np.testing.assert_array_equal(arrays["labels"], [sample["labels"] for sample in samples])
        assert arrays["random_init"].shape == arrays["features"].shape
        assert not np.allclose(arrays["random_init"], arrays["features"], atol=1e-4)
    assert not list(folder.glob("*.draft"))


@pytest.mark.distributed
def test_looking_does_not_disturb_the_training(undisturbed, shards, tmp_path):
    folder, _ = undisturbed
    succeed(*command(tmp_path, shards, every="null"))
    assert metrics(tmp_path) == metrics(folder)
    assert same_tensors(tmp_path, folder)
    assert not lines(tmp_path / "health.jsonl") and not (tmp_path / "embeddings.npz").exists()


def killed_at(count, log, words):
    """Start a run and SIGKILL it when its log has so many lines."""
    process = start(*words)
    wait_until(lambda: len(lines(log)) >= count or process.poll() is not None, 100, f"{count} lines of {log}")
    assert process.poll() is None, process.communicate()
    kill_tree(process.pid)
    process.communicate()


@pytest.mark.distributed
def test_killed_and_continued_has_the_same_health(undisturbed, shards, tmp_path):
    """Killed twice: right after a line of health, whose checkpoint is still to come, and between two lines."""
    folder, _ = undisturbed
    killed_at(2, tmp_path / "health.jsonl", command(tmp_path, shards))
    killed_at(24, tmp_path / "metrics.jsonl", command(tmp_path, shards))
    assert "continuing from" in succeed(*command(tmp_path, shards))
    assert health(tmp_path) == health(folder)
    assert metrics(tmp_path) == metrics(folder)


@pytest.mark.distributed
def test_two_processes_measure_what_one_measures(undisturbed, shards, tmp_path):
    """The training itself rounds differently on two; the random encoder is the same."""
    folder, _ = undisturbed
    succeed(*command(tmp_path, shards, world_size=2))
    one, two = health(folder), health(tmp_path)
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for first, second in zip(one, two, strict=True):
        for name in (name for name in first if name not in ("step", "alarms")):
            tolerance = 1e-5 if name.startswith("random_init/") else 1e-3
            assert second[name] == pytest.approx(first[name], rel=tolerance), name
    assert one[0]["rankme"] == pytest.approx(two[0]["rankme"], rel=1e-5)


@pytest.mark.distributed
def test_check_leaves_the_folder_alone(undisturbed, shards, tmp_path):
    words = [word for word in command(tmp_path / "run", shards) if not word.startswith("optimization.steps")]
    words.insert(words.index("--set"), "--check")
    assert "check passed" in succeed(*words, "optimization.steps=100")
    assert not (tmp_path / "run").exists()


# In this process


ALONE = Ranks(0, 1, torch.device("cpu"))


def monitor(root, *settings, **replaced):
    """A monitor and the door to the JEPA whose health it is."""
    config = load_config(DEBUG, [f"data.root={root}", *settings], schema_of)
    training = ECGShards(root, config.data.split, config.data.leads)
    preprocessing = training.preprocessing(config.data.transform, config.model.encoder.length)
    torch.manual_seed(0)
    jepa = JEPA(config.model, config.loss)
    arguments = {"loss": config.loss.kind, "advice": "do something"} | replaced
    return Monitor(config, training, preprocessing, ALONE, **arguments), jepa


def ecgs(splits, labels=("fast",), samples=420):
    """Records of random walks, three for each patient."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(count):
            yield Record(
                split=split,
                key=f"{split}-{number}",
                signal_CT=rng.normal(size=(12, samples)).astype(np.float32),
                meta={"id": f"{split}-{number}", "patient_id": f"{split}-{number // 3}"}
                | ({"labels": [number % 2] * len(labels)} if labels else {}),
            )


def written(root, splits, labels=("fast",), **changes):
    description = Description(STANDARD_LEADS, 100.0, Labels(names=labels), {"made": "for a test"})
    write_shards(root, ecgs(splits, labels, **changes), description)
    return root


def test_without_a_validation_split_the_training_records_are_looked_at_and_nothing_is_probed(tmp_path):
    found, door = monitor(written(tmp_path / "shards", {"train": 8}))
    assert "has no split val other than data.split" in found.note and "without probe and kNN" in found.note
    found.baseline(door)
    record = found.measure(door)
    assert record["records"] == 8 and "rankme" in record
    assert not [name for name in record if "auroc" in name]
    found.save_embeddings(tmp_path / "embeddings.npz")
    with np.load(tmp_path / "embeddings.npz") as arrays:
        assert arrays["keys"].tolist() == [f"train-{number}" for number in range(8)]


@pytest.mark.distributed
def test_that_there_is_no_validation_split_is_said_aloud(tmp_path):
    root = written(tmp_path / "shards", {"train": 40})
    words = command(tmp_path / "run", root)
    out = succeed(*words, "data.synthetic=null", "optimization.steps=4")
    assert "warning: evaluation.split: " in out and "has no split val other than data.split" in out


def test_without_labels_nothing_is_probed(tmp_path):
    found, door = monitor(written(tmp_path / "shards", {"train": 8, "val": 5}, labels=()))
    found.baseline(door)
    record = found.measure(door)
    assert not found.note and record["records"] == 5 and not [name for name in record if "auroc" in name]
    found.save_embeddings(tmp_path / "embeddings.npz")
    with np.load(tmp_path / "embeddings.npz") as arrays:
        assert arrays["labels"].shape == (5, 0) and arrays["label_names"].shape == (0,)


def test_an_objective_without_targets_has_no_measures_of_tokens(tmp_path):
    found, door = monitor(written(tmp_path / "shards", {"train": 8, "val": 5}), loss=None)
    assert set(found.measure(door)) == MEASURES - {"between_samples", "mean_loss"} | {"records", "alarms", "seconds"}


def test_evaluation_that_is_off_opens_nothing(tmp_path):
    root = written(tmp_path / "shards", {"train": 8, "val": 5}, samples=420)
    for tar in root.glob("val-*.tar"):
        tar.unlink()
    found, _ = monitor(root, "evaluation.every=null")
    assert found.every is None


def test_records_that_do_not_fit_the_encoder_are_named(tmp_path):
    root = tmp_path / "shards"
    written(root, {"train": 8, "val": 2}, samples=399)
    found, door = monitor(root)
    with pytest.raises(ValueError, match=r"sample val-\d has 399 samples of each lead; the encoder needs 400 or more"):
        found.baseline(door)


def test_a_subset_is_a_function_of_the_seed_and_everything_if_there_is_no_more(tmp_path):
    root = written(tmp_path / "shards", {"train": 60, "val": 40})
    chosen = [monitor(root, "evaluation.samples=15", f"seed={seed}")[0] for seed in (0, 0, 1)]
    keys = [found.records.shards.keys(found.records.samples_N) for found in chosen]
    assert keys[0] == keys[1] != keys[2]
    assert all(len(set(of)) == 15 and of == sorted(of, key=lambda key: int(key.split("-")[1])) for of in keys)
    drawn = [monitor(root, "evaluation.samples=15", f"seed={seed}")[0].records.samples_N for seed in range(60)]
    counts = np.bincount(np.concatenate(drawn), minlength=40)
    assert counts.min() > 5 and counts.max() < 45, "every record has the same chance"
    everything, _ = monitor(root, "evaluation.samples=1000")
    np.testing.assert_array_equal(everything.records.samples_N, np.arange(40))


def test_patients_that_are_looked_at_are_not_trained_on(shards):
    found, _ = monitor(shards)
    patients = [
        {sample["meta"]["patient_id"] for sample in records.shards.read(records.samples_N)}
        for records in (found.records, found._fit)
    ]
    assert patients[0] and patients[1] and not patients[0] & patients[1]
    assert set(load_index(shards)[0].splits) == {"train", "val"}


class Collapsed:
    """The door to an encoder that gives the same tokens for every record."""

    def __init__(self, jepa):
        self.jepa = jepa

    def __call__(self, batch, mode):
        found = self.jepa(batch, mode=mode)
        return {name: tokens[:1].expand_as(tokens).contiguous() for name, tokens in found.items()}


def test_a_collapse_is_an_alarm(shards):
    found, door = monitor(shards)
    found.baseline(door)
    healthy, collapsed = found.measure(door), found.measure(Collapsed(door))
    assert healthy["alarms"] == []
    assert collapsed["rankme"] == 1.0 and collapsed["dead_dimensions"] == 1.0 and collapsed["between_samples"] == 0.0
    assert collapsed["probe_auroc"] == collapsed["knn_auroc"] == 0.5
    (alarm,) = collapsed["alarms"]
    assert "effective rank" in alarm and "probe's AUROC" in alarm and alarm.endswith("; do something")
    assert collapsed["mean_loss"] == pytest.approx(0, abs=1e-6)


class Broken(Collapsed):
    """The door to an encoder whose weights are not finite."""

    def __call__(self, batch, mode):
        return {name: tokens * float("nan") for name, tokens in self.jepa(batch, mode=mode).items()}


def test_features_that_are_not_finite_are_an_alarm_and_no_crash(shards):
    found, door = monitor(shards)
    found.baseline(door)
    record = found.measure(Broken(door))
    assert np.isnan([record["rankme"], record["probe_auroc"], record["between_samples"]]).all()
    assert len(record["alarms"]) == 1


def test_macro_auroc_is_sklearns_over_labels_with_both_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (50, 4)).astype(float)
    scores = rng.random((50, 4))
    labels[:, 2] = 1
    labels[:, 3] = np.nan
    labels[:10, 0] = np.nan
    expected = np.mean([roc_auc_score(labels[10:, 0], scores[10:, 0]), roc_auc_score(labels[:, 1], scores[:, 1])])
    assert macro_auroc(scores, labels) == pytest.approx(expected)
    assert np.isnan(macro_auroc(scores[:, 2:], labels[:, 2:]))


def test_a_training_split_that_is_looked_at_itself_is_not_probed(tmp_path):
    root = tmp_path / "shards"
    written(root, {"train": 8, "val": 4})
    found, _ = monitor(root, "evaluation.split=train")
    assert found.note and found.records.shards.split == "train"
