"""Probes from config to results, on real ECGs; every number is computed again, by scikit-learn and pandas."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, f1_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from src.config.ecg_transforms import ECGTransformConfig
from src.data.ecg_shards import ECGShards
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder, random_encoder
from src.models.config import EncoderConfig
from tests.commands import refuse, succeed
from tests.ssls.probe.conftest import PROBES, build_ptbxl, predictions, probe, read, results
from tools.build_shards import main as build_shards

pytestmark = [pytest.mark.data, pytest.mark.distributed]
CLASSES = ["NORM", "MI", "STTC", "CD", "HYP"]
LABELS = [f"superclass/{name}" for name in CLASSES]
ROWS = ["pretrained", "random_init", "raw", "other"]
TESTS = ["fold10", "elsewhere"]
FEW = "scores.draws=60"


@pytest.fixture(scope="module")
def run(database, ptbxl, encoders, tmp_path_factory):
    """The shipped config with two encoders, two test sets and somebody else's scores; and what was given."""
    root = tmp_path_factory.mktemp("superclass")
    build_ptbxl(database, root / "elsewhere", "--samples-per-shard", "40")
    rng = np.random.default_rng(0)
    lines = [["id", *LABELS]]
    for split in ("val", "test"):
        for sample in read(ptbxl, split):
            guess = 0.3 * sample["labels"][:5] + 0.7 * rng.random(5)
            lines.append([sample["meta"]["id"], *guess])
    (root / "scores.csv").write_text("\ufeff" + "\n".join(",".join(map(str, line)) for line in lines))
    given = {"data.root": ptbxl, "logging.folder": root / "run", "rows.scores.other": root / "scores.csv"}
    words = [f"{key}={value}" for key, value in given.items()]
    words += [f"init_from=[{encoders[0]}, {encoders[1]}]"]
    words += [f"data.tests.elsewhere={{root: {root / 'elsewhere'}, split: val}}", FEW]
    succeed("--fname", str(PROBES / "ptbxl_superclass.yaml"), "--devices", "cpu", "--set", *words, timeout=250)
    return root / "run", {str(value) for value in [*given.values(), *encoders, root / "elsewhere"]}


@pytest.fixture(scope="module")
def found(run):
    return results(run[0])


@pytest.fixture(scope="module")
def features(encoders, ptbxl):
    """Features and truth of each split, by encoder, through `Encoder` and nothing else of the probe."""
    samples = {split: read(ptbxl, split) for split in ("train", "val", "test")}
    truth = {split: np.array([s["labels"][:5] for s in of]) for split, of in samples.items()}
    by_encoder = [{split: load_encoder(path).embed_samples(of) for split, of in samples.items()} for path in encoders]
    return by_encoder, truth


def standardized(features):
    scaler = StandardScaler().fit(features["train"])
    return {split: scaler.transform(of) for split, of in features.items()}


def logistic(inputs, truth, label, l2):
    model = LogisticRegression(C=1 / (len(truth["train"]) * l2), solver="newton-cholesky", tol=1e-6, max_iter=1000)
    return model.fit(inputs["train"], truth["train"][:, label])


