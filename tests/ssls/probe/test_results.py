"""What a probe leaves behind where data are thin, and the scores of others that it reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from src.config import load_config
from src.data.ecg_shards import ECGShards
from src.data.index import Labels
from src.data.write_shards import Description, Record, write_shards
from src.evaluation.encoder import Encoder, EncoderPart, export_encoder, load_encoder
from src.evaluation.results import cell_text
from src.evaluation.targets import label_target, read_cases
from src.models.config import EncoderConfig
from src.transforms.preprocessing import Preprocessing
from ssls.objectives import schema_of
from ssls.probe import results as module
from ssls.probe.heads import Fitted
from ssls.probe.results import read_scores
from ssls.probe.train import score
from tests.commands import lines
from tests.ssls.probe.conftest import PROBES, predictions, probe, results

LEADS = ("I", "II", "V1")
NAMES = ("often", "never", "only", "hidden")
DEBUG = PROBES / "ecg_debug.yaml"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """90 records of 45 patients, and an encoder.

    `often` can be read off the ECG; `never` has no positive anywhere, `only` no negative in the test records, `hidden`
    is known of none of them.
    """
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    records = []
    for number in range(90):
        split = ("train", "val", "test")[0 if number < 40 else 1 if number < 60 else 2]
        label = int(rng.random() < 0.5)
        signal = rng.normal(0, 1 + label * rng.random(), (3, 200)).astype(np.float32)
        labels = [label, 0, 1 if split == "test" else number % 2, None if split == "test" else label]
        meta = {"id": f"id {number}", "patient_id": f"p{number // 2}", "labels": labels, "age": 20 + number}
        records.append(Record(split, f"ecg-{number:02d}", signal, meta))
    write_shards(root / "shards", records, Description(LEADS, 100.0, Labels(names=NAMES), {"made": "for a test"}))
    config = EncoderConfig(name="ecg_tiny", leads=3, length=100, patch=10, width=16, depth=1, heads=2)
    preprocessing = Preprocessing(leads=LEADS, sampling_rate=100.0, length=100, normalize="none", clip=None)
    torch.manual_seed(0)
    encoder = Encoder(config, preprocessing)
    export_encoder(root / "encoder", encoder.network.state_dict(), EncoderPart("teacher", config, preprocessing))
    return root


def settings(world, *more):
    given = [f"data.root={world / 'shards'}", f"init_from={world / 'encoder'}", "data.validation=val"]
    return [*given, "data.tests={val: {split: test}}", *more]


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    return probe(
        DEBUG, tmp_path_factory.mktemp("run"), *settings(world, "scores.groups=[age]", "scores.edges.age=[90]")
    )


@pytest.fixture
def cases(world):
    """Of each split as a probe has them, and the target."""
    shards = {split: ECGShards(world / "shards", split, LEADS) for split in ("train", "val", "test")}
    target = label_target(shards["train"], ["often", "only"], None)
    names = {"train": "train", "val": "validation", "test": "here"}
    return {names[split]: read_cases(of, target, ("age", "key")) for split, of in shards.items()}, target


def test_what_is_undefined_is_null_and_has_a_reason(folder):
    """results.json is strict JSON (see `results`), with a thin label in every way that labels can be thin."""
    table = results(folder)["tests"]["val"]
    assert set(table["skipped"]) == {"never", "only", "hidden"}
    assert "no positives among 30" in table["skipped"]["never"] and "no negatives" in table["skipped"]["only"]
    assert table["skipped"]["hidden"] == "no known records"
    for scores in table["scores"].values():
        assert set(scores["labels"]) == {"often"}
        assert scores["macro"]["auroc"] == scores["labels"]["often"]["auroc"]
    assert table["positives"]["never"] == 0 and table["known"]["hidden"] == 0


def test_a_label_without_a_threshold_has_none(folder):
    for row in results(folder)["rows"]:
        (thresholds,) = row["thresholds"]
        assert thresholds[NAMES.index("never")] is None
        assert 0 < thresholds[NAMES.index("often")] < 1


def test_groups_are_cut_at_the_edges(folder):
    groups = results(folder)["tests"]["val"]["groups"]
    assert {name: part["records"] for name, part in groups["age"].items()} == {"< 90": 10, ">= 90": 20}


def test_a_group_that_no_record_has_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match=r"scores\.groups: no test record has place in its json"):
        probe(DEBUG, tmp_path, *settings(world, "scores.groups=[place]"))


def test_a_label_that_training_never_shows_is_skipped_and_not_given_one_half(cases):
    of_splits, target = cases
    train = of_splits["train"]
    blind = replace(train, truth_NK=np.where(np.array(target.names) == "often", 0.0, train.truth_NK))
    config = load_config(DEBUG, [], schema_of)
    here = of_splits["here"]
    rows = {"pretrained": [Fitted({"here": np.full(here.truth_NK.shape, 0.5)}, None)]}
    table = score(config, target, {"train": blind, "here": here}, rows)["here"]
    assert table["skipped"]["often"] == "its training records are of one class"
    assert "often" not in table["scores"]["pretrained"]["labels"]
    assert table["positives"]["often"] == int((here.truth_NK[:, 0] == 1).sum()) > 0


def test_unknown_truth_is_an_empty_cell(folder):
    _, truth, told = predictions(folder, "val", "pretrained")
    assert np.isnan(truth[:, NAMES.index("hidden")]).all() and not np.isnan(told).any()


def test_a_head_on_disk_gives_the_predictions_on_disk(world, folder):
    head = load_file(folder / "heads" / "pretrained.0.safetensors")
    shards = ECGShards(world / "shards", "test", LEADS)
    features = load_encoder(world / "encoder").embed_samples(shards.read(np.arange(len(shards))))
    logits = (features - head["mean"]) / head["std"] @ head["weight"].T + head["bias"]
    _, _, told = predictions(folder, "val", "pretrained")
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), told, rtol=1e-4, atol=1e-6)


def test_metrics_have_one_line_with_the_macro_scores(folder):
    table = results(folder)["tests"]["val"]["scores"]
    (line,) = lines(folder / "metrics.jsonl")
    assert line["step"] == 0 and line["val/pretrained/auroc"] == table["pretrained"]["macro"]["auroc"]["value"]
    assert all(isinstance(value, float) for name, value in line.items() if name != "step")


def test_results_are_whole_or_not_there(world, tmp_path, monkeypatch):
    """A second run that dies while it writes leaves no results beside predictions that are not theirs."""
    probe(DEBUG, tmp_path, *settings(world))
    before = (tmp_path / "results.json").read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_heads", full)
    with pytest.raises(OSError, match="no space left"):
        probe(DEBUG, tmp_path, *settings(world))
    assert not (tmp_path / "results.json").exists()
    monkeypatch.undo()
    probe(DEBUG, tmp_path, *settings(world))
    assert (tmp_path / "results.json").read_bytes() == before


# Scores of others


def write(path, rows, header=("id", "only", "often"), encoding="utf-8"):
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["ecg-{:02d}", "id {}"])
def test_scores_are_found_by_key_or_id_in_any_order(cases, tmp_path, name, encoding):
    rows = [(name.format(number), number / 100, 1 - number / 100) for number in reversed(range(40, 90))]
    found = read_scores(write(tmp_path / "s.csv", rows, encoding=encoding), *cases)
    assert set(found) == {"validation", "here"}, "train has no scores and needs none"
    expected = np.arange(60, 90) / 100
    np.testing.assert_allclose(found["here"], np.stack([1 - expected, expected], 1))


def test_scores_may_be_by_any_key_of_the_metadata_that_comes_first(cases, tmp_path):
    rows = [(20 + number, number / 100, 0.5) for number in range(60, 90)]
    found = read_scores(write(tmp_path / "s.csv", rows, ("age", "only", "often")), *cases)
    np.testing.assert_allclose(found["here"][:, 1], np.arange(60, 90) / 100)


def test_a_test_record_without_a_score_is_named(cases, tmp_path):
    rows = [(f"ecg-{number}", 0.5, 0.5) for number in range(60, 88)]
    with pytest.raises(ValueError, match="has no score for 2 of 30 records of here, ecg-88 for one"):
        read_scores(write(tmp_path / "s.csv", rows), *cases)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (("id", "often"), ("ecg-60", 0.5), "has no column only; it takes id and each label"),
        (("key", "often", "only"), ("id 60", 0.5, 0.5), "has no score for 30 of 30 records of here"),
        (("id", "often", "only"), ("ecg-60", "high", 0.5), "holds something that is no number .*high"),
        (("id", "often", "only"), ("ecg-60", 0.5), "holds something that is no number"),
        (("id", "often", "only"), ("ecg-60", "", 0.5), "holds something that is no number"),
    ],
)
def test_a_table_that_does_not_fit_is_told(cases, tmp_path, header, row, message):
    with pytest.raises(ValueError, match=message):
        read_scores(write(tmp_path / "s.csv", [row], header), *cases)


@pytest.mark.parametrize("value", ["1.5", "nan"])
def test_scores_that_are_no_probabilities_are_told_by_the_name_of_their_row(world, tmp_path, value):
    rows = [(f"ecg-{number}", value, value) for number in range(60, 90)]
    path = write(tmp_path / "s.csv", rows)
    given = settings(world, "target.labels=[often, only]", f"rows.scores.theirs={path}")
    with pytest.raises(ValueError, match="theirs"):
        probe(DEBUG, tmp_path / "run", *given)


def test_cells_as_text():
    assert cell_text({"value": None, "low": None, "high": None}) == "undefined"
    assert cell_text({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert cell_text({"value": 0.83149, "low": 0.8, "high": 0.86}) == "0.831 [0.800, 0.860]"