def test_the_table_names_rows_and_tests(found):
    assert found["format"] == 1 and found["task"] == "multilabel" and found["labels"] == LABELS
    assert [row["name"] for row in found["rows"]] == ROWS and list(found["tests"]) == TESTS
    assert found["data"]["train"]["records"] == 353 and found["data"]["validation"]["records"] == 81
    assert [found["tests"][test]["records"] for test in TESTS] == [66, 81]
    for table in found["tests"].values():
        assert list(table["scores"]) == ROWS
        assert list(table["differences"]) == [f"pretrained - {row}" for row in ROWS[1:]]


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("row", ROWS)
def test_the_predictions_on_disk_have_the_auroc_that_is_told(run, found, test, row):
    seeds = 2 if row in ("pretrained", "random_init") else 1
    assert len(list((run[0] / "predictions" / test).glob(f"{row}.*.csv"))) == seeds
    scores = found["tests"][test]["scores"][row]
    by_seed = []
    for number in range(seeds):
        _, truth, probability = predictions(run[0], test, row, number)
        assert ((probability >= 0) & (probability <= 1)).all()
        by_seed.append([roc_auc_score(truth[:, label], probability[:, label]) for label in range(5)])
    for place, label in enumerate(LABELS):
        assert scores["labels"][label]["auroc"]["seeds"] == pytest.approx([of[place] for of in by_seed], abs=1e-6)
        assert scores["labels"][label]["auroc"]["value"] == pytest.approx(np.mean(by_seed, 0)[place], abs=1e-6)
    macro = scores["macro"]["auroc"]
    assert macro["value"] == pytest.approx(np.mean(by_seed), abs=1e-6) and len(macro["seeds"]) == seeds
    assert macro["low"] < macro["value"] < macro["high"]


def test_every_head_is_sklearns_at_the_l2_that_was_chosen(run, found, features):
    by_encoder, truth = features
    chosen = found["rows"][0]["l2"]
    assert len(chosen) == 2 and found["rows"][0]["converged"]
    for number, of_encoder in enumerate(by_encoder):
        inputs = standardized(of_encoder)
        head = load_file(run[0] / "heads" / f"pretrained.{number}.safetensors")
        _, _, told = predictions(run[0], "fold10", "pretrained", number)
        for label in range(5):
            model = logistic(inputs, truth, label, chosen[number])
            np.testing.assert_allclose(head["weight"][label], model.coef_[0], atol=1e-4 * np.abs(model.coef_).max())
            np.testing.assert_allclose(told[:, label], model.predict_proba(inputs["test"])[:, 1], atol=1e-4)


def test_l2_is_the_one_that_validation_likes_best(found, features):
    by_encoder, truth = features
    grid = found["identity"]["head"]["l2"]
    for number, of_encoder in enumerate(by_encoder):
        inputs, scores = standardized(of_encoder), {}
        for l2 in grid:
            fitted = [logistic(inputs, truth, label, l2).predict_proba(inputs["val"])[:, 1] for label in range(5)]
            scores[l2] = np.mean([roc_auc_score(truth["val"][:, k], fitted[k]) for k in range(5)])
        assert scores[found["rows"][0]["l2"][number]] == pytest.approx(max(scores.values()), abs=1e-3)


def test_thresholds_are_the_best_of_the_validation_records_and_are_used_on_the_test_records(run, found, features):
    by_encoder, truth = features
    f1 = found["tests"]["fold10"]["scores"]["pretrained"]["labels"]
    for number, of_encoder in enumerate(by_encoder):
        head = load_file(run[0] / "heads" / f"pretrained.{number}.safetensors")
        logits = (of_encoder["val"] - head["mean"]) / head["std"] @ head["weight"].T + head["bias"]
        held_out = 1 / (1 + np.exp(-logits))
        _, test_truth, test = predictions(run[0], "fold10", "pretrained", number)
        for label, name in enumerate(LABELS):
            threshold = found["rows"][0]["thresholds"][number][label]
            best = max(f1_score(truth["val"][:, label], held_out[:, label] >= cut) for cut in held_out[:, label])
            reached = f1_score(truth["val"][:, label], held_out[:, label] >= threshold)
            assert reached == pytest.approx(best, abs=1e-9)
            told = f1[name]["f1"]["seeds"][number]
            assert told == pytest.approx(f1_score(test_truth[:, label], test[:, label] >= threshold), abs=1e-9)


def test_thresholds_of_others_scores_come_from_their_validation_records(ptbxl, run, found):
    """The scores hold validation and test; those of `elsewhere` are the validation records built once more."""
    _, truth, held_out = predictions(run[0], "elsewhere", "other")
    (thresholds,) = found["rows"][3]["thresholds"]
    for label, threshold in enumerate(thresholds):
        best = max(f1_score(truth[:, label], held_out[:, label] >= cut) for cut in held_out[:, label])
        assert f1_score(truth[:, label], held_out[:, label] >= threshold) == pytest.approx(best, abs=1e-9)
    assert found["rows"][3]["l2"] == [] and found["rows"][3]["width"] is None
    assert found["tests"]["fold10"]["scores"]["other"]["macro"]["auroc"]["value"] > 0.8


def test_raw_is_a_linear_model_of_72_amplitudes(run, found, ptbxl):
    row = found["rows"][2]
    assert (row["kind"], row["width"], row["pool"]) == ("raw", 72, None)
    samples = {split: read(ptbxl, split) for split in ("train", "test")}
    amplitudes = {
        split: np.array(
            [
                np.concatenate([f(s["ecg"], 1) for f in (np.mean, np.std, np.min, np.max)] + [
                    np.percentile(s["ecg"], percent, axis=1) for percent in (5, 95)
                ])
                for s in of
            ]
        )
        for split, of in samples.items()
    }  # fmt: skip
    truth = {"train": np.array([s["labels"][:5] for s in samples["train"]])}
    inputs = standardized(amplitudes)
    _, _, told = predictions(run[0], "fold10", "raw")
    for label in range(5):
        model = logistic(inputs, truth, label, row["l2"][0])
        np.testing.assert_allclose(told[:, label], model.predict_proba(inputs["test"])[:, 1], atol=1e-4)


def test_groups_by_sex_and_age_are_pandas_groups(run, found, database):
    table = pd.read_csv(database / "ptbxl_database.csv", index_col="ecg_id")
    tables = found["tests"]["fold10"]["groups"]
    keys, truth, probability = predictions(run[0], "fold10", "pretrained", 0)
    people = table.loc[[int(key.removeprefix("ptbxl-")) for key in keys]]
    ages = pd.cut(people.age, [-np.inf, 40, 60, 75, np.inf], right=False, labels=["< 40", "40 to < 60", "60 to < 75",
                  ">= 75"])  # fmt: skip
    for column, values in (("sex", people.sex.map(lambda sex: f"{sex:g}")), ("age", ages)):
        counts = values.value_counts()
        assert {name: part["records"] for name, part in tables[column].items()} == counts[counts > 0].to_dict()
    for name, part in tables["sex"].items():
        chosen = (people.sex.map(lambda sex: f"{sex:g}") == name).to_numpy()
        for label, scores in part["scores"]["pretrained"]["labels"].items() if part["scores"] else ():
            place = LABELS.index(label)
            assert scores["auroc"]["seeds"][0] == pytest.approx(
                roc_auc_score(truth[chosen, place], probability[chosen, place]), abs=1e-6
            )


def test_random_rows_are_random_encoders_of_seeds_0_and_1(run, encoders, features, ptbxl):
    _, truth = features
    samples = {split: read(ptbxl, split) for split in ("train", "test")}
    found = results(run[0])["rows"][1]
    for seed, path in enumerate(encoders):
        encoder = random_encoder(load_encoder(path), seed)
        inputs = standardized({split: encoder.embed_samples(of) for split, of in samples.items()})
        _, _, told = predictions(run[0], "fold10", "random_init", seed)
        for label in range(5):
            model = logistic(inputs, truth, label, found["l2"][seed])
            np.testing.assert_allclose(told[:, label], model.predict_proba(inputs["test"])[:, 1], atol=1e-4)


def test_pictures_have_the_features_of_the_first_encoder_and_test_set(run, features, ptbxl):
    with np.load(run[0] / "embeddings.npz") as arrays:
        np.testing.assert_allclose(arrays["features"], features[0][0]["test"], rtol=1e-4, atol=1e-5)
        assert arrays["random_init"].shape == arrays["features"].shape
        np.testing.assert_array_equal(arrays["labels"], features[1]["test"])
        assert arrays["label_names"].tolist() == LABELS
        assert arrays["keys"].tolist() == [sample["key"] for sample in read(ptbxl, "test")]


def test_no_file_tells_of_a_path_that_was_not_given(run):
    folder, given = run

    def strings(node):
        if isinstance(node, dict):
            node = [*node, *node.values()]
        if isinstance(node, list):
            return [text for part in node for text in strings(part)]
        return [node] if isinstance(node, str) else []

    told = {text for text in strings(results(folder)) if text.startswith(("/", "~"))}
    assert told and told <= given


SHIPPED = {"ptbxl_superclass": 5, "ptbxl_rhythm": 12, "ptbxl_all": 71}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configs_run(name, ptbxl, encoders, tmp_path):
    words = [f"data.root={ptbxl}", f"init_from={encoders[0]}", f"logging.folder={tmp_path}", "scores.draws=40"]
    out = succeed("--fname", str(PROBES / f"{name}.yaml"), "--devices", "cpu", "--set", *words, timeout=250)
    found = results(tmp_path)
    assert len(found["labels"]) == SHIPPED[name]
    assert not any(name.startswith("superclass/") for name in found["labels"]) or name == "ptbxl_superclass"
    table = found["tests"]["fold10"]
    for label in found["labels"]:
        scored = label in table["scores"]["pretrained"]["labels"]
        trained = 0 < found["data"]["train"]["positives"][label] < found["data"]["train"]["records"]
        tested = 0 < table["positives"][label] < table["known"][label]
        assert scored == (trained and tested) == (label not in table["skipped"])
    assert f"auroc {table['scores']['pretrained']['macro']['auroc']['value']:.3f}" in out


def test_a_column_of_numbers_is_a_regression(ptbxl, encoders, features, database, tmp_path):
    settings = [f"data.root={ptbxl}", f"init_from={encoders[0]}", "target={labels: null, column: age}", FEW]
    probe(PROBES / "ptbxl_superclass.yaml", tmp_path, *settings)
    found = results(tmp_path)
    assert found["task"] == "regression" and found["labels"] == ["age"]
    keys, truth, told = predictions(tmp_path, "fold10", "pretrained")
    ages = pd.read_csv(database / "ptbxl_database.csv", index_col="ecg_id").age
    np.testing.assert_array_equal(truth[:, 0], ages.loc[[int(key.removeprefix("ptbxl-")) for key in keys]])
    macro = found["tests"]["fold10"]["scores"]["pretrained"]["macro"]
    assert macro["r2"]["value"] == pytest.approx(r2_score(truth, told), abs=1e-6)
    assert macro["mae"]["value"] == pytest.approx(mean_absolute_error(truth, told), abs=1e-4)
    samples = {split: read(ptbxl, split) for split in ("train", "test")}
    known = {split: np.array(["age" in sample["meta"] for sample in of]) for split, of in samples.items()}
    assert not known["train"].all(), "a record without an age is left out"
    inputs = standardized({split: features[0][0][split][known[split]] for split in samples})
    train = [sample["meta"]["age"] for sample in samples["train"] if "age" in sample["meta"]]
    model = Ridge(alpha=len(train) * found["rows"][0]["l2"][0]).fit(inputs["train"], train)
    np.testing.assert_allclose(told[:, 0], model.predict(inputs["test"]), atol=1e-3)


@pytest.fixture(scope="module")
def beats(medssl_data, tmp_path_factory):
    """Every thirtieth beat of MIT-BIH as shards, and an encoder for them that nobody trained."""
    path = medssl_data / "ecg" / "mitdb" / "beats.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    root = tmp_path_factory.mktemp("beats")
    with np.load(path, allow_pickle=False) as arrays:
        np.savez(root / "beats.npz", **{name: arrays[name][::30] for name in arrays if len(arrays[name]) > 1000})
    assert build_shards(["ecg", "--input", str(root / "beats.npz"), "--output", str(root / "shards")]) == 0
    shards = ECGShards(root / "shards", "train", ("ECG1", "ECG2"))
    config = EncoderConfig(name="ecg_tiny", leads=2, length=128, patch=8, width=16, depth=1, heads=2)
    encoder = random_encoder(Encoder(config, shards.preprocessing(ECGTransformConfig(), 128)), 0)
    part = EncoderPart("teacher", config, encoder.preprocessing)
    export_encoder(root / "encoder", encoder.network.state_dict(), part)
    return root


@pytest.mark.filterwarnings("ignore:the multiclass head:RuntimeWarning")
def test_beats_of_three_classes(beats, tmp_path):
    """F beats are of none of the classes and left out; l2 is chosen with patients left out."""
    settings = [f"data.root={beats / 'shards'}", f"init_from={beats / 'encoder'}", FEW]
    probe(PROBES / "mitdb.yaml", tmp_path, *settings)
    found = results(tmp_path)
    assert found["task"] == "multiclass" and found["labels"] == ["N", "S", "V"]
    keys, truth, told = predictions(tmp_path, "DS2", "pretrained")
    symbols = [s["labels"][:3].sum() for s in read(beats / "shards", "test", ("ECG1", "ECG2"))]
    assert len(keys) == sum(symbols) < len(symbols)
    np.testing.assert_allclose(told.sum(1), 1, atol=1e-6)
    scores = found["tests"]["DS2"]["scores"]["pretrained"]
    expected = balanced_accuracy_score(truth.argmax(1), told.argmax(1))
    assert scores["macro"]["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-9)
    for place, label in enumerate("NSV"):
        auroc = roc_auc_score(truth[:, place], told[:, place])
        assert scores["labels"][label]["auroc"]["value"] == pytest.approx(auroc, abs=1e-6)
    assert found["rows"][0]["width"] == 16 and found["rows"][2]["width"] == 2 * 128
    assert set(found["data"]) == {"train"}


def test_the_sex_of_a_patient_is_a_class_if_asked_for(ptbxl, encoders, tmp_path):
    settings = [
        f"data.root={ptbxl}",
        f"init_from={encoders[0]}",
        "target={labels: null, column: sex, task: multiclass}",
        FEW,
    ]
    probe(PROBES / "ptbxl_superclass.yaml", tmp_path, *settings)
    found = results(tmp_path)
    assert found["task"] == "multiclass" and found["labels"] == ["0", "1"]
    _, truth, told = predictions(tmp_path, "fold10", "pretrained")
    macro = found["tests"]["fold10"]["scores"]["pretrained"]["macro"]
    assert macro["auroc"]["value"] == pytest.approx(roc_auc_score(truth[:, 1], told[:, 1]), abs=1e-6)


@pytest.fixture(scope="module")
def debug(tmp_path_factory):
    """The debug pre-training, finished, and the settings of a probe of it."""
    root = tmp_path_factory.mktemp("debug")
    words = ["--fname", "configs/jepa/ecg_debug.yaml", "--devices", "cpu", "--set"]
    succeed(*words, f"logging.folder={root / 'jepa'}", f"data.root={root / 'shards'}", "optimization.epochs=2")
    return root, [f"data.root={root / 'shards'}", f"init_from={root / 'jepa'}"]


DEBUG = PROBES / "ecg_debug.yaml"


def numbers(node, path=""):
    """Every number and every other value of a tree, by its place."""
    if isinstance(node, dict | list):
        parts = node.items() if isinstance(node, dict) else enumerate(node)
        return {place: value for key, part in parts for place, value in numbers(part, f"{path}/{key}").items()}
    return {path: node}


def test_two_processes_find_what_one_finds_and_a_second_run_the_same_bytes(debug, tmp_path):
    _, settings = debug
    for count in (1, 2):
        words = ["--fname", str(DEBUG), "--devices", *["cpu"] * count, "--set", *settings]
        succeed(*words, f"logging.folder={tmp_path / str(count)}")
    one, two = (numbers(results(tmp_path / str(count))) for count in (1, 2))
    assert one.keys() == two.keys() and len(one) > 100
    for place, value in one.items():
        assert two[place] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), place

    folder = tmp_path / "1"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".safetensors")}
    probe(DEBUG, folder, *settings)
    for path, content in before.items():
        assert path.read_bytes() == content, path
    assert sorted(path.name for path in (folder / "attempts").iterdir()) == ["0001.json", "0002.json"]


def test_other_settings_are_refused_in_a_folder_with_results_which_stay(debug, tmp_path):
    _, settings = debug
    probe(DEBUG, tmp_path, *settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "owner.lock"}
    with pytest.raises(ValueError, match=r"results of a probe with scores\.draws = 200, but the config says 201"):
        probe(DEBUG, tmp_path, *settings, "scores.draws=201")
    after = {path: path.read_bytes() for path in before}
    assert {path.name for path in before if before[path] != after[path]} <= {"training.log"}
    probe(DEBUG, tmp_path, *settings, "engine.name=plain")


def test_the_folder_of_a_training_run_is_refused(debug):
    root, settings = debug
    before = (root / "jepa" / "config.yaml").read_text()
    with pytest.raises(ValueError, match="is the folder of a training run; name another for the probe"):
        probe(DEBUG, root / "jepa", *settings)
    assert (root / "jepa" / "config.yaml").read_text() == before


def test_check_leaves_nothing(debug, tmp_path):
    _, settings = debug
    words = ["--fname", str(DEBUG), "--devices", "cpu", "--check", "--set", *settings]
    out = succeed(*words, f"logging.folder={tmp_path / 'run'}")
    assert "check passed: probe: multilabel of 1 (fast) with 1 encoder(s) on 52 of train, 12 of val" in out
    assert not (tmp_path / "run").exists()


def test_patients_on_whom_the_head_was_fitted_are_refused_as_test_patients(debug, tmp_path):
    _, settings = debug
    words = ["--fname", str(DEBUG), "--devices", "cpu", "--set", *settings, f"logging.folder={tmp_path / 'run'}"]
    sentence = refuse(*words, "data.tests={again: {split: train}}")
    assert "data.tests.again: 26 of its patients are in split train too, patient 0000000 for one" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("target.labels=[slow]", r"target\.labels: .* has no label slow; there is fast"),
        ("target.column=hearts", r"target\.column: no record of split train in .* has hearts in its json"),
        ("data.tests={train: {split: val}}", r"data\.tests: a test set can't be called train"),
        ("rows.scores={raw: a.csv}", r"rows\.scores: raw is the name of a row of its own"),
        ("rows.scores={a/b: a.csv}", r"rows\.scores: 'a/b' names files"),
        ("data.tests={../up: {split: val}}", r"data\.tests: '\.\./up' names files"),
        ("rows.scores={other: nowhere.csv}", r"rows\.scores: nowhere\.csv can't be read"),
        ("target.task=regression", r"target\.task is regression, which needs target\.column"),
        ("init_from=nowhere", "nowhere holds no encoder"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(debug, tmp_path, setting, message):
    _, settings = debug
    with pytest.raises(ValueError, match=message):
        probe(DEBUG, tmp_path / "run", *settings, setting)
    assert not (tmp_path / "run").exists()


def test_shards_of_another_rate_are_refused(debug, tmp_path):
    root, settings = debug
    shutil.copytree(root / "jepa" / "encoder", tmp_path / "encoder")
    path = tmp_path / "encoder" / "preprocessing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling_rate": 250.0}))
    with pytest.raises(ValueError, match="holds ECGs at 100 Hz, but the encoder was trained at 250 Hz"):
        probe(DEBUG, tmp_path / "run", *settings, f"init_from={tmp_path / 'encoder'}")
